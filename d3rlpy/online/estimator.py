"""The methods of an estimator that act in an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.utils.metaestimators import available_if

from ..signatures import same_arguments
from .collecting import Collected, collect
from .loop import fit_batch_online, fit_online

if TYPE_CHECKING:
    from .buffers import ReplayBuffer


def _learns_from_rewards(algo: Any) -> bool:
    if not algo.learns_from_rewards:
        raise AttributeError(
            f"{type(algo).__name__} doesn't learn from rewards, so it can't improve by acting: it has collect, and no "
            "fit_online and fit_batch_online"
        )
    return True


class OnlineMethods:
    """What an estimator can do with an environment.

    Attributes
    ----------
    collected_ : steps and returns of the last ``collect``.
    online_state_ : where the last ``fit_online`` stood when it ended, or stands when a callback looks.
    """

    learns_from_rewards: ClassVar[bool] = False
    collected_: Collected
    online_state_: dict[str, Any]

    @property
    def updates_per_step(self) -> int:
        """Updates of a round that ``fit_online`` makes unless its ``n_updates`` says otherwise."""
        return 1

    @available_if(_learns_from_rewards)
    @same_arguments(fit_online)
    def fit_online(self, *args: Any, **kwargs: Any) -> Self:
        """Train while acting; after ``fit`` it continues from there. Returns ``self``."""
        fit_online(self, *args, **kwargs)  # type: ignore[arg-type]
        return self

    @available_if(_learns_from_rewards)
    @same_arguments(fit_batch_online)
    def fit_batch_online(self, *args: Any, **kwargs: Any) -> Self:
        """Train while acting in a vector of environments. Returns ``self``."""
        fit_batch_online(self, *args, **kwargs)  # type: ignore[arg-type]
        return self

    @same_arguments(collect)
    def collect(self, *args: Any, **kwargs: Any) -> ReplayBuffer:
        """Act without learning and return the buffer."""
        return collect(self, *args, **kwargs)  # type: ignore[arg-type]
