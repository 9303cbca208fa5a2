"""Networks and the factories that choose them: encoders, policies, Q functions, optimizers."""

from .bodies import Encoder, EncoderWithAction
from .encoders import (
    DefaultEncoderFactory,
    DenseEncoderFactory,
    EncoderFactory,
    PixelEncoderFactory,
    VectorEncoderFactory,
    create_encoder,
    create_encoder_factory,
    create_encoder_with_action,
    register_encoder_factory,
)
from .optimizers import (
    AdamFactory,
    AdamWFactory,
    OptimizerFactory,
    RMSpropFactory,
    SGDFactory,
    create_optimizer_factory,
    register_optimizer_factory,
)
from .policies import CategoricalPolicy, DeterministicPolicy, NormalPolicy, SquashedNormalPolicy
from .q_functions import (
    MeanQFunctionFactory,
    QEnsemble,
    QFunction,
    QFunctionFactory,
    QRQFunctionFactory,
    create_q_func_factory,
    create_q_functions,
    register_q_func_factory,
)

__all__ = [
    "AdamFactory",
    "AdamWFactory",
    "CategoricalPolicy",
    "DefaultEncoderFactory",
    "DenseEncoderFactory",
    "DeterministicPolicy",
    "Encoder",
    "EncoderFactory",
    "EncoderWithAction",
    "MeanQFunctionFactory",
    "NormalPolicy",
    "OptimizerFactory",
    "PixelEncoderFactory",
    "QEnsemble",
    "QFunction",
    "QFunctionFactory",
    "QRQFunctionFactory",
    "RMSpropFactory",
    "SGDFactory",
    "SquashedNormalPolicy",
    "VectorEncoderFactory",
    "create_encoder",
    "create_encoder_factory",
    "create_encoder_with_action",
    "create_optimizer_factory",
    "create_q_func_factory",
    "create_q_functions",
    "register_encoder_factory",
    "register_optimizer_factory",
    "register_q_func_factory",
]
