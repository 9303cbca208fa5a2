import pickle

import numpy as np
import pytest

from d3rlpy.algos import DiscreteRandomPolicy, RandomPolicy
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.testing import corridor
from tests.algos.test_dqn import QUIET
from tests.helpers import make_dataset

X = np.zeros((20_000, 3), np.float32)
BOTH = pytest.mark.parametrize(("cls", "discrete"), [(RandomPolicy, False), (DiscreteRandomPolicy, True)])


def test_uniform_actions_fill_their_range_evenly():
    actions = RandomPolicy(random_state=0).create_impl((3,), 2).predict(X)
    assert actions.shape == (20_000, 2)
    assert np.abs(actions).max() <= 1
    for column in actions.T:
        counts, _ = np.histogram(column, bins=10, range=(-1, 1))
        assert counts == pytest.approx(2000, rel=0.1)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.03


def test_normal_actions_have_their_standard_deviation_and_are_clipped():
    algo = RandomPolicy(distribution="normal", normal_std=0.2, random_state=0).create_impl((3,), 1)
    assert algo.predict(X).mean() == pytest.approx(0, abs=0.01)
    assert algo.predict(X).std() == pytest.approx(0.2, rel=0.03)
    wide = algo.set_params(normal_std=10.0).predict(X)
    assert np.abs(wide).max() == 1
    assert (np.abs(wide) == 1).mean() > 0.9


def test_the_action_scaler_brings_actions_into_the_range_of_the_data():
    rng = np.random.default_rng(0)
    actions = rng.uniform([2, -30], [6, -10], size=(100, 2))
    dataset = MDPDataset(rng.normal(size=(100, 3)), actions, np.zeros(100), np.arange(100) == 99)
    algo = RandomPolicy(action_scaler="min_max", random_state=0).build_with_dataset(dataset)
    drawn = algo.predict(X)
    assert drawn.min(axis=0) == pytest.approx(actions.min(axis=0), rel=0.01)
    assert drawn.max(axis=0) == pytest.approx(actions.max(axis=0), rel=0.01)


def test_discrete_actions_are_equally_probable_ids():
    actions = DiscreteRandomPolicy(random_state=0).create_impl((3,), 4).predict(X)
    assert actions.dtype.kind == "i"
    assert np.bincount(actions, minlength=4) == pytest.approx(5000, rel=0.05)


@BOTH
def test_the_seed_decides_and_every_call_draws_anew(cls, discrete):
    a, b = (cls(random_state=3).create_impl((3,), 4) for _ in range(2))
    other = cls(random_state=4).create_impl((3,), 4)
    first = a.predict(X[:50])
    assert np.array_equal(first, b.sample_action(X[:50]))
    assert not np.array_equal(first, a.predict(X[:50]))
    assert not np.array_equal(first, other.predict(X[:50]))
    twin = pickle.loads(pickle.dumps(a))
    assert np.array_equal(a.predict(X[:50]), twin.predict(X[:50]))


@BOTH
def test_training_counts_and_scales_and_learns_nothing(cls, discrete):
    algo, dataset = cls(batch_size=8, random_state=0, scaler="standard"), make_dataset(discrete)
    algo.fit(dataset, n_steps=5, **QUIET)
    assert algo.grad_step_ == 5
    assert algo.fitted_scalers_.observation.fitted
    assert {k for k in algo.history_[0][1] if not k.startswith("time_")} == set()
    assert algo.update(TransitionMiniBatch(dataset.episodes[0].transitions[:4])) == {}
    assert list(algo.impl.parameters()) == []
    assert not algo.learns


@BOTH
def test_what_it_does_not_have_says_so(cls, discrete, tmp_path):
    algo = cls()
    with pytest.raises(RuntimeError, match="build_with_dataset or create_impl"):
        algo.predict(X)
    algo.create_impl((3,), 2)
    assert not hasattr(algo, "predict_value")
    assert not hasattr(algo, "save_policy")
    with pytest.raises(AttributeError) as error:
        algo.save_policy(tmp_path / "policy.pt")
    assert f"{cls.__name__} acts at random, so it has no save_policy" in str(error.value.__cause__)
    assert list(tmp_path.iterdir()) == []


def test_bad_values_are_errors():
    with pytest.raises(ValueError, match="distribution='gamma' is unknown"):
        RandomPolicy(distribution="gamma").create_impl((3,), 2)
    with pytest.raises(ValueError, match="normal_std=-1 is out of bounds"):
        RandomPolicy(normal_std=-1).create_impl((3,), 2)
    with pytest.raises(ValueError, match="learns continuous actions"):
        RandomPolicy().build_with_dataset(corridor())
