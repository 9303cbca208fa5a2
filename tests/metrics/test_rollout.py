"""``evaluate_on_environment`` on environments whose returns are known, and on the real packages."""

from __future__ import annotations

import importlib
import pickle
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from d3rlpy.algos import DQN, TD3
from d3rlpy.metrics import evaluate_on_environment, natural_value


class Walk:
    """Action 1 earns a point; a trial ends after five steps, by itself or by the time limit."""

    observation_space = gymnasium.spaces.Box(0.0, 10.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, ends_by="terminated", image=False):
        self.ends_by = ends_by
        self.image = image
        if image:
            self.observation_space = gymnasium.spaces.Box(0, 255, (1, 2, 2), np.uint8)
        self.seeds, self.actions, self.renders = [], [], 0

    def _observe(self):
        if self.image:
            return np.full((1, 2, 2), 10 * (self.time + 1), np.uint8)
        return np.array([self.time], np.float32)

    def reset(self, *, seed=None):
        self.seeds.append(seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        self.actions.append(action)
        self.time += 1
        over = self.time == 5
        reward = 1.0 if action == 1 else 0.0
        return (
            self._observe(),
            reward,
            over and self.ends_by == "terminated",
            over and self.ends_by == "truncated",
            {},
        )

    def render(self):
        self.renders += 1


class Box(Walk):
    """The reward is the action."""

    action_space = gymnasium.spaces.Box(-3.0, 1.0, (1,), np.float32)

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, action[0], terminated, truncated, info


class Player:
    """Acts 1 while the last number of the observation is below ``below``, otherwise 0."""

    def __init__(self, below=100, n_frames=1):
        self.below, self.n_frames = below, n_frames
        self.seen = []

    def predict(self, x):
        assert len(x) == 1
        self.seen.append(x[0])
        return (x.reshape(1, -1)[:, -1] < self.below).astype(np.int64)


@pytest.mark.parametrize("ends_by", ["terminated", "truncated"])
def test_score_is_the_mean_undiscounted_return(ends_by):
    env = Walk(ends_by)
    assert evaluate_on_environment(env, n_trials=3)(Player(below=3)) == 3.0
    assert len(env.seeds) == 3
    assert len(env.actions) == 15


def test_score_is_the_mean_over_unequal_episodes():
    class Growing(Walk):
        def reset(self, *, seed=None):
            result = super().reset()
            self.time = 5 - len(self.seeds)  # trials of 1, 2, 3 steps
            return result

    assert evaluate_on_environment(Growing(), n_trials=3)(Player()) == 2.0


def test_everything_that_scikit_learn_passes_besides_is_ignored():
    scorer = evaluate_on_environment(Walk(), n_trials=1)
    assert scorer(Player(), [], None) == scorer(Player(), X=None) == scorer(Player()) == 5.0


def test_scorer_is_neither_negated_nor_needs_episodes():
    scorer = evaluate_on_environment(Walk())
    assert (scorer.negated, scorer.needs_episodes, scorer.__name__) == (False, False, "environment")
    assert natural_value(scorer, 5.0) == 5.0


def test_seed_starts_trials_from_consecutive_seeds_at_each_call():
    env = Walk()
    scorer = evaluate_on_environment(env, n_trials=2, seed=7)
    scorer(Player())
    scorer(Player())
    assert env.seeds == [7, 8, 7, 8]


def test_epsilon_zero_never_leaves_the_policy_and_one_never_asks_it():
    env, player = Walk(), Player()
    evaluate_on_environment(env, n_trials=40, epsilon=0.0)(player)
    assert set(env.actions) == {1}
    env.actions.clear()
    player.seen.clear()
    evaluate_on_environment(env, n_trials=40, epsilon=1.0, seed=0)(player)
    assert player.seen == []
    assert set(env.actions) == {0, 1, 2}


def test_epsilon_is_the_share_of_random_actions():
    env = Walk()
    evaluate_on_environment(env, n_trials=400, epsilon=0.3, seed=0)(Player())
    assert np.mean(np.array(env.actions) == 1) == pytest.approx(0.7 + 0.3 / 3, abs=0.03)


def test_seeded_random_actions_repeat_and_leave_numpys_global_state_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    env = Walk()
    scorer = evaluate_on_environment(env, n_trials=2, epsilon=0.5, seed=3)
    first = scorer(Player())
    actions, env.actions = env.actions, []
    assert scorer(Player()) == first
    assert env.actions == actions
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_random_box_actions_are_uniform_within_the_bounds():
    env = Box()
    mean_return = evaluate_on_environment(env, n_trials=400, epsilon=1.0, seed=1)(Player())
    drawn = np.concatenate(env.actions)
    assert -3.0 <= drawn.min() < -2.9
    assert 0.9 < drawn.max() <= 1.0
    assert mean_return == pytest.approx(5 * -1.0, abs=0.3)


def test_stacked_frames_repeat_the_first_and_end_with_the_newest():
    player = Player(n_frames=3)
    evaluate_on_environment(Walk(image=True), n_trials=2)(player)
    stacks = [list(x[:, 0, 0]) for x in player.seen]
    once = [[10, 10, 10], [10, 10, 20], [10, 20, 30], [20, 30, 40], [30, 40, 50]]
    assert stacks == once + once
    assert player.seen[0].dtype == np.uint8


def test_several_frames_in_a_vector_environment_are_an_error():
    with pytest.raises(ValueError, match="n_frames=2 needs images"):
        evaluate_on_environment(Walk())(Player(n_frames=2))


def test_render_is_called_after_each_step_only_if_asked():
    env = Walk()
    evaluate_on_environment(env, n_trials=2)(Player())
    assert env.renders == 0
    evaluate_on_environment(env, n_trials=2, render=True)(Player())
    assert env.renders == 10


@pytest.mark.parametrize("package", ["gym", "gymnasium"])
def test_a_simple_rule_holds_the_pole_of_both_packages(package):
    env = importlib.import_module(package).make("CartPole-v1", max_episode_steps=200)
    rule = SimpleNamespace(predict=lambda x: (x[:, 2] + x[:, 3] > 0).astype(np.int64))
    constant = SimpleNamespace(predict=lambda x: np.zeros(len(x), np.int64))
    assert evaluate_on_environment(env, n_trials=5, seed=0)(rule) > 150.0
    assert 8.0 <= evaluate_on_environment(env, n_trials=5, seed=0)(constant) <= 11.0


def test_gym_and_gymnasium_give_the_same_score():
    gym = importlib.import_module("gym")
    rule = SimpleNamespace(predict=lambda x: (-x[:, 1:2] - x[:, 2:3]).clip(-2, 2))
    scores = [evaluate_on_environment(m.make("Pendulum-v1"), n_trials=2, seed=4)(rule) for m in (gym, gymnasium)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_four_tuple_environment_is_played_to_its_done():
    class Old(Walk):
        def reset(self):
            return super().reset()[0]

        def step(self, action):
            observation, reward, terminated, _, info = super().step(action)
            return observation, reward, terminated, info

    assert evaluate_on_environment(Old(), n_trials=2)(Player()) == 5.0


def test_scorer_survives_pickling():
    scorer = pickle.loads(pickle.dumps(evaluate_on_environment(Walk(), n_trials=2, seed=1)))
    assert scorer(Player()) == 5.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_trials": 0}, "n_trials must be a whole number of at least 1, got 0"),
        ({"n_trials": 2.5}, "n_trials must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "seed must be None or a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be None or a whole number of at least 0, got 1.5"),
        ({"epsilon": 1.5}, r"epsilon must be a number within \[0, 1\], got 1.5"),
        ({"epsilon": -0.1}, r"epsilon must be a number within \[0, 1\], got -0.1"),
    ],
)
def test_arguments_out_of_bounds_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_on_environment(Walk(), **arguments)


def test_random_actions_without_bounds_are_an_error():
    env = Box()
    env.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    with pytest.raises(ValueError, match=r"epsilon=0.1 draws uniform actions, but .* has no bounds"):
        evaluate_on_environment(env, epsilon=0.1)
    assert evaluate_on_environment(env).epsilon == 0.0


WALK = (1,), 3  # shape of observations and action_size
BOX = (1,), 1


@pytest.mark.parametrize(
    ("algo", "env", "message"),
    [
        (TD3().create_impl(*BOX), Walk(), "environment has discrete actions, TD3 takes continuous ones"),
        (DQN().create_impl(*WALK), Box(), "environment has continuous actions, DQN takes discrete ones"),
        (TD3().create_impl((1,), 2), Box(), "environment has action_size=1, TD3 was built for 2"),
        (DQN().create_impl((1,), 4), Walk(), "environment has action_size=3, DQN was built for 4"),
        (DQN().create_impl((2,), 3), Walk(), r"observations of shape \(1,\), DQN was built for \(2,\)"),
    ],
)
def test_environment_of_other_spaces_is_an_error_before_the_first_step(algo, env, message):
    with pytest.raises(ValueError, match=message):
        evaluate_on_environment(env, epsilon=1.0)(algo)
    assert env.seeds == env.actions == []


def test_environment_of_stacked_frames_is_compared_with_the_stack():
    algo = DQN(n_frames=3).create_impl((1, 36, 36), 3)
    with pytest.raises(ValueError, match=r"shape \(3, 2, 2\), DQN was built for \(1, 36, 36\)"):
        evaluate_on_environment(Walk(image=True))(algo)


def test_environment_with_an_id_that_the_data_lacked_can_be_played():
    assert evaluate_on_environment(Walk(), n_trials=1)(DQN().create_impl((1,), 2)) in range(6)


def test_algorithm_without_networks_is_an_error():
    with pytest.raises(RuntimeError, match="DQN has no networks yet, so there is nothing to score: call fit"):
        evaluate_on_environment(Walk(), epsilon=1.0)(DQN())
