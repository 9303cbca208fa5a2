"""Reward scalers: known answers, inverses, and which rewards they look at."""

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone

from d3rlpy.dataset import MDPDataset
from d3rlpy.preprocessing import (
    REWARD_SCALERS,
    ClipRewardScaler,
    ConstantShiftRewardScaler,
    MinMaxRewardScaler,
    MultiplyRewardScaler,
    ReturnBasedRewardScaler,
    RewardScaler,
    StandardRewardScaler,
    create_reward_scaler,
)


def make_dataset(rewards=(1.0, 2.0, -3.0, 0.0, 8.0, 4.0), terminals=(0, 0, 1, 0, 0, 1), timeouts=None):
    n = len(rewards)
    x = np.arange(n, dtype=np.float32)[:, None]
    return MDPDataset(
        x, x, np.array(rewards, np.float32), np.array(terminals), timeouts=timeouts, discrete_action=False
    )


REWARDS = np.array([1.0, 2.0, -3.0, 0.0, 8.0, 4.0], np.float32)
RETURN_RANGE = 12.0 - 0.0  # of the two episodes above

EXPECTED = [
    (MinMaxRewardScaler(multiplier=2.0), 2 * (REWARDS + 3) / 11),
    (StandardRewardScaler(), (REWARDS - 2.0) / (np.std(REWARDS) + 1e-3)),
    (StandardRewardScaler(eps=0.0, multiplier=3.0), 3 * (REWARDS - 2.0) / np.std(REWARDS)),
    (ClipRewardScaler(), [1, 1, -1, 0, 1, 1]),
    (ClipRewardScaler(low=-2.0, high=None, multiplier=0.5), [0.5, 1, -1, 0, 4, 2]),
    (ClipRewardScaler(low=None, high=1.0), [1, 1, -3, 0, 1, 1]),
    (MultiplyRewardScaler(10.0), 10 * REWARDS),
    (ReturnBasedRewardScaler(multiplier=1000.0), 1000 * REWARDS / RETURN_RANGE),
    (ConstantShiftRewardScaler(-1.0), REWARDS - 1),
    (ConstantShiftRewardScaler(-1.0, multiplier=4.0), 4 * (REWARDS - 1)),
    (ConstantShiftRewardScaler(-1.0, multiplier=4.0, multiply_first=True), 4 * REWARDS - 1),
]


@pytest.mark.parametrize(("scaler", "expected"), EXPECTED)
def test_transform_is_the_documented_formula(scaler, expected):
    scaler = clone(scaler).fit(make_dataset())
    np.testing.assert_allclose(scaler.transform_numpy(REWARDS), expected, rtol=1e-6)
    column = scaler.transform(torch.tensor(REWARDS)[:, None])
    np.testing.assert_allclose(column[:, 0], expected, rtol=1e-6)
    assert column.dtype == torch.float32


@pytest.mark.parametrize("scaler", [s for s, _ in EXPECTED if s.get_type() != "clip"])
def test_reverse_transform_gives_the_rewards_back(scaler):
    scaler = clone(scaler).fit(make_dataset())
    back = scaler.reverse_transform_numpy(scaler.transform_numpy(REWARDS))
    np.testing.assert_allclose(back, REWARDS, rtol=1e-5, atol=1e-6)


def test_inverse_of_clipping_undoes_the_multiplier():
    assert ClipRewardScaler(multiplier=4.0).reverse_transform(torch.tensor([2.0])).item() == 0.5


@pytest.mark.parametrize("scaler", [s for s, _ in EXPECTED])
def test_scaler_from_its_json_transforms_alike(scaler):
    scaler = clone(scaler).fit(make_dataset())
    again = REWARD_SCALERS.resolve(json.loads(json.dumps(scaler.to_dict())))
    np.testing.assert_array_equal(again.transform_numpy(REWARDS), scaler.transform_numpy(REWARDS))


def test_every_registered_reward_scaler_is_tried_here():
    assert {s.get_type() for s, _ in EXPECTED} == set(REWARD_SCALERS.classes)


def test_reward_after_the_last_transition_is_not_seen_by_reward_statistics():
    data = make_dataset([1.0, 2.0, 50.0], [0, 0, 0], timeouts=[0, 0, 1])
    assert MinMaxRewardScaler(data).maximum == 2.0


def test_returns_are_those_of_the_episodes_that_are_given():
    data = make_dataset([1.0, 2.0, 5.0, 5.0, -1.0, -1.0], [0, 1, 0, 1, 0, 1])  # returns 3, 10, -2
    assert (ReturnBasedRewardScaler(data).return_min, ReturnBasedRewardScaler(data).return_max) == (-2, 10)
    some = ReturnBasedRewardScaler(data.episodes[:2])
    assert (some.return_min, some.return_max) == (3, 10)
    one_each = ReturnBasedRewardScaler([data.episodes[0][0], data.episodes[1][1]])
    assert (one_each.return_min, one_each.return_max) == (3, 10)


