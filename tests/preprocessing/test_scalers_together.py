"""``Scalers``, the three of one algorithm, and scalers of a user's own."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import numpy as np
import torch

from d3rlpy.dataset import MDPDataset
from d3rlpy.preprocessing import REWARD_SCALERS, SCALERS, MinMaxActionScaler, Scaler, Scalers, register_scaler


def make_dataset(n=20):
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, [1.0, 10.0, 0.1], (n, 3)).astype(np.float32)
    actions = rng.uniform([-1, 2], [3, 2.5], (n, 2)).astype(np.float32)
    return MDPDataset(observations, actions, rng.normal(size=n).astype(np.float32), np.arange(n) % 5 == 4)


def test_own_scaler_needs_only_its_two_maps():
    @dataclass(eq=False)
    class Halves(Scaler):
        TYPE: ClassVar[str] = "halves"
        factor: float = 0.5

        def transform(self, x):
            return x * self.factor

        def reverse_transform(self, x):
            return x / self.factor

    register_scaler(Halves)
    try:
        scalers = Scalers(observation="halves").fit(make_dataset())
        assert scalers.observation.transform_numpy(np.ones((1, 3), np.float32)).tolist() == [[0.5] * 3]
        assert Scalers.from_dict(scalers.to_dict()).observation.factor == 0.5
    finally:
        del SCALERS.classes["halves"]


def test_scalers_resolve_names_fit_together_and_come_back_from_json():
    data = make_dataset()
    scalers = Scalers("standard", MinMaxActionScaler(), "min_max").fit(data)
    again = Scalers.from_dict(json.loads(json.dumps(scalers.to_dict())))
    assert torch.equal(
        again.observation.transform(torch.tensor(data.observations)),
        scalers.observation.transform(torch.tensor(data.observations)),
    )
    assert again.action.fitted
    assert again.reward.to_dict() == scalers.reward.to_dict()
    assert REWARD_SCALERS.resolve(scalers.to_dict()["reward"]).maximum == scalers.reward.maximum


def test_scalers_of_nothing_do_nothing():
    scalers = Scalers()
    assert scalers.fit([]) is scalers
    assert scalers.to_dict() == {"observation": None, "action": None, "reward": None}


def test_scalers_leave_the_reward_scaler_to_data_when_fitted_with_an_environment():
    env = SimpleNamespace(
        observation_space=gymnasium.spaces.Box(0, 1, (1,)), action_space=gymnasium.spaces.Box(-1, 1, (1,))
    )
    scalers = Scalers("min_max", "min_max", "standard").fit_with_env(env)
    assert scalers.observation.fitted
    assert scalers.action.fitted
    assert not scalers.reward.fitted
