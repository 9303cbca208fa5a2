"""TD3+BC: TD3 whose actor also clones the data.

Paper: Fujimoto, Gu 2021, arXiv:2106.06860v2, equations 3 and 5.
As in the authors' code, lambda divides by the mean of ``|Q_1(s, pi(s))|``, where equation 5 prints the actions of the
data; nothing else is known to differ. Observations are standardised by the default scaler, with their eps of 1e-3.
"""

from __future__ import annotations

from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import Batch
from ..preprocessing import Scaler
from .td3 import TD3, TD3Impl


class TD3PlusBCImpl(TD3Impl):
    """The networks of TD3."""

    hp: TD3PlusBC

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-lambda E[Q_1(s, pi(s))] + E[(pi(s) - a)^2]``, ``lambda = alpha / E|Q_1(s, pi(s))|`` without gradient."""
        action = self.policy(batch.observations)
        q = self.q_funcs.detached(batch.observations, action, critic=0)
        lam = self.hp.alpha / q.abs().mean().detach()
        return -lam * q.mean() + ((action - batch.actions) ** 2).mean()


@algorithm
class TD3PlusBC(TD3):
    r"""TD3 plus behavior cloning.

    .. math:: L_\pi = -\lambda E[Q_1(s, \pi(s))] + E[(\pi(s) - a)^2], \quad \lambda = \alpha / E|Q_1(s, \pi(s))|

    Examples
    --------
    >>> TD3PlusBC(alpha=1.0)
    TD3PlusBC(alpha=1.0)
    """

    alpha: float = hp(2.5, "weight of Q against cloning", low=0)
    scaler: str | Scaler | None = hp("standard")

    Impl = TD3PlusBCImpl
