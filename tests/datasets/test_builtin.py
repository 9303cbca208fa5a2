"""The built-in data sets: what is in them, and that they belong to the environments that come with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import d3rlpy.datasets
from d3rlpy.dataset import MDPDataset
from d3rlpy.datasets import get_cartpole, get_dataset, get_pendulum

NAMES = ["cartpole-replay", "cartpole-random", "pendulum-replay", "pendulum-random"]


@pytest.fixture(scope="module", params=NAMES)
def named(request):
    dataset, env = get_dataset(request.param)
    return request.param, dataset, env


def returns(dataset):
    return np.array([episode.compute_return() for episode in dataset.episodes])


def is_same_data(a, b):
    return a.size() == b.size() and np.array_equal(a.observations, b.observations)


def test_each_file_is_at_most_two_megabytes():
    files = sorted(Path(d3rlpy.datasets.__file__).parent.glob("*.h5"))
    assert [f.stem.replace("_", "-") for f in files] == sorted(NAMES)
    assert max(f.stat().st_size for f in files) <= 2_000_000


def test_arrays_have_the_library_types(named):
    name, dataset, _ = named
    assert isinstance(dataset, MDPDataset)
    assert dataset.observations.dtype == dataset.rewards.dtype == np.float32
    if name.startswith("cartpole"):
        assert dataset.is_action_discrete()
        assert np.issubdtype(dataset.actions.dtype, np.integer)
        assert dataset.get_action_size() == 2
    else:
        assert dataset.actions.dtype == np.float32
        assert np.abs(dataset.actions).max() <= 2.0


def test_every_row_is_a_transition(named):
    _, dataset, _ = named
    assert dataset.report.dropped == {}
    assert dataset.report.cut_links == dataset.report.unfinished_rows == 0
    assert sum(len(e) for e in dataset.episodes) == len(dataset.observations)


def test_episodes_end_as_the_time_limit_says(named):
    name, dataset, _ = named
    lengths = np.array([len(e.observations) for e in dataset.episodes])
    ended = np.array([e.transitions[-1].terminal for e in dataset.episodes]) == 1.0
    if name.startswith("pendulum"):
        assert set(lengths) == {200}
        assert not ended.any()
    else:
        assert lengths.max() <= 200
        assert (lengths[~ended] == 200).all()


def test_environment_reproduces_the_logged_steps(named):
    name, dataset, env = named
    unwrapped = env.unwrapped
    env.reset(seed=0)
    rows = np.random.default_rng(0).choice(dataset.size(), size=50, replace=False)
    transitions = [t for e in dataset.episodes for t in e.transitions]
    last_of_timeouts = [e.transitions[-1] for e in dataset.episodes if not e.transitions[-1].terminal]
    for transition in [transitions[row] for row in rows] + last_of_timeouts[:5]:
        observation = transition.observation.astype(np.float64)
        if name.startswith("cartpole"):
            unwrapped.state = tuple(observation)
            unwrapped.steps_beyond_terminated = None
        else:
            unwrapped.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]])
        result, reward, terminated, _, _ = unwrapped.step(transition.action)
        np.testing.assert_allclose(result, transition.next_observation, rtol=1e-4, atol=1e-4)
        assert reward == pytest.approx(transition.reward, rel=1e-3, abs=1e-3)
        if abs(abs(result[0]) - 2.4) > 1e-3:  # float32 may round a position to the other side of the limit
            assert terminated == bool(transition.terminal)


def test_cartpole_replay_is_a_broad_mixture_with_a_mean_of_at_most_130():
    g = returns(get_cartpole()[0])
    assert g.mean() <= 130.0
    assert (g <= 30).mean() > 0.1
    assert (g == 200).mean() > 0.1
    assert ((g > 50) & (g < 190)).mean() > 0.1


def test_pendulum_replay_reaches_from_random_to_good_episodes():
    g, random = returns(get_pendulum()[0]), returns(get_pendulum("random")[0])
    assert g[:10].mean() < random.mean() + 200.0
    assert g[-20:].mean() > -250.0
    assert -900.0 < g.mean() < -400.0


def test_random_actions_are_uniform():
    cartpole, pendulum = get_cartpole("random")[0], get_pendulum("random")[0]
    assert cartpole.actions.mean() == pytest.approx(0.5, abs=0.02)
    counts, _ = np.histogram(pendulum.actions, bins=8, range=(-2, 2))
    assert np.abs(counts / counts.sum() - 1 / 8).max() < 0.02


def test_cartpole_environment_stops_after_200_steps_and_pendulum_is_the_registered_one():
    assert get_cartpole()[1].spec.max_episode_steps == 200
    assert get_pendulum()[1].spec.id == "Pendulum-v1"


def test_replay_is_the_default():
    for get, name in ((get_cartpole, "cartpole"), (get_pendulum, "pendulum")):
        assert is_same_data(get()[0], get("replay")[0])
        assert is_same_data(get()[0], get_dataset(name)[0])
        assert not is_same_data(get()[0], get_dataset(f"{name}-random")[0])


@pytest.mark.parametrize("get", [get_cartpole, get_pendulum])
def test_unknown_dataset_type_is_an_error(get):
    with pytest.raises(ValueError, match=r"dataset_type must be one of \['replay', 'random'\], got 'expert'"):
        get("expert")


def test_unknown_name_is_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'pendulum-reply'; known are .*Did you mean 'pendulum-replay'\?"):
        get_dataset("pendulum-reply")
