import numpy as np
import pytest

from d3rlpy.algos import BC, TD3
from d3rlpy.online.explorers import (
    ConstantEpsilonGreedy,
    LinearDecayEpsilonGreedy,
    NormalNoise,
    OrnsteinUhlenbeck,
)
from d3rlpy.preprocessing import MinMaxActionScaler
from tests.online.helpers import SMALL, small_dqn


@pytest.fixture
def dqn():
    return small_dqn().create_impl((2,), 3)


def small_td3(**params):
    encoders = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}
    return TD3(**{"random_state": 0, **encoders, **params}).create_impl((2,), 2)


X = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)


class TestEpsilonGreedy:
    def test_no_epsilon_is_greedy(self, dqn):
        assert (ConstantEpsilonGreedy(0.0).sample(dqn, X, 1) == dqn.predict(X)).all()

    def test_the_share_of_random_actions_is_epsilon(self, dqn):
        x = np.repeat(X[:1], 20_000, axis=0)
        actions, greedy = ConstantEpsilonGreedy(0.3).sample(dqn, x, 1), dqn.predict(X[:1])[0]
        shares = np.bincount(actions, minlength=3) / len(actions)
        expected = np.full(3, 0.1)
        expected[greedy] += 0.7
        assert shares == pytest.approx(expected, abs=0.015)

    def test_each_row_decides_for_itself(self, dqn):
        x = np.repeat(X[:1], 100, axis=0)
        assert len(set(ConstantEpsilonGreedy(0.9).sample(dqn, x, 1).tolist())) > 1

    def test_decay_is_linear_and_then_constant(self):
        explorer = LinearDecayEpsilonGreedy(1.0, 0.2, duration=10)
        assert [explorer.compute_epsilon(t) for t in (0, 5, 10, 1000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])

    def test_the_step_decides(self, dqn):
        explorer = LinearDecayEpsilonGreedy(1.0, 0.0, duration=10)
        assert (explorer.sample(dqn, X, 10) == dqn.predict(X)).all()
        assert (explorer.sample(dqn, X, 0) != dqn.predict(X)).mean() > 0.5

    def test_a_single_observation_gives_a_single_action(self, dqn):
        assert np.shape(ConstantEpsilonGreedy(0.5).sample(dqn, X[0], 1)) == ()

    @pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan"), "a lot", True])
    def test_a_bad_epsilon_is_named(self, epsilon):
        with pytest.raises(ValueError, match="epsilon="):
            ConstantEpsilonGreedy(epsilon)

    def test_a_bad_duration_is_named(self):
        with pytest.raises(ValueError, match="duration=0"):
            LinearDecayEpsilonGreedy(duration=0)


class TestNormalNoise:
    def test_rows_and_dimensions_are_independent(self):
        algo = small_td3()
        noise = NormalNoise(std=0.01).sample(algo, X, 1) - algo.predict(X)
        assert noise.std(axis=0) == pytest.approx([0.01, 0.01], rel=0.1)
        assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1  # one number for all dimensions would give 1
        assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.1  # and one for all rows no spread at all

    def test_the_mean_is_added(self):
        algo = small_td3()
        noise = NormalNoise(mean=0.1, std=0.0).sample(algo, X, 1) - algo.predict(X)
        assert noise == pytest.approx(0.1, abs=1e-6)

    def test_it_is_clipped_to_the_range_of_actions(self):
        actions = NormalNoise(std=10.0).sample(small_td3(), X, 1)
        assert actions.dtype == np.float32
        assert (actions.min(), actions.max()) == (-1.0, 1.0)

    def test_an_action_scaler_scales_the_noise_and_the_range(self):
        algo = small_td3(action_scaler=MinMaxActionScaler(minimum=[-4.0, 0.0], maximum=[4.0, 1.0]))
        noise = NormalNoise(std=0.01).sample(algo, X, 1) - algo.predict(X)
        assert noise.std(axis=0) == pytest.approx([0.04, 0.005], rel=0.1)
        actions = NormalNoise(std=10.0).sample(algo, X, 1)
        assert actions.min(axis=0) == pytest.approx([-4.0, 0.0], abs=1e-5)
        assert actions.max(axis=0) == pytest.approx([4.0, 1.0], abs=1e-5)

    def test_a_seed_gives_the_same_numbers(self):
        first, second = (NormalNoise().sample(small_td3(), X, 1) for _ in range(2))
        assert (first == second).all()

    def test_a_negative_std_is_named(self):
        with pytest.raises(ValueError, match="std=-1"):
            NormalNoise(std=-1)


class TestOrnsteinUhlenbeck:
    def noises(self, explorer, algo, n):
        return np.array([explorer.sample(algo, X[:3], t) - algo.predict(X[:3]) for t in range(n)])

    def test_it_decays_to_its_mean_without_steps(self):
        explorer = OrnsteinUhlenbeck(mean=0.0, std=0.0, theta=0.5)
        explorer._noise = np.full((3, 2), 0.4)
        noises = self.noises(explorer, small_td3(), 3)
        assert noises[:, 0, 0] == pytest.approx([0.2, 0.1, 0.05], abs=1e-6)

    def test_neighbours_in_time_are_alike(self):
        algo = small_td3()
        explorer = OrnsteinUhlenbeck(std=0.01, theta=0.1)
        noise = self.noises(explorer, algo, 2000)[:, 0, 0]
        assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0.9, abs=0.05)
        assert noise.std() == pytest.approx(0.01 / np.sqrt(1 - 0.9**2), rel=0.3)

    def test_reset_starts_one_row_or_all_again(self):
        algo = small_td3()
        explorer = OrnsteinUhlenbeck(mean=0.0, std=0.05, theta=0.1)
        self.noises(explorer, algo, 5)
        kept = explorer._noise.copy()
        explorer.reset(1)
        assert (explorer._noise[1] == 0).all()
        assert (explorer._noise[[0, 2]] == kept[[0, 2]]).all()
        explorer.reset()
        explorer.std = 0.0
        assert self.noises(explorer, algo, 1) == pytest.approx(0.0, abs=1e-6)

    def test_the_state_goes_on(self):
        algo, again = small_td3(), small_td3()
        explorer = OrnsteinUhlenbeck()
        self.noises(explorer, algo, 5)
        other = OrnsteinUhlenbeck()
        other.set_state(explorer.get_state())
        again.stream_.set_state(algo.stream_.get_state())
        assert (self.noises(explorer, algo, 3) == self.noises(other, again, 3)).all()


class TestActionSpaces:
    @pytest.mark.parametrize("explorer", [NormalNoise(), OrnsteinUhlenbeck()])
    def test_noise_on_ids_is_an_error(self, explorer, dqn):
        with pytest.raises(ValueError, match="use ConstantEpsilonGreedy or LinearDecayEpsilonGreedy"):
            explorer.sample(dqn, X, 1)

    @pytest.mark.parametrize("explorer", [ConstantEpsilonGreedy(0.1), LinearDecayEpsilonGreedy()])
    def test_random_ids_for_vectors_are_an_error(self, explorer):
        with pytest.raises(ValueError, match="use NormalNoise"):
            explorer.sample(BC(encoder_factory=SMALL).create_impl((2,), 2), X, 1)
