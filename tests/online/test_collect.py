from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from d3rlpy.algos import BC, DiscreteBC, DiscreteRandomPolicy, RandomPolicy, TD3PlusBC
from d3rlpy.online.buffers import ReplayBuffer
from d3rlpy.online.explorers import ConstantEpsilonGreedy, NormalNoise, OrnsteinUhlenbeck
from tests.online.helpers import QUIET, SMALL, Counter, Walk, small_dqn, small_sac

SILENT = {"show_progress": False, "verbose": False}
GREEDY = ConstantEpsilonGreedy(0.0)


class TestCollect:
    def test_every_step_is_in_the_buffer_and_the_returns_are_known(self, capsys):
        algo = RandomPolicy(random_state=0)
        buffer = algo.collect(Counter(discrete=False, limit=True), n_steps=12, show_progress=False)
        dataset = buffer.to_mdp_dataset()
        assert dataset.rewards.tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
        assert [len(episode) for episode in dataset.episodes] == [5, 5, 2]  # each with its last successor
        assert not dataset.terminals.any()
        collected = algo.collected_
        assert (collected.n_steps, collected.n_episodes, collected.returns) == (12, 2, (15.0, 15.0))
        assert (collected.mean, collected.std, collected.minimum, collected.maximum) == (15, 0, 15, 15)
        expected = "RandomPolicy collected 12 steps, 2 finished episodes, return 15 +- 0, from 15 to 15\n"
        assert capsys.readouterr().out == expected

    def test_without_a_finished_episode_there_is_no_return(self):
        algo = RandomPolicy(random_state=0)
        algo.collect(Counter(discrete=False), n_steps=3, **SILENT)
        assert algo.collected_.returns == ()
        assert np.isnan(algo.collected_.mean)
        assert str(algo.collected_) == "3 steps, 0 finished episodes"

    def test_nothing_is_learned(self):
        algo = small_sac().create_impl((2,), 2)
        before = {k: v.clone() for k, v in algo.impl.state_dict().items()}
        algo.collect(Walk(), n_steps=30, **SILENT)
        assert algo.grad_step_ == 0
        assert all(torch.equal(before[k], v) for k, v in algo.impl.state_dict().items())

    def test_what_is_collected_trains(self):
        buffer = small_sac().collect(Walk(), n_steps=50, **SILENT)
        algo = BC(encoder_factory=SMALL, random_state=0).fit(buffer.to_mdp_dataset(), n_steps=3, **QUIET)
        assert np.isfinite(algo.history_[0][1]["loss"])

    @pytest.mark.parametrize("cls", [BC, DiscreteBC, RandomPolicy, DiscreteRandomPolicy])
    def test_those_that_do_not_learn_from_rewards_collect_too(self, cls):
        env = Counter(discrete=cls.action_space == "discrete")
        assert len(cls(random_state=0).collect(env, n_steps=10, **SILENT)) == 10

    def test_deterministic_is_predict(self):
        algo, env = small_sac(), Walk()
        dataset = algo.collect(env, deterministic=True, n_steps=20, **SILENT).to_mdp_dataset()
        assert dataset.actions == pytest.approx(algo.predict(dataset.observations), abs=1e-6)
        drawn = algo.collect(env, n_steps=20, **SILENT).to_mdp_dataset()
        assert np.abs(drawn.actions - algo.predict(drawn.observations)).max() > 0.01

    def test_deterministic_with_an_explorer_is_an_error(self):
        with pytest.raises(ValueError, match="both say how to act"):
            small_sac().collect(Walk(), explorer=NormalNoise(), deterministic=True, n_steps=5)

    def test_an_explorer_explores(self):
        algo = small_dqn()
        dataset = algo.collect(Walk(True), None, ConstantEpsilonGreedy(1.0), n_steps=200, **SILENT).to_mdp_dataset()
        assert dataset.actions.mean() == pytest.approx(0.5, abs=0.1)

    def test_timelimit_aware(self):
        algo, env = small_dqn(), Counter(limit=True)
        for aware, expected in ((True, 0), (False, 2)):
            dataset = algo.collect(env, n_steps=10, timelimit_aware=aware, **SILENT).to_mdp_dataset()
            assert dataset.terminals.sum() == expected

    def test_a_seed_gives_the_same_data(self):
        first, second = (small_sac().collect(Walk(), n_steps=40, **SILENT).to_mdp_dataset() for _ in range(2))
        assert (first.observations == second.observations).all()

    def test_a_scaler_that_is_not_fitted_is_no_obstacle(self):
        algo = TD3PlusBC(actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, random_state=0)
        algo.collect(Walk(), n_steps=5, **SILENT)
        assert not algo.fitted_scalers_.observation.fitted

    def test_a_given_buffer_goes_on(self):
        env, algo = Counter(), small_dqn()
        buffer = ReplayBuffer(100, env=env)
        assert algo.collect(env, buffer, n_steps=7, **SILENT) is buffer
        algo.collect(env, buffer, n_steps=4, **SILENT)
        assert [len(episode) for episode in buffer.to_mdp_dataset().episodes] == [5, 2, 4]

    def test_an_error_of_the_environment_leaves_what_was_collected(self):
        class Broken(Counter):
            def step(self, action):
                if len(self.actions) == 7:
                    raise ZeroDivisionError("the robot fell over")
                return super().step(action)

        algo, buffer = small_dqn(), ReplayBuffer(100, env=Counter())
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            algo.collect(Broken(), buffer, n_steps=20, **SILENT)
        assert len(buffer) == 7
        assert algo.collected_.returns == (15.0,)

    def test_environments_with_the_older_interface(self):
        class Old(Counter):
            def reset(self):
                return super().reset()[0]

            def step(self, action):
                observation, reward, terminated, truncated, _ = super().step(action)
                return observation, reward, terminated or truncated, {"TimeLimit.truncated": truncated}

        dataset = small_dqn().collect(Old(limit=True), n_steps=10, **SILENT).to_mdp_dataset()
        assert [len(episode) for episode in dataset.episodes] == [5, 5]
        assert not dataset.terminals.any()