def test_returns_equal_those_of_the_episodes():
    rng = np.random.default_rng(0)
    data = make_dataset(rng.normal(size=40), np.zeros(40), timeouts=np.arange(40) % 8 == 7)
    returns = [episode.compute_return() for episode in data.episodes]
    scaler = ReturnBasedRewardScaler(data)
    assert scaler.return_max == pytest.approx(max(returns), rel=1e-6)
    assert scaler.return_min == pytest.approx(min(returns), rel=1e-6)


def test_equal_returns_leave_rewards_as_they_are():
    scaler = ReturnBasedRewardScaler(make_dataset([1.0, 2.0], [0, 1]), multiplier=3.0)
    assert scaler.transform_numpy(np.array([1.0, 2.0], np.float32)).tolist() == [3, 6]


@pytest.mark.parametrize("name", ["min_max", "standard"])
def test_constant_rewards_become_zero_and_come_back(name):
    scaler = create_reward_scaler(name).fit(make_dataset([0.1, 0.1], [0, 1]))
    scaled = scaler.transform_numpy(np.array([0.1, 0.1], np.float32))
    assert scaled.tolist() == [0, 0]
    np.testing.assert_array_equal(scaler.reverse_transform_numpy(scaled), np.array([0.1, 0.1], np.float32))


def test_unfitted_reward_scaler_says_what_is_missing():
    with pytest.raises(RuntimeError, match=r"ReturnBasedRewardScaler is not fitted.*return_min and return_max"):
        ReturnBasedRewardScaler().transform_numpy(REWARDS)


@pytest.mark.parametrize(
    "scaler",
    [MultiplyRewardScaler(0.0), ConstantShiftRewardScaler(1.0, 0.0), ClipRewardScaler(multiplier=0.0)],
)
def test_multiplier_of_zero_is_refused(scaler):
    with pytest.raises(ValueError, match="multiplier must not be 0"):
        scaler.fit(make_dataset()).transform_numpy(REWARDS)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (ClipRewardScaler(low=NAN), "ClipRewardScaler: low=nan must be one finite number"),
        (ClipRewardScaler(low=INF, high=None), "ClipRewardScaler: low=inf must be one finite number"),
        (ClipRewardScaler(high=-INF), "ClipRewardScaler: high=-inf must be one finite number"),
        (ClipRewardScaler(low="a"), "ClipRewardScaler: low='a' must be one finite number"),
        (ClipRewardScaler(low=1.0, high=-1.0), r"high=-1\.0 is smaller than low=1\.0"),
        (ClipRewardScaler(multiplier="2"), "multiplier='2' must be one finite number"),
        (MultiplyRewardScaler(NAN), "MultiplyRewardScaler: multiplier=nan must be one finite number"),
        (MultiplyRewardScaler(None), "MultiplyRewardScaler: multiplier=None must be one finite number"),
        (MultiplyRewardScaler([1.0, 2.0]), r"multiplier=\[1.0, 2.0\] must be one finite number"),
        (ConstantShiftRewardScaler(INF), "ConstantShiftRewardScaler: shift=inf must be one finite number"),
        (ConstantShiftRewardScaler("a"), "ConstantShiftRewardScaler: shift='a' must be one finite number"),
        (StandardRewardScaler(mean=0.0, std=1.0, eps=-3.0), r"StandardRewardScaler: eps=-3\.0 is negative"),
        (StandardRewardScaler(mean=NAN, std=1.0), "StandardRewardScaler: mean=nan must be finite"),
        (MinMaxRewardScaler(minimum=0.0, maximum=INF), "MinMaxRewardScaler: maximum=inf must be finite"),
        (ReturnBasedRewardScaler(return_min="a", return_max=1.0), "return_min='a' must be finite"),
    ],
)
def test_parameters_that_make_no_map_are_refused_by_name(scaler, message):
    with pytest.raises(ValueError, match=message):
        scaler.fit(make_dataset())
    with pytest.raises(ValueError, match=message):
        scaler.transform_numpy(REWARDS)


def test_clipping_without_bounds_only_multiplies():
    assert (
        ClipRewardScaler(None, None, 2.0).fit(make_dataset()).transform_numpy(REWARDS).tolist()
        == (2 * REWARDS).tolist()
    )


def own_scaler(function):
    class Own(RewardScaler):
        TYPE = "own"

        def transform(self, x):
            return function(x)

        def reverse_transform(self, x):
            return x

    return Own()


def test_rewards_of_an_own_scaler_become_float32():
    scaled = own_scaler(lambda x: x.double() / 3).transform_numpy(REWARDS)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, (REWARDS.astype(np.float64) / 3).astype(np.float32))
    assert own_scaler(lambda x: x[None].expand(2, -1).T[:, 0]).transform_numpy(REWARDS).flags.c_contiguous


def test_own_scaler_of_another_shape_or_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Own: transform returned the shape \(6, 1\) for rewards of shape \(6,\)"):
        own_scaler(lambda x: x[:, None]).transform_numpy(REWARDS)
    with pytest.raises(TypeError, match="Own: transform must return a tensor, got ndarray"):
        own_scaler(lambda x: x.numpy()).transform_numpy(REWARDS)


def test_scaling_leaves_the_data_set_as_it_is():
    data = make_dataset()
    before = data.rewards.copy()
    MultiplyRewardScaler(10.0).transform_numpy(data.rewards)
    np.testing.assert_array_equal(data.rewards, before)
