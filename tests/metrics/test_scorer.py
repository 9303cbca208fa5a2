"""Scorers on episodes, against sums by hand with an algorithm whose Q is ``2 s + a``."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.algos import BC, DQN, TD3
from d3rlpy.dataset import MDPDataset
from d3rlpy.metrics import (
    SCORERS,
    average_value_estimation_scorer,
    check_scorer,
    continuous_action_diff_scorer,
    discrete_action_match_scorer,
    evaluate_on_environment,
    get_scorer,
    initial_state_value_estimation_scorer,
    natural_value,
    td_error_scorer,
)


class Imitator:
    """Two actions, no values: acts 1 where the first component of the state is at least 2."""

    def __init__(self):
        self.n_frames = 1
        self.fitted_scalers_ = SimpleNamespace(reward=None)
        self.batch_sizes = []
        self.shapes = set()

    def predict(self, x):
        self.batch_sizes.append(len(x))
        self.shapes.add(x.shape[1:])
        return (x.reshape(len(x), -1)[:, 0] >= 2).astype(np.int64)


class Learner(Imitator):
    """The same policy with ``Q(s, a) = 2 s + a``."""

    gamma = 0.5

    def predict_value(self, x, action, with_std=False):
        return 2.0 * x.reshape(len(x), -1)[:, 0] + action


class Halver:
    """Continuous: ``pi(s) = s / 2`` for two-dimensional states."""

    fitted_scalers_ = SimpleNamespace(reward=None)

    def predict(self, x):
        return x / 2


def discrete_data(timeout_successor=None):
    """States 0 1 2 | 5 3: the first episode terminates, the second runs out of time."""
    observations = np.array([0, 1, 2, 5, 3], np.float32)[:, None]
    following = None
    if timeout_successor is not None:
        following = np.array([1, 2, 0, 3, timeout_successor], np.float32)[:, None]
    return MDPDataset(
        observations,
        np.array([0, 1, 1, 0, 1]),
        np.array([1, 2, 3, 4, 5], np.float32),
        np.array([0, 0, 1, 0, 0]),
        timeouts=np.array([0, 0, 0, 0, 1]),
        next_observations=following,
    )


# Q(s, a) of these rows is 0, 3, 5, 10, 7; the policy acts 0 0 1 1 1, so Q(s, pi(s)) is 0, 2, 5, 11, 7.


def test_td_error_bootstraps_at_timeouts_and_not_at_terminals():
    errors = [
        0 - (1 + 0.5 * 2),  # next state 1
        3 - (2 + 0.5 * 5),  # next state 2
        5 - 3,  # terminal
        10 - (4 + 0.5 * 7),  # next state 3
        7 - (5 + 0.5 * 9),  # timeout into state 4, whose value is 9
    ]
    expected = np.mean(np.square(errors))
    assert td_error_scorer(Learner(), discrete_data(timeout_successor=4)) == pytest.approx(-expected)


def test_td_error_leaves_out_a_timeout_without_successor():
    expected = np.mean(np.square([0 - 2, 3 - 4.5, 5 - 3, 10 - 7.5]))
    assert td_error_scorer(Learner(), discrete_data().episodes) == pytest.approx(-expected)


def test_td_error_scales_rewards_as_in_training():
    algo = Learner()
    algo.fitted_scalers_ = SimpleNamespace(reward=SimpleNamespace(transform_numpy=lambda r: r * np.float32(10)))
    expected = np.mean(np.square([0 - 11, 3 - 22.5, 5 - 30, 10 - 43.5]))
    assert td_error_scorer(algo, discrete_data()) == pytest.approx(-expected)


def test_td_error_uses_the_discount_column_of_the_data():
    data = discrete_data(timeout_successor=4)
    data = MDPDataset(
        data.observations,
        data.actions,
        data.rewards,
        data.terminals,
        timeouts=data.timeouts,
        next_observations=np.array([[1], [2], [0], [3], [4]], np.float32),
        columns={"discount": np.zeros(5, np.float32)},
    )
    expected = np.mean(np.square([0 - 1, 3 - 2, 5 - 3, 10 - 4, 7 - 5]))
    assert td_error_scorer(Learner(), data) == pytest.approx(-expected)


def test_average_value_is_of_the_greedy_actions_and_negated():
    expected = np.mean([0, 2, 5, 11, 7])
    assert average_value_estimation_scorer(Learner(), discrete_data(4)) == pytest.approx(-expected)


def test_initial_value_looks_at_the_first_state_of_each_episode_only():
    algo = Learner()
    assert initial_state_value_estimation_scorer(algo, discrete_data(4).episodes) == pytest.approx((0 + 11) / 2)
    assert algo.batch_sizes == [2]


def test_initial_value_of_one_episode_of_many():
    assert initial_state_value_estimation_scorer(Learner(), discrete_data(4).episodes[1:]) == pytest.approx(11)


def test_initial_value_counts_an_episode_with_a_cut_inside_once():
    data = MDPDataset(
        np.array([[0], [7], [8]], np.float32),
        np.array([0, 1, 0]),
        np.zeros(3),
        np.array([0, 0, 1]),
        next_observations=np.array([[1], [8], [0]], np.float32),  # 0 -> 1 is not the next row
    )
    assert data.report.cut_links == 1
    assert initial_state_value_estimation_scorer(Learner(), data) == pytest.approx(0.0)


def test_initial_value_without_a_first_transition_is_an_error():
    transitions = discrete_data(4).episodes[0].transitions[1:]
    with pytest.raises(ValueError, match="none of the transitions is the first one of an episode"):
        initial_state_value_estimation_scorer(Learner(), transitions)


def test_action_match_is_the_share_of_greedy_actions():
    # greedy: 0 0 1 1 1, data: 0 1 1 0 1
    assert discrete_action_match_scorer(Imitator(), discrete_data(4)) == pytest.approx(3 / 5)


def test_action_diff_sums_squares_over_components_and_averages_over_transitions():
    data = MDPDataset(
        np.array([[2, 4], [0, 2]], np.float32),
        np.array([[1, 0], [3, 1]], np.float32),
        np.zeros(2),
        np.array([0, 1]),
        discrete_action=False,
    )
    expected = ((0 + 4) + (9 + 0)) / 2
    assert continuous_action_diff_scorer(Halver(), data) == pytest.approx(-expected)


def test_windows_run_across_episodes_and_hold_at_most_window_size():
    algo = Learner()
    whole = average_value_estimation_scorer(algo, discrete_data(4).episodes)
    assert algo.batch_sizes == [5]
    algo.batch_sizes.clear()
    assert average_value_estimation_scorer(algo, discrete_data(4).episodes, 2) == pytest.approx(whole)
    assert algo.batch_sizes == [2, 2, 1]


def test_episode_longer_than_the_default_window_is_cut_into_windows():
    n = 2500
    algo = Learner()
    states = np.arange(n, dtype=np.float32)[:, None] % 7
    data = MDPDataset(states, np.zeros(n, np.int64), np.zeros(n), np.arange(n) == n - 1, action_size=2)
    expected = np.mean([2 * s + (s >= 2) for s in states[:, 0]])
    assert average_value_estimation_scorer(algo, data) == pytest.approx(-expected)
    assert algo.batch_sizes == [1024, 1024, 452]


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    window=st.integers(1, 20),
    gamma=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_td_error_equals_a_slow_loop_over_transitions(lengths, window, gamma, seed):
    rng = np.random.default_rng(seed)
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(n, bool), np.zeros(n, bool)
    is_terminal = rng.random(len(ends)) < 0.5
    terminals[ends[is_terminal]], timeouts[ends[~is_terminal]] = True, True
    states = rng.integers(0, 5, (n, 1)).astype(np.float32)
    following = np.concatenate([states[1:], states[:1]])
    following[ends] = rng.integers(0, 5, (len(ends), 1))
    data = MDPDataset(
        states,
        rng.integers(0, 2, n),
        rng.normal(size=n).astype(np.float32),
        terminals,
        timeouts=timeouts,
        next_observations=following,
        action_size=2,
    )
    algo = Learner()
    algo.gamma = gamma
    total, count = 0.0, 0
    for episode in data.episodes:
        for t in episode.transitions:
            s, s_next = float(t.observation[0]), float(t.next_observation[0])
            target = t.reward + (0.0 if t.terminal else gamma * (2 * s_next + (s_next >= 2)))
            total += (2 * s + t.action - target) ** 2
            count += 1
    assert td_error_scorer(algo, data.episodes, window) == pytest.approx(-total / count, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["td_error", "average_value_estimation", "discrete_action_match"])
def test_frames_are_stacked_as_the_algorithm_needs(name):
    algo = Learner()
    algo.n_frames = 3
    images = np.zeros((4, 2, 3, 3), np.uint8)
    data = MDPDataset(images, np.zeros(4, np.int64), np.zeros(4), np.array([0, 1, 0, 1]), action_size=2)
    SCORERS[name](algo, data)
    assert algo.shapes == {(6, 3, 3)}


def test_frame_stack_of_a_scorer_holds_the_oldest_frame_first():
    algo = Learner()
    algo.n_frames = 2
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 1, 2, 2), np.uint8)
    data = MDPDataset(images, np.zeros(3, np.int64), np.zeros(3), np.array([0, 0, 1]), action_size=2)
    # first component of the stacks [0 0], [0 1], [1 2]: 0, 0, 1; all below 2, so greedy is 0 and Q = 2 s
    assert average_value_estimation_scorer(algo, data) == pytest.approx(-2 / 3)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scikit_learn_may_pass_y_none(name):
    data, algo = discrete_data(4), Learner()
    if name == "continuous_action_diff":
        algo = Halver()
        data = MDPDataset(np.ones((3, 1)), np.full((3, 1), 0.25), np.zeros(3), [0, 0, 1], discrete_action=False)
    assert SCORERS[name](algo, data.episodes, None) == SCORERS[name](algo, data.episodes)


@pytest.mark.parametrize("name", ["td_error", "average_value_estimation", "initial_state_value_estimation"])
def test_value_scorers_say_what_to_use_for_an_algorithm_without_values(name):
    with pytest.raises(TypeError, match=f"{name} needs action values, but Imitator learns none: use discrete"):
        SCORERS[name](Imitator(), discrete_data(4))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_no_episodes_is_an_error(name):
    with pytest.raises(ValueError, match="list of episodes or transitions is empty"):
        SCORERS[name](Learner(), [])


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_window_size_below_one_is_an_error(name):
    for size in (0, 2.5):
        with pytest.raises(ValueError, match=f"window_size must be a whole number of at least 1, got {size}"):
            SCORERS[name](Learner(), discrete_data(4), size)


def test_action_scorers_refuse_the_other_kind_of_action():
    data = MDPDataset(np.ones((2, 1)), np.full((2, 1), 0.5), np.zeros(2), [0, 1], discrete_action=False)
    with pytest.raises(ValueError, match="hold continuous ones: use continuous_action_diff"):
        discrete_action_match_scorer(Imitator(), data)
    with pytest.raises(ValueError, match="hold discrete ones: use discrete_action_match"):
        continuous_action_diff_scorer(Halver(), discrete_data(4))


def test_table_knows_all_scorers_by_their_short_names_and_signs():
    assert {name: s.negated for name, s in SCORERS.items()} == {
        "td_error": True,
        "average_value_estimation": True,
        "initial_state_value_estimation": False,
        "discrete_action_match": False,
        "continuous_action_diff": True,
    }
    assert all(s.needs_episodes for s in SCORERS.values())


def test_natural_value_turns_errors_positive_and_leaves_scores_alone():
    assert natural_value(td_error_scorer, -3.0) == 3.0
    assert natural_value(discrete_action_match_scorer, 0.5) == 0.5
    assert natural_value(lambda algo, episodes: 1.0, -2.0) == -2.0


def test_scorer_is_found_by_name_or_passed_through():
    own = lambda algo, episodes: 1.0  # noqa: E731
    assert get_scorer("td_error") is td_error_scorer
    assert get_scorer(own) is own


def test_unknown_scorer_is_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'td_eror'; known are .*Did you mean 'td_error'\?"):
        get_scorer("td_eror")
    with pytest.raises(TypeError, match="a scorer is a function or one of the names"):
        get_scorer(3)


BUILT = {
    "DQN": DQN().create_impl((1,), 2),
    "wide DQN": DQN().create_impl((2,), 2),
    "one-action DQN": DQN().create_impl((1,), 1),
    "TD3": TD3().create_impl((1,), 2),
    "short TD3": TD3().create_impl((1,), 1),
    "long TD3": TD3().create_impl((1,), 3),
    "BC": BC().create_impl((1,), 2),
}


def continuous_data(action_size=2):
    actions = np.full((3, action_size), 0.5)
    return MDPDataset(np.ones((3, 1)), actions, np.zeros(3), [0, 0, 1], discrete_action=False)


UNSUITABLE = [
    ("td_error", "DQN", continuous_data(), "td_error: the episodes have continuous actions, DQN takes discrete ones"),
    ("average_value_estimation", "TD3", discrete_data(), "have discrete actions, TD3 takes continuous ones"),
    ("initial_state_value_estimation", "wide DQN", discrete_data(), r"shape \(1,\), DQN was built for \(2,\)"),
    ("discrete_action_match", "TD3", discrete_data(), "have discrete actions, TD3 takes continuous ones"),
    ("discrete_action_match", "one-action DQN", discrete_data(), "have action_size=2, DQN was built for 1"),
    ("discrete_action_match", "TD3", continuous_data(), "match needs discrete actions, .*: use continuous_action_diff"),
    ("continuous_action_diff", "DQN", continuous_data(1), "have continuous actions, DQN takes discrete ones"),
    ("continuous_action_diff", "short TD3", continuous_data(), "have action_size=2, TD3 was built for 1"),
    ("continuous_action_diff", "long TD3", continuous_data(), "have action_size=2, TD3 was built for 3"),
    ("continuous_action_diff", "DQN", discrete_data(), "diff needs continuous actions, .*: use discrete_action_match"),
]


@pytest.mark.parametrize(("name", "algo", "data", "message"), UNSUITABLE)
def test_episodes_of_other_spaces_are_an_error(name, algo, data, message):
    with pytest.raises(ValueError, match=message):
        SCORERS[name](BUILT[algo], data)
    with pytest.raises(ValueError, match=message):
        check_scorer(name, SCORERS[name], BUILT[algo], data.episodes)


@pytest.mark.parametrize("name", ["td_error", "average_value_estimation", "initial_state_value_estimation"])
def test_algorithm_without_values_is_an_error_under_the_name_of_the_user(name):
    with pytest.raises(TypeError, match="mine needs action values, but BC learns none"):
        check_scorer("mine", SCORERS[name], BUILT["BC"], continuous_data())


@pytest.mark.parametrize("name", sorted(SCORERS))
@pytest.mark.parametrize("episodes", [None, []])
def test_scorer_without_episodes_is_an_error_before_training(name, episodes):
    with pytest.raises(ValueError, match="the scorer 'mine' needs episodes: pass eval_episodes="):
        check_scorer("mine", SCORERS[name], BUILT["DQN"], episodes)


def test_something_else_than_episodes_is_an_error_before_training():
    with pytest.raises(TypeError, match="expected an MDPDataset, episodes or transitions, got int"):
        check_scorer("td_error", td_error_scorer, BUILT["DQN"], 3)


def test_environment_of_other_spaces_is_an_error_before_training():
    env = SimpleNamespace(
        observation_space=gymnasium.spaces.Box(-1, 1, (1,)),
        action_space=gymnasium.spaces.Discrete(2),
        reset=None,
        step=None,
    )
    scorer = evaluate_on_environment(env)
    check_scorer("env", scorer, BUILT["DQN"], None)
    with pytest.raises(ValueError, match="environment has discrete actions, TD3 takes continuous ones"):
        check_scorer("env", scorer, BUILT["TD3"], None)


def test_scorers_that_suit_pass_the_check_without_a_look_at_the_networks():
    for name in ("td_error", "average_value_estimation", "initial_state_value_estimation", "discrete_action_match"):
        check_scorer(name, SCORERS[name], BUILT["DQN"], discrete_data())
    for name in ("td_error", "average_value_estimation", "continuous_action_diff"):
        check_scorer(name, SCORERS[name], BUILT["TD3"], continuous_data().episodes)
    check_scorer("continuous_action_diff", continuous_action_diff_scorer, BUILT["BC"], continuous_data())


def test_of_a_users_function_only_that_it_is_one_is_checked():
    check_scorer("mine", lambda algo, episodes: 1.0, BUILT["BC"], None)
    with pytest.raises(TypeError, match=r"the scorer 'mine' must be a function of \(algo, episodes\), not 3"):
        check_scorer("mine", 3, BUILT["BC"], None)


def test_episodes_that_lack_the_greatest_id_are_scored():
    data = MDPDataset(np.zeros((2, 1)), np.array([0, 0]), np.zeros(2), [0, 1], action_size=1)
    assert discrete_action_match_scorer(BUILT["DQN"], data) in (0.0, 1.0)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_algorithm_without_networks_is_an_error(name):
    with pytest.raises(RuntimeError, match="DQN has no networks yet, so there is nothing to score: call fit"):
        SCORERS[name](DQN(), discrete_data(4))


def test_swapped_arguments_are_an_error():
    with pytest.raises(TypeError, match=r"called as scorer\(algo, episodes\), but MDPDataset has no predict"):
        td_error_scorer(discrete_data(4), Learner())


def test_actions_of_another_shape_than_those_of_the_data_are_an_error():
    column = SimpleNamespace(predict=lambda x: np.zeros((len(x), 1)))
    with pytest.raises(ValueError, match=r"predict of SimpleNamespace returned the shape \(5, 1\), not \(5,\)"):
        discrete_action_match_scorer(column, discrete_data(4))
    with pytest.raises(ValueError, match=r"returned the shape \(3, 1\), not \(3, 2\)"):
        continuous_action_diff_scorer(column, continuous_data())


@pytest.mark.parametrize("name", ["td_error", "average_value_estimation", "initial_state_value_estimation"])
def test_values_that_are_no_vector_are_an_error(name):
    algo = Learner()
    algo.predict_value = lambda x, action: np.zeros((len(x), 1))
    with pytest.raises(ValueError, match=r"predict_value of Learner returned the shape \(\d, 1\), not \(\d,\)"):
        SCORERS[name](algo, discrete_data(4))


def test_table_knows_which_scorers_need_values():
    assert {name for name, scorer in SCORERS.items() if scorer.needs_values} == {
        "td_error",
        "average_value_estimation",
        "initial_state_value_estimation",
    }
