"""EnvAdapter against the real gymnasium and gym, and hand-written environments of the 4-tuple API."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from d3rlpy.envs import EnvAdapter


@pytest.fixture(scope="module")
def gym():
    return importlib.import_module("gym")  # not at the top: it prints a notice


class Corridor:
    """4-tuple API: the position is the observation, action 1 goes right, the third cell ends the episode."""

    observation_space = gymnasium.spaces.Box(-1.0, 9.0, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, limit=None):
        self.limit = limit
        self.seeds = []

    def seed(self, seed):
        self.seeds.append(seed)

    def reset(self):
        self.position = self.time = 0
        return np.array([0.0])

    def step(self, action):
        assert type(action) is int
        self.position += action
        self.time += 1
        done, info = self.position == 3, {}
        if self.limit is not None and self.time >= self.limit:
            info["TimeLimit.truncated"] = not done  # as gym 0.21's TimeLimit does
            done = True
        return np.array([float(self.position)]), np.float64(self.position), done, info


class Fixed:
    """5-tuple API with given spaces and a given observation."""

    def __init__(self, observation_space, action_space, observation=None):
        self.observation_space, self.action_space = observation_space, action_space
        self.observation = observation
        self.actions = []

    def reset(self, *, seed=None):
        return self.observation, {"seed": seed}

    def step(self, action):
        self.actions.append(action)
        return self.observation, 1, np.bool_(False), np.bool_(True), {}


def rollout(env, actions, seed):
    adapter = EnvAdapter(env)
    rows = [adapter.reset(seed=seed)[0]]
    for action in actions:
        observation, reward, terminated, truncated, _ = adapter.step(action)
        rows.append(np.concatenate([observation, [reward, terminated, truncated]]))
        if terminated or truncated:
            break
    return rows


def test_import_needs_neither_gym_nor_gymnasium():
    code = "import sys, d3rlpy.envs; print('gym' in sys.modules, 'gymnasium' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


@pytest.mark.parametrize("seed", [0, 7])
def test_gym_and_gymnasium_give_the_same_cartpole_numbers(gym, seed):
    actions = np.random.default_rng(seed).integers(2, size=100)
    old, new = gym.make("CartPole-v1"), gymnasium.make("CartPole-v1")
    ours, theirs = rollout(old, actions, seed), rollout(new, actions, seed)
    assert len(ours) == len(theirs) > 5
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert ours[-1][-2] == 1.0  # the pole fell


def test_gym_and_gymnasium_give_the_same_pendulum_numbers(gym):
    actions = np.random.default_rng(3).uniform(-2.0, 2.0, size=(30, 1))
    ours, theirs = (rollout(m.make("Pendulum-v1"), actions, 5) for m in (gym, gymnasium))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("package", ["gym", "gymnasium"])
def test_real_episode_stops_at_the_time_limit_as_truncated(gym, package):
    env = EnvAdapter({"gym": gym, "gymnasium": gymnasium}[package].make("Pendulum-v1"))
    env.reset(seed=1)
    flags = [env.step([0.0])[2:4] for _ in range(200)]
    assert flags[:-1] == [(False, False)] * 199
    assert flags[-1] == (False, True)


@pytest.mark.parametrize("package", ["gym", "gymnasium"])
def test_spaces_of_real_environments_are_read(gym, package):
    make = {"gym": gym, "gymnasium": gymnasium}[package].make
    cartpole, pendulum = EnvAdapter(make("CartPole-v1")), EnvAdapter(make("Pendulum-v1"))
    assert (cartpole.discrete, cartpole.action_size, cartpole.observation_shape) == (True, 2, (4,))
    with pytest.raises(AttributeError, match=r"action_low: actions of .* are ids"):
        _ = cartpole.action_low
    assert (pendulum.discrete, pendulum.action_size, pendulum.observation_shape) == (False, 1, (3,))
    np.testing.assert_array_equal(pendulum.action_low, np.float32([-2.0]))
    np.testing.assert_array_equal(pendulum.action_high, np.float32([2.0]))
    assert cartpole.sample_action() in (0, 1)
    assert -2.0 <= pendulum.sample_action()[0] <= 2.0


@pytest.mark.parametrize("package", ["gym", "gymnasium"])
def test_values_have_plain_types_and_float32_observations(gym, package):
    env = EnvAdapter({"gym": gym, "gymnasium": gymnasium}[package].make("Pendulum-v1"))
    first, info = env.reset(seed=0)
    observation, reward, terminated, truncated, _ = env.step(np.array([0.5]))
    assert first.dtype == observation.dtype == np.float32
    assert isinstance(info, dict)
    assert [type(x) for x in (reward, terminated, truncated)] == [float, bool, bool]


def test_wrapping_an_adapter_reaches_the_same_environment():
    env = Corridor()
    inner = EnvAdapter(env)
    outer = EnvAdapter(inner)
    assert outer.env is inner.env is env


def test_done_without_time_limit_key_is_terminated():
    rows = rollout(Corridor(), [1, 0, 1, 1], seed=None)
    assert [list(r) for r in rows[1:]] == [[1, 1, 0, 0], [1, 1, 0, 0], [2, 2, 0, 0], [3, 3, 1, 0]]


def test_done_by_time_limit_is_truncated():
    assert list(rollout(Corridor(limit=2), [1, 1], seed=None)[-1][1:]) == [2, 0, 1]


def test_done_at_the_limit_with_the_key_false_is_terminated():
    assert list(rollout(Corridor(limit=3), [1, 1, 1], seed=None)[-1][1:]) == [3, 1, 0]


@pytest.mark.parametrize("n_values", [4, 5])
def test_environment_without_an_info_gives_an_empty_one(n_values):
    env = Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(1))
    env.reset = lambda: (np.zeros(1), None)
    env.step = lambda action: (np.zeros(1), 2.0, *[True] * (n_values - 3), None)
    adapter = EnvAdapter(env)
    assert adapter.reset()[1] == {}
    assert adapter.step(0)[1:] == (2.0, True, n_values == 5, {})


def test_seed_reaches_a_four_tuple_environment_through_its_seed_method():
    env = Corridor()
    EnvAdapter(env).reset(seed=11)
    assert env.seeds == [11]


def test_seed_reaches_a_four_tuple_environment_below_a_gym_wrapper(gym):
    env = Corridor()
    adapter = EnvAdapter(gym.Wrapper(env))
    adapter.reset(seed=4)
    assert env.seeds == [4]
    assert adapter.step(1)[1:4] == (1.0, False, False)


def test_seed_on_an_environment_that_takes_none_is_an_error():
    env = SimpleNamespace(
        observation_space=Corridor.observation_space,
        action_space=Corridor.action_space,
        reset=lambda: np.zeros(1),
        step=None,
    )
    assert EnvAdapter(env).reset()[1] == {}
    with pytest.raises(ValueError, match="seed=3: SimpleNamespace takes no seed"):
        EnvAdapter(env).reset(seed=3)


def test_type_error_of_the_environment_itself_is_not_hidden():
    class Broken(Fixed):
        def reset(self, *, seed=None):
            raise TypeError("inside")

    env = EnvAdapter(Broken(Corridor.observation_space, Corridor.action_space))
    with pytest.raises(TypeError, match="inside"):
        env.reset(seed=1)


def test_images_stay_uint8():
    space = gymnasium.spaces.Box(0, 255, (3, 8, 8), np.uint8)
    image = np.full((3, 8, 8), 200, np.uint8)
    env = EnvAdapter(Fixed(space, gymnasium.spaces.Discrete(2), image))
    assert env.reset()[0].dtype == np.uint8
    assert env.step(0)[0][0, 0, 0] == 200


def test_uint8_vectors_become_float32():
    space = gymnasium.spaces.Box(0, 255, (3,), np.uint8)
    env = EnvAdapter(Fixed(space, gymnasium.spaces.Discrete(2), np.array([1, 2, 255], np.uint8)))
    observation = env.reset()[0]
    assert observation.dtype == np.float32
    assert list(observation) == [1.0, 2.0, 255.0]


def test_action_vector_gets_the_dtype_and_shape_of_the_space():
    inner = Fixed(Corridor.observation_space, gymnasium.spaces.Box(-1, 1, (2,), np.float32), np.zeros(1))
    EnvAdapter(inner).step([0.25, -0.5])
    assert inner.actions[0].dtype == np.float32
    assert list(inner.actions[0]) == [0.25, -0.5]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 3]), "neither Discrete nor a one-dimensional Box"),
        (gymnasium.spaces.MultiBinary(3), "neither Discrete nor a one-dimensional Box"),
        (gymnasium.spaces.Box(-1, 1, (2, 2)), "neither Discrete nor a one-dimensional Box"),
        (gymnasium.spaces.Box(0, 9, (2,), np.int64), "has dtype int64; actions must be floats"),
        (gymnasium.spaces.Discrete(3, start=1), "starts at 1; action ids must start at 0"),
    ],
)
def test_unusable_action_space_is_an_error(space, message):
    with pytest.raises(ValueError, match=message):
        EnvAdapter(Fixed(Corridor.observation_space, space))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gymnasium.spaces.Dict({"x": Corridor.observation_space}), "is not a box"),
        (gymnasium.spaces.Discrete(5), "is not a box"),
        (gymnasium.spaces.Box(0, 1, ()), "holds single numbers"),
    ],
)
def test_unusable_observation_space_is_an_error(space, message):
    with pytest.raises(ValueError, match=message):
        EnvAdapter(Fixed(space, Corridor.action_space))


def test_something_else_than_an_environment_is_an_error():
    with pytest.raises(TypeError, match="str has no 'observation_space'"):
        EnvAdapter("CartPole-v1")


def test_observation_of_another_shape_than_declared_is_an_error():
    env = EnvAdapter(Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(3)))
    with pytest.raises(ValueError, match=r"shape \(3,\), but its observation_space says \(1,\)"):
        env.reset()


def test_step_with_three_values_is_an_error():
    env = Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(1))
    env.step = lambda action: (np.zeros(1), 0.0, False)
    with pytest.raises(ValueError, match="returned 3 values; expected 5"):
        EnvAdapter(env).step(0)


ZERO = np.zeros(1)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "step of Fixed returned None; expected 5"),
        ((ZERO, None, False, False, {}), "step of Fixed: a reward is one number, the environment returned None"),
        ((ZERO, "1.0", False, False, {}), "a reward is one number, the environment returned '1.0'"),
        ((ZERO, 1j, False, False, {}), "a reward is one number"),
        ((ZERO, 0.0, "False", False, {}), "returned terminated='False', it must be True or False"),
        ((ZERO, 0.0, False, np.nan, {}), "returned truncated=nan"),
        ((ZERO, 0.0, [True, False], False, {}), r"returned terminated=\[True, False\]"),
        ((ZERO, 0.0, {}, False), "returned done={}"),
        ((["a"], 0.0, False, False, {}), "returned an observation of dtype <U1, it must hold numbers"),
        (([1j], 0.0, False, False, {}), "returned an observation of dtype complex128"),
    ],
)
def test_values_that_mean_nothing_are_errors_that_name_them(result, message):
    env = Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(1))
    env.step = lambda action: result
    with pytest.raises(ValueError, match=message):
        EnvAdapter(env).step(0)


@pytest.mark.parametrize("over", [1, np.True_, np.array([1.0]), np.int64(1)])
def test_ends_of_any_type_are_understood(over):
    env = Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(1))
    env.step = lambda action: (ZERO, 0.0, over, False, {})
    assert EnvAdapter(env).step(0)[2:4] == (True, False)


def test_reward_of_several_numbers_is_an_error():
    env = Fixed(Corridor.observation_space, Corridor.action_space, np.zeros(1))
    env.step = lambda action: (np.zeros(1), np.zeros(2), False, False, {})
    with pytest.raises(ValueError, match="a reward is one number"):
        EnvAdapter(env).step(0)


def test_render_and_close_reach_the_environment():
    calls = []
    env = Fixed(Corridor.observation_space, Corridor.action_space)
    EnvAdapter(env).close()  # nothing to close
    env.render = lambda: calls.append("render") or "picture"
    env.close = lambda: calls.append("close")
    adapter = EnvAdapter(env)
    assert adapter.render() == "picture"
    adapter.close()
    assert calls == ["render", "close"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_environment_that_reuses_its_memory_does_not_change_what_it_gave_before(dtype):
    shape = (1, 2, 2) if dtype == np.uint8 else (2,)
    memory = np.zeros(shape, dtype)
    env = EnvAdapter(Fixed(gymnasium.spaces.Box(0, 9, shape, dtype), gymnasium.spaces.Discrete(2), memory))
    first, _ = env.reset()
    memory += 1
    second = env.step(0)[0]
    memory += 1
    assert (first.max(), second.max()) == (0, 1)