class CountingEnv(gymnasium.Env):
    """The counter as gymnasium's class, which vectors of environments ask for; episodes of ``length`` steps."""

    def __init__(self, length, limit, discrete=True):
        self.counter = Counter(length, limit, discrete)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        space = gymnasium.spaces.Discrete(2) if discrete else gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = space

    def reset(self, seed=None, options=None):
        return self.counter.reset(seed)

    def step(self, action):
        return self.counter.step(action)


class FailingEnv(CountingEnv):
    def step(self, action):
        if len(self.counter.actions) == 5:
            raise ZeroDivisionError("the robot fell over")
        return super().step(action)


def vector(kind=SyncVectorEnv, mode="NextStep", limit=False, discrete=True, lengths=(3, 4), cls=CountingEnv):
    return kind([partial(cls, length, limit, discrete) for length in lengths], autoreset_mode=mode)


MODES = ["NextStep", "SameStep", "Disabled"]


class TestVectors:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
    def test_every_mode_stores_the_true_steps_and_nothing_else(self, kind, mode):
        env = vector(kind, mode, limit=True)
        dataset = small_dqn().collect(env, n_steps=9, **SILENT).to_mdp_dataset()
        env.close()
        for episode in dataset.episodes:
            observations = np.concatenate([episode.observations, [episode[-1].next_observation]])
            assert (observations[:, 0] == observations[0, 0]).all()  # no step leads into another episode
            assert observations[:, 1].tolist() == list(range(len(episode) + 1))
            assert episode.rewards.tolist() == list(range(1, len(episode) + 1))
        resets = mode == "NextStep"  # there a step that only resets is no row
        lengths = sorted(len(episode) for episode in dataset.episodes)
        assert lengths == ([1, 3, 3, 4, 4] if resets else [1, 3, 3, 3, 4, 4])
        assert not dataset.terminals.any()

    @pytest.mark.parametrize("mode", MODES)
    def test_terminals_end_and_limits_do_not(self, mode):
        for limit, aware, expected in ((False, True, True), (True, True, False), (True, False, True)):
            dataset = small_dqn().collect(vector(mode=mode, limit=limit), n_steps=8, timelimit_aware=aware, **SILENT)
            whole = [e for e in dataset.to_mdp_dataset().episodes if len(e) >= 3]
            assert {bool(episode[-1].terminal) for episode in whole[:2]} == {expected}

    def test_sums_of_rewards_stay_in_their_episode(self):
        buffer = small_dqn().collect(vector(limit=True), n_steps=30, **SILENT)
        batch = buffer.sample(40, n_steps=3, gamma=1.0)
        t, n = batch.observations[:, 1], batch.n_steps[:, 0]
        assert (batch.rewards[:, 0] == n * (t + 1) + n * (n - 1) / 2).all()
        assert (batch.next_observations == batch.observations + np.stack([0 * n, n], axis=1)).all()

    def test_returns_are_those_of_the_episodes(self):
        algo = small_dqn()
        algo.collect(vector(mode="SameStep"), n_steps=8, **SILENT)
        assert algo.collected_.returns == (6.0, 10.0, 6.0, 10.0)
        assert algo.collected_.n_steps == 8

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
    def test_fit_batch_online(self, kind, mode):
        env, algo = vector(kind, mode), small_dqn()
        buffer, after = ReplayBuffer(1000, env=Counter()), []
        algo.fit_batch_online(
            env, buffer, ConstantEpsilonGreedy(0.5), n_epochs=3, n_steps_per_epoch=10, n_updates_per_epoch=4,
            eval_env=Counter(), eval_interval=2, callback=lambda a, e, t: after.append(a.grad_step_), **QUIET,
        )  # fmt: skip
        env.close()
        assert after == [0] * 9 + [4] * 10 + [8] * 10 + [12]
        assert len(algo.history_) == 3
        assert algo.eval_results_ == {"evaluation": [15.0, 15.0]}
        assert 6 <= algo.history_[0][1]["rollout_return"] <= 10
        assert len(buffer) == 60 - (13 if mode == "NextStep" else 0)

    def test_vectors_of_actions(self):
        env, algo = vector(discrete=False, lengths=(3, 4, 5)), small_sac()
        algo.fit_batch_online(env, n_epochs=2, n_steps_per_epoch=10, n_updates_per_epoch=2, random_steps=3, **QUIET)
        assert algo.grad_step_ == 4
        actions = np.array(env.envs[2].counter.actions)
        assert actions.shape[1:] == (2,)

    @pytest.mark.parametrize(("mode", "expected"), [("SameStep", [None, 0, 1, 0]), ("NextStep", [None, 0, 1])])
    def test_noise_that_drifts_starts_again_where_an_episode_begins(self, mode, expected):
        resets = []

        class Spy(OrnsteinUhlenbeck):
            def reset(self, row=None):
                resets.append(row)
                super().reset(row)

        small_sac().collect(vector(discrete=False, mode=mode), None, Spy(), n_steps=6, **SILENT)
        assert resets == expected

    @pytest.mark.filterwarnings("ignore:.*ERROR.*:UserWarning")
    @pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
    def test_an_error_comes_through_and_the_steps_survive(self, kind):
        env, buffer = vector(kind, cls=FailingEnv, lengths=(100, 100)), ReplayBuffer(100, env=Counter())
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            small_dqn().fit_batch_online(env, buffer, GREEDY, n_epochs=2, n_steps_per_epoch=50, **QUIET)
        assert [episode.rewards.tolist() for episode in buffer.to_mdp_dataset().episodes] == [[1, 2, 3, 4, 5]] * 2

    def test_each_method_says_which_one_to_call(self):
        with pytest.raises(ValueError, match="call fit_batch_online"):
            small_dqn().fit_online(vector(), n_steps=5)
        with pytest.raises(ValueError, match="call fit_online"):
            small_dqn().fit_batch_online(Counter())
        with pytest.raises(ValueError, match="eval_env is a SyncVectorEnv"):
            small_dqn().fit_batch_online(vector(), None, GREEDY, eval_env=vector())

    def test_actions_of_another_kind(self):
        with pytest.raises(ValueError, match="DQN learns discrete actions"):
            small_dqn().fit_batch_online(vector(discrete=False))
