"""Critics: what a pair is worth, as one number or as a distribution."""

from .base import (
    Q_FUNCTIONS,
    DiscreteQFunction,
    QFunction,
    QFunctionFactory,
    create_q_func_factory,
    pick_action,
    register_q_func_factory,
)
from .ensemble import QEnsemble, create_q_functions, reduce_distributions, reduce_values
from .mean import MeanQFunctionFactory
from .qr import QRQFunctionFactory

__all__ = [
    "Q_FUNCTIONS",
    "DiscreteQFunction",
    "MeanQFunctionFactory",
    "QEnsemble",
    "QFunction",
    "QFunctionFactory",
    "QRQFunctionFactory",
    "create_q_func_factory",
    "create_q_functions",
    "pick_action",
    "reduce_distributions",
    "reduce_values",
    "register_q_func_factory",
]
