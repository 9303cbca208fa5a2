"""``Scalers``: the three scalers of one trained algorithm, kept apart from what the user gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..dataset import Data, rows_of
from .action import ACTION_SCALERS, ActionScaler
from .base import BaseScaler, Scaler
from .observation import SCALERS
from .reward import REWARD_SCALERS, RewardScaler


@dataclass(eq=False)
class Scalers:
    """Observation, action and reward scaler, each of which may be None.

    Each can be given as a name, as the dictionary of ``to_dict`` or as an object, which is then used itself.
    """

    observation: Scaler | None = None
    action: ActionScaler | None = None
    reward: RewardScaler | None = None

    def __post_init__(self) -> None:
        for name, registry in (
            ("observation", SCALERS),
            ("action", ACTION_SCALERS),
            ("reward", REWARD_SCALERS),
        ):
            if getattr(self, name) is not None:
                setattr(self, name, registry.resolve(getattr(self, name)))

    def fit(self, data: Data) -> Scalers:
        """Find all statistics that are not known yet, in a data set, episodes or transitions."""
        present = self._present()
        if present:
            rows, indices = rows_of(data)
            for scaler in present:
                scaler.fit_rows(rows, indices)
        return self

    def fit_with_env(self, env: Any) -> Scalers:
        """Find the statistics of observation and action scalers in an environment; rewards need data."""
        for scaler in (self.observation, self.action):
            if scaler is not None:
                scaler.fit_with_env(env)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The scalers as plain values, None where there is none."""
        kinds = {"observation": self.observation, "action": self.action, "reward": self.reward}
        return {kind: None if scaler is None else scaler.to_dict() for kind, scaler in kinds.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scalers:
        """Equal scalers from the values of ``to_dict``."""
        return cls(**values)

    def _present(self) -> list[BaseScaler]:
        return [s for s in (self.observation, self.action, self.reward) if s is not None]
