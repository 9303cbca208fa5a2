"""BC: behavior cloning, the policy that acts as the data does.

Paper: Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation", Neural
Computation 3(1). The stochastic policy is fitted by maximum likelihood, the deterministic one by squared error.
The penalty ``beta`` on the logits of the discrete policy is that of Fujimoto et al. 2019, arXiv:1910.01708v1 (the
imitator of discrete BCQ, authors' code, with a weight of 0.01).
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from ..base import Algo
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import AlgorithmImpl, Batch, Metrics, gradient_step
from ..models.encoders import EncoderFactory, create_encoder
from ..models.optimizers import AdamFactory, Optimizer, OptimizerFactory
from ..models.policies import CategoricalPolicy, DeterministicPolicy, SquashedNormalPolicy
from ..preprocessing import ActionScaler


class ImitationImpl(AlgorithmImpl):
    """One policy and its likelihood or error."""

    policy: nn.Module
    optim: Optimizer

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """How far the policy is from the actions of the data."""

    def update(self, batch: Batch) -> Metrics:
        loss = self.loss(batch)
        gradient_step(self.optim, loss)
        return {"loss": loss.detach()}

    def best_action(self, observations: Tensor) -> Tensor:
        return self.policy(observations)


class BCImpl(ImitationImpl):
    """A deterministic or a squashed Gaussian policy."""

    hp: BC

    def build(self) -> None:
        encoder = create_encoder(self.hp.encoder_factory, self.observation_shape)
        policy = SquashedNormalPolicy if self.hp.policy_type == "stochastic" else DeterministicPolicy
        self.policy = policy(encoder, self.action_size)
        self.optim = self.optimizer("", [self.policy])

    def loss(self, batch: Batch) -> Tensor:
        """``E[(pi(s) - a)^2]``, or ``-E[log pi(a|s)]`` if the policy is stochastic."""
        if isinstance(self.policy, SquashedNormalPolicy):
            return -self.policy.log_prob(batch.observations, batch.actions).mean()
        return ((self.policy(batch.observations) - batch.actions) ** 2).mean()

    def sample_action(self, observations: Tensor) -> Tensor:
        if isinstance(self.policy, SquashedNormalPolicy):
            return self.policy.sample_action(observations)
        return self.policy(observations)


class DiscreteBCImpl(ImitationImpl):
    """A categorical policy."""

    policy: CategoricalPolicy

    hp: DiscreteBC

    def build(self) -> None:
        self.policy = CategoricalPolicy(
            create_encoder(self.hp.encoder_factory, self.observation_shape), self.action_size
        )
        self.optim = self.optimizer("", [self.policy])

    def loss(self, batch: Batch) -> Tensor:
        """``-E[log pi(a|s)] + beta E[mean_a logit_a^2]``."""
        logits = self.policy.logits(batch.observations)
        log_probs = logits.log_softmax(dim=1).gather(1, batch.actions[:, None])
        return -log_probs.mean() + self.hp.beta * (logits**2).mean()

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


@hyperparameters
class Imitation(Algo):
    """What the two have in common."""

    batch_size: int = hp(100)
    learning_rate: float = hp(1e-3, "learning rate", low=0)
    optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer", fixed=True)
    encoder_factory: str | EncoderFactory = hp("default", "body of the policy", fixed=True)


@algorithm
class BC(Imitation):
    r"""Behavior cloning for continuous actions.

    .. math:: L = E[(\pi(s) - a)^2] \quad\text{or}\quad L = -E[\log \pi(a|s)]

    Examples
    --------
    >>> BC(policy_type="stochastic")
    BC(policy_type='stochastic')
    """

    action_space = "continuous"
    policy_type: str = hp("deterministic", "kind of policy", options=("deterministic", "stochastic"), fixed=True)
    action_scaler: str | ActionScaler | None = hp(None, "action scaler: 'min_max' or an object", fixed=True)

    Impl = BCImpl


@algorithm
class DiscreteBC(Imitation):
    r"""Behavior cloning for discrete actions.

    .. math:: L = -E[\log \pi(a|s)] + \beta E[\mathrm{logits}^2]

    Examples
    --------
    >>> DiscreteBC(beta=0.0)
    DiscreteBC(beta=0.0)
    """

    action_space = "discrete"
    beta: float = hp(0.5, "weight of the penalty on the logits", low=0)

    Impl = DiscreteBCImpl
