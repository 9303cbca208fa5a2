"""Critics: what a pair is worth, as one number or as a distribution."""

from .base import (
    Q_FUNCTIONS,
    LinearQFunction,
    LinearValues,
    QFunction,
    QFunctionFactory,
    QValues,
    create_q_func_factory,
    register_q_func_factory,
)
from .c51 import C51QFunctionFactory
from .distribution import Distribution, pick_action, reduce_distributions, reduce_values
from .ensemble import QEnsemble, create_q_functions
from .fqf import FQFQFunctionFactory
from .iqn import IQNQFunctionFactory
from .mean import MeanQFunctionFactory
from .qr import QRQFunctionFactory

__all__ = [
    "Q_FUNCTIONS",
    "C51QFunctionFactory",
    "Distribution",
    "FQFQFunctionFactory",
    "IQNQFunctionFactory",
    "LinearQFunction",
    "LinearValues",
    "MeanQFunctionFactory",
    "QEnsemble",
    "QFunction",
    "QFunctionFactory",
    "QRQFunctionFactory",
    "QValues",
    "create_q_func_factory",
    "create_q_functions",
    "pick_action",
    "reduce_distributions",
    "reduce_values",
    "register_q_func_factory",
]
