"""Hyper-parameters that families of algorithms share, each declared once."""

from __future__ import annotations

from .base import Algo
from .hyperparameters import hp, hyperparameters
from .models.encoders import EncoderFactory
from .models.optimizers import AdamFactory, OptimizerFactory
from .models.q_functions import QFunctionFactory
from .preprocessing import ActionScaler, RewardScaler


@hyperparameters
class ValueAlgo(Algo):
    """Base class of algorithms that learn values from rewards."""

    learns_from_rewards = True

    gamma: float = hp(0.99, "discount factor", low=0, high=1)
    n_steps: int = hp(
        1, "rewards summed before the value takes over (the n_steps of fit counts updates)", low=1, high=8191
    )
    reward_scaler: str | RewardScaler | None = hp(
        None,
        "reward scaler: 'min_max', 'standard', 'clip', 'multiply', 'return', 'shift' or an object",
        fixed=True,
    )


@hyperparameters
class DiscreteAlgo(ValueAlgo):
    """Base class of algorithms for discrete actions."""

    action_space = "discrete"


@hyperparameters
class ContinuousAlgo(ValueAlgo):
    """Base class of algorithms for continuous actions."""

    action_space = "continuous"
    action_scaler: str | ActionScaler | None = hp(None, "action scaler: 'min_max' or an object", fixed=True)


@hyperparameters
class ActorCritic(ValueAlgo):
    """What algorithms with a policy and critics have in common, whatever their actions."""

    actor_learning_rate: float = hp(3e-4, "learning rate of the policy", low=0)
    critic_learning_rate: float = hp(3e-4, "learning rate of the critics", low=0)
    actor_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the policy", fixed=True)
    critic_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the critics", fixed=True)
    actor_encoder_factory: str | EncoderFactory = hp("default", "body of the policy", fixed=True)
    critic_encoder_factory: str | EncoderFactory = hp("default", "body of each critic", fixed=True)
    q_func_factory: str | QFunctionFactory = hp("mean", "kind of Q function", fixed=True)
    n_critics: int = hp(2, "number of critics", low=1, fixed=True)


@hyperparameters
class ActorCriticAlgo(ContinuousAlgo, ActorCritic):
    """Base class of algorithms for continuous actions with a policy, critics, and slow copies."""

    tau: float = hp(0.005, "share of the online networks copied into their slow copies", low=0, high=1)


@hyperparameters
class DiscreteActorCriticAlgo(DiscreteAlgo, ActorCritic):
    """Base class of algorithms for discrete actions with a policy and critics."""
