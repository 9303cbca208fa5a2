import copy
import csv

import numpy as np
import pytest
import torch

from d3rlpy.algos import ALGORITHMS, AWR, BC, DQN, RLPD, DiscreteBC, DiscreteRandomPolicy, RandomPolicy, TD3PlusBC
from d3rlpy.dataset import MDPDataset
from d3rlpy.online.buffers import ReplayBuffer
from d3rlpy.online.explorers import ConstantEpsilonGreedy, LinearDecayEpsilonGreedy, NormalNoise, OrnsteinUhlenbeck
from d3rlpy.online.iterators import train
from d3rlpy.training import engine
from tests.capture import SimulatedGraph
from tests.common.test_suite import SMALL_PIXEL, make
from tests.helpers import make_dataset
from tests.online.helpers import QUIET, SMALL, Box, Counter, Ids, Walk, small_dqn, small_sac

GREEDY = ConstantEpsilonGreedy(0.0)


def run(algo=None, env=None, buffer=None, explorer=GREEDY, **kwargs):
    """``fit_online`` on the counter, and the step after which each update was made."""
    algo, env = algo or small_dqn(), env or Counter()
    counts = []
    algo.fit_online(
        env, buffer, explorer, **{**QUIET, "callback": lambda a, e, t: counts.append(a.grad_step_), **kwargs}
    )
    after = [t for t, (a, b) in enumerate(zip([0, *counts], counts, strict=False), start=1) for _ in range(b - a)]
    return algo, after


def batches_of(algo, observation_shape=(2,), action_size=2):
    """The batches that the updates of ``algo`` see from now on."""
    seen, impl = [], algo.create_impl(observation_shape, action_size).impl
    step = impl.step

    def spy(batch):
        seen.append(copy.deepcopy(batch))
        return step(batch)

    impl.step = spy
    return seen


def rows_of_batches(seen):
    fields = ("observations", "actions", "rewards", "next_observations", "discounts")
    return {name: torch.cat([getattr(batch, name) for batch in seen]).numpy() for name in fields}


@pytest.mark.parametrize("n_updates", [1, 20])
def test_captured_updates_equal_updates_one_by_one(n_updates, monkeypatch):
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(40, 2)).astype("float32"), rng.uniform(-1, 1, (40, 2)).astype("float32")
    data = MDPDataset(observations, actions, np.ones(40, "float32"), np.arange(40) % 10 == 9)

    def trained():
        algo = small_sac(batch_size=8, scaler="standard")
        arguments = {"n_steps": 60, "n_steps_per_epoch": 25, "update_start_step": 20, "n_updates": n_updates}
        algo.fit_online(Counter(discrete=False), offline_dataset=data, **QUIET, **arguments)
        return algo

    alone, counted = trained(), []
    monkeypatch.setattr(engine, "recorder_for", lambda device: SimulatedGraph())
    original = engine.Engine.replayed
    monkeypatch.setattr(engine.Engine, "replayed", lambda *args: counted.append(1) or original(*args))
    captured = trained()
    assert len(counted) > 30
    assert captured.grad_step_ == alone.grad_step_ == 40 * n_updates
    for name, value in alone.impl.state_dict().items():
        torch.testing.assert_close(captured.impl.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert captured.history_[-1][1]["critic_loss"] == pytest.approx(alone.history_[-1][1]["critic_loss"], rel=1e-4)


def test_what_can_not_be_captured_says_so_online(monkeypatch):
    monkeypatch.setattr(engine, "recorder_for", lambda device: SimulatedGraph())
    encoders = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}
    with pytest.warns(UserWarning, match="the updates of RLPD are launched one by one: which critics it computes"):
        RLPD(batch_size=4, n_gradient_steps=2, **encoders).fit_online(Counter(discrete=False), n_steps=9, **QUIET)


class TestWhenUpdatesHappen:
    def test_every_step_once_the_buffer_holds_a_batch(self):
        _, after = run(n_steps=20)
        assert after[0] in (4, 5)  # the newest step may wait for its successor
        assert after == list(range(after[0], 21))

    def test_update_start_step_counts_steps_before_updates(self):
        assert run(n_steps=20, update_start_step=12)[1] == list(range(13, 21))

    def test_update_interval(self):
        assert run(n_steps=20, update_interval=6)[1] == [6, 12, 18]
        assert run(n_steps=20, update_interval=6, update_start_step=12)[1] == [18]

    def test_n_updates_in_each_round(self):
        assert run(n_steps=20, update_interval=9, n_updates=3)[1] == [9, 9, 9, 18, 18, 18]

    def test_a_larger_batch_waits_longer(self):
        assert run(small_dqn(batch_size=12), n_steps=20)[1][0] in (12, 13)

    def test_a_full_buffer_starts_at_once(self):
        buffer = ReplayBuffer(100, env=Counter())
        run(buffer=buffer, n_steps=20)
        assert run(buffer=buffer, n_steps=3)[1] == [1, 2, 3]

    def test_all_steps_go_into_the_buffer(self):
        buffer = ReplayBuffer(100, env=Counter())
        run(buffer=buffer, n_steps=23)
        dataset = buffer.to_mdp_dataset()
        assert dataset.rewards.tolist() == [1, 2, 3, 4, 5] * 4 + [1, 2, 3]
        assert [len(e) for e in dataset.episodes] == [5, 5, 5, 5, 3]  # the last one keeps its true successor
        assert dataset.episodes[-1][-1].next_observation.tolist() == [4, 3]

    @pytest.mark.parametrize("name", ["n_steps", "n_steps_per_epoch", "update_interval", "n_updates", "eval_interval"])
    def test_lengths_from_one_on(self, name):
        with pytest.raises(ValueError, match=f"{name}=0"):
            run(**{"n_steps": 10, name: 0})

    def test_an_unknown_argument_is_named(self):
        with pytest.raises(TypeError, match=r"no argument 'n_step'. Did you mean 'n_steps'"):
            small_dqn().fit_online(Counter(), n_step=3)


class TestActions:
    @pytest.mark.filterwarnings("ignore:DQN acts greedily:UserWarning")
    def test_random_steps_are_the_first_and_uniform(self):
        env, algo = Counter(length=1000), small_dqn()
        seen = []
        predict = DQN.predict
        algo.create_impl((2,), 2)
        algo.sample_action = lambda x: seen.append(len(seen)) or predict(algo, x)
        run(algo, env, explorer=None, n_steps=300, random_steps=295, update_start_step=300 - 1)
        assert len(seen) == 5
        assert np.mean(env.actions[:295]) == pytest.approx(0.5, abs=0.1)

    def test_random_actions_fill_the_box(self):
        env = Counter(discrete=False, low=-3.0, high=1.0)
        run(small_sac(action_scaler="min_max"), env, explorer=None, n_steps=200, random_steps=200, update_interval=200)
        actions = np.array(env.actions)
        assert -3 <= actions.min() < -2.9 < 0.9 < actions.max() <= 1
        assert actions.mean() == pytest.approx(-1, abs=0.3)

    def test_random_actions_need_bounds(self):
        env = Counter(discrete=False, low=-np.inf, high=np.inf)
        with pytest.raises(ValueError, match="use random_steps=0"):
            run(small_sac(), env, explorer=None, n_steps=5, random_steps=1)

    def test_explorers_see_the_batch_and_the_step(self):
        class Spy:
            def __init__(self):
                self.seen = []

            def sample(self, algo, x, step):
                self.seen.append((x.shape, step))
                return np.zeros(len(x), int)

        spy = Spy()
        run(explorer=spy, n_steps=8, random_steps=3)
        assert spy.seen == [((1, 2), t) for t in range(4, 9)]

    def test_actions_outside_of_the_box_are_clipped_and_stored_so(self):
        env, algo = Counter(discrete=False, low=-0.1, high=0.1), small_sac()
        buffer = ReplayBuffer(100, env=env)
        with pytest.warns(UserWarning, match="pass action_scaler='min_max' to SAC"):
            run(algo, env, buffer, None, n_steps=20)
        assert np.abs(env.actions).max() == pytest.approx(0.1)
        assert (buffer.to_mdp_dataset().actions == np.array(env.actions)).all()

    def test_greedy_without_an_explorer_warns(self):
        with pytest.warns(UserWarning, match="pass an explorer of d3rlpy.online.explorers, for instance Constant"):
            run(explorer=None, n_steps=5)

    def test_noise_on_ids_is_an_error_before_the_first_step(self):
        env = Counter()
        with pytest.raises(ValueError, match="NormalNoise explores continuous actions"):
            run(env=env, explorer=NormalNoise(), n_steps=5)
        assert env.actions == []

    def test_noise_that_drifts_starts_again_with_each_episode(self):
        resets = []

        class Spy(OrnsteinUhlenbeck):
            def reset(self, row=None):
                resets.append(row)
                super().reset(row)

        run(small_sac(), Counter(discrete=False), explorer=Spy(), n_steps=12)
        assert resets == [None, 0, 0]


class TestTimeLimits:
    def last_steps(self, limit, **kwargs):
        algo = small_dqn(gamma=0.5, batch_size=16)
        seen = batches_of(algo)
        run(algo, Counter(limit=limit), n_steps=100, update_start_step=50, **kwargs)
        rows = rows_of_batches(seen)
        assert (rows["rewards"][:, 0] == rows["observations"][:, 1] + 1).all()
        assert (rows["observations"][:, 0] <= 20).all()
        last = rows["observations"][:, 1] == 4
        assert last.any()
        assert (rows["discounts"][~last] == 0.5).all()
        assert (rows["next_observations"][~last] == rows["observations"][~last] + [0, 1]).all()
        return {name: column[last] for name, column in rows.items()}

    def test_values_go_on_beyond_a_time_limit(self):
        last = self.last_steps(limit=True)
        assert (last["discounts"] == 0.5).all()
        assert (last["next_observations"] == last["observations"] + [0, 1]).all()  # and not the next episode's start

    def test_values_end_with_a_terminal(self):
        assert (self.last_steps(limit=False)["discounts"] == 0).all()

    def test_a_time_limit_can_be_the_end(self):
        assert (self.last_steps(limit=True, timelimit_aware=False)["discounts"] == 0).all()

    def test_the_target_of_a_step_cut_by_a_time_limit_is_known(self):
        """``r + gamma max_a Q-(s', a)`` at the limit, ``r`` at a terminal."""
        algo = small_dqn(gamma=0.5)
        seen = batches_of(algo)
        run(algo, Counter(limit=True), n_steps=30, update_start_step=29)
        (batch,) = seen
        with torch.no_grad():
            values = algo.impl.targ_q_funcs(batch.next_observations).amin(dim=0).amax(dim=1, keepdim=True)
            assert torch.allclose(algo.impl.td_target(batch), batch.rewards + 0.5 * values)

    def test_sums_of_rewards_end_with_the_episode(self):
        algo = small_dqn(gamma=0.5, n_steps=3, batch_size=32)
        seen = batches_of(algo)
        run(algo, Counter(limit=True), n_steps=60, update_start_step=58)
        rows = rows_of_batches(seen)
        for (_, t), reward, following, discount in zip(
            rows["observations"], rows["rewards"], rows["next_observations"], rows["discounts"], strict=True
        ):
            if following[0] < 11:  # of a whole episode
                n = int(min(3, 5 - t))
                assert reward == sum(0.5**k * (t + 1 + k) for k in range(n))
                assert (discount, following[1]) == (0.5**n, t + n)


class TestEpochs:
    def test_a_run_shorter_than_an_epoch_reports_too(self, tmp_path):
        algo, _ = run(
            n_steps=7, n_steps_per_epoch=100, eval_env=Counter(), save_metrics=True, experiment_name="short",
            with_timestamp=False, logdir=tmp_path,
        )  # fmt: skip
        ((epoch, metrics),) = algo.history_
        assert (epoch, metrics["evaluation"], metrics["rollout_return"]) == (1, 15.0, 15.0)
        assert {"loss", "time_step", "time_inference", "time_environment_step"} <= set(metrics)
        assert list(csv.reader((tmp_path / "short" / "evaluation.csv").open())) == [["1", "7", "15.0"]]
        assert (tmp_path / "short" / "model_7.pt").exists()
        assert (tmp_path / "short" / "params.json").exists()

    def test_the_last_epoch_is_shorter(self):
        algo, _ = run(n_steps=25, n_steps_per_epoch=10, eval_env=Counter(), eval_interval=2)
        assert [epoch for epoch, _ in algo.history_] == [1, 2, 3]
        assert ["evaluation" in metrics for _, metrics in algo.history_] == [False, True, True]
        assert algo.eval_results_ == {"evaluation": [15.0, 15.0]}

    def test_the_name_of_the_folder_says_online(self):
        algo, _ = run(n_steps=7, save_metrics=True)
        assert algo.logdir_.name.startswith("DQN_online_2")
        assert algo.logdir_.parent.name == "d3rlpy_logs"

    def test_returns_are_the_mean_over_the_episodes_of_the_epoch(self):
        class Longer(Counter):
            def reset(self, **kwargs):
                self.length = self.episode + 3  # 2, 3, 4, ... steps
                return super().reset(**kwargs)

        algo, _ = run(env=Longer(), n_steps=12, n_steps_per_epoch=6)
        returns = [metrics["rollout_return"] for _, metrics in algo.history_]
        assert returns == [(3 + 6) / 2, 10.0]

    def test_an_epoch_without_an_ended_episode_has_no_return(self):
        algo, _ = run(env=Counter(length=100), n_steps=10)
        assert "rollout_return" not in algo.history_[0][1]

    def test_evaluations_change_nothing_and_repeat_their_seeds(self):
        with_one, without = (run(env=Walk(True), eval_env=e, n_steps=30)[0] for e in (Walk(True), None))
        assert (with_one.predict_value(X, [0] * 5) == without.predict_value(X, [0] * 5)).all()
        eval_env = Counter()
        run(n_steps=20, n_steps_per_epoch=10, eval_env=eval_env)
        assert eval_env.seeds[:10] == eval_env.seeds[10:]

    def test_eval_epsilon_is_honoured(self):
        eval_env = Counter(length=200)
        run(n_steps=5, eval_env=eval_env, eval_epsilon=1.0)
        assert np.mean(eval_env.actions) == pytest.approx(0.5, abs=0.1)

    def test_evaluating_in_the_same_environment_is_an_error(self):
        env = Counter()
        with pytest.raises(ValueError, match="eval_env is env"):
            run(env=env, eval_env=env, n_steps=5)

    def test_callbacks_come_after_each_step(self):
        seen = []
        run(n_steps=5, n_steps_per_epoch=3, callback=[lambda algo, epoch, step: seen.append((epoch, step))])
        assert seen == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]

    def test_a_changed_batch_size_acts_on_the_next_update(self):
        algo = small_dqn()
        seen = batches_of(algo)

        def change(algo, epoch, step):
            if step == 12:
                algo.set_params(batch_size=7)

        run(algo, n_steps=14, update_start_step=10, callback=change)
        assert [len(batch.rewards) for batch in seen] == [4, 4, 7, 7]

    def test_networks_act_in_evaluation_mode_and_learn_in_training_mode(self):
        algo = small_dqn(encoder_factory={"type": "vector", "params": {"hidden_units": [8], "dropout_rate": 0.5}})
        modes = []
        algo.create_impl((2,), 2)
        step, best = algo.impl.step, algo.impl.best_action
        algo.impl.step = lambda batch: modes.append(("learn", algo.impl.q_funcs.training)) or step(batch)
        algo.impl.best_action = lambda x: modes.append(("act", algo.impl.q_funcs.training)) or best(x)
        run(algo, n_steps=12)
        assert set(modes) == {("learn", True), ("act", False)}
        assert not algo.impl.training
        assert not algo.impl.targ_q_funcs.training


X = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)


class TestRandomness:
    @pytest.mark.parametrize("random_state", [0, 1])
    def test_a_seed_gives_the_same_run(self, random_state):
        values = []
        for _ in range(2):
            torch.rand(3)  # what others draw doesn't matter
            env = Walk(True)
            algo, _ = run(small_dqn(random_state=random_state), env, explorer=LinearDecayEpsilonGreedy(), n_steps=40)
            values.append((algo.predict_value(X, [1] * 5), env.place))
        assert (values[0][0] == values[1][0]).all()
        assert (values[0][1] == values[1][1]).all()

    def test_the_first_reset_is_seeded_and_the_others_go_on(self):
        env = Counter()
        run(env=env, n_steps=12)
        assert isinstance(env.seeds[0], int)
        assert env.seeds[1:] == [None, None]

    def test_an_environment_without_seeds_will_do(self):
        class Plain(Counter):
            def reset(self):
                return super().reset()

        run(env=Plain(), eval_env=Plain(), n_steps=6)


class TestScalers:
    def test_they_are_fitted_once_when_updates_begin(self):
        algo = small_dqn(scaler="standard", reward_scaler="standard")
        means = []
        run(algo, Counter(length=10), n_steps=30, update_start_step=19,
            callback=lambda a, e, t: means.append(a.fitted_scalers_.observation.mean))  # fmt: skip
        assert means[:19] == [None] * 19
        assert means[19] == pytest.approx([0.5, 4.5], abs=0.3)  # twenty rows of two episodes
        assert all((mean == means[19]).all() for mean in means[20:])
        assert algo.fitted_scalers_.reward.mean == pytest.approx(5.5, abs=0.3)

    def test_evaluations_and_checkpoints_before_that_work(self, tmp_path):
        algo, _ = run(small_dqn(scaler="standard"), n_steps=20, n_steps_per_epoch=5, update_start_step=15,
                      eval_env=Counter(), save_metrics=True, logdir=tmp_path)  # fmt: skip
        assert len(algo.eval_results_["evaluation"]) == 4
        small_dqn(scaler="standard").load_model(algo.logdir_ / "model_5.pt")

    def test_rewards_are_scaled_before_they_are_summed(self):
        algo = small_dqn(gamma=1.0, n_steps=2, batch_size=32, reward_scaler={"type": "shift", "params": {"shift": 10}})
        seen = batches_of(algo)
        run(algo, n_steps=60, update_start_step=59)
        rows = rows_of_batches(seen)
        t = rows["observations"][:, 1]
        assert (rows["rewards"][:, 0] == np.where(t == 4, 15, 2 * t + 3 + 20)).all()

    def test_those_fitted_offline_stay(self):
        algo = TD3PlusBC(batch_size=4, actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, random_state=0)
        algo.fit(two_numbers(discrete=False), n_steps=2, **QUIET)
        before = algo.fitted_scalers_.to_dict()
        run(algo, Counter(discrete=False), explorer=NormalNoise(), n_steps=20)
        assert algo.grad_step_ > 10
        assert algo.fitted_scalers_.to_dict() == before

    def test_from_scratch_a_default_scaler_is_no_obstacle(self):
        algo = TD3PlusBC(batch_size=4, actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, random_state=0)
        run(algo, Counter(discrete=False), explorer=NormalNoise(), n_steps=20)
        assert algo.fitted_scalers_.observation.fitted

    def test_bounds_of_the_environment_fit_what_they_determine(self):
        env = Walk()
        algo, _ = run(small_sac(scaler="min_max", action_scaler="min_max"), env, explorer=None, n_steps=10)
        assert algo.fitted_scalers_.observation.minimum.tolist() == [-10, -10]
        assert algo.fitted_scalers_.action.maximum.tolist() == [1, 1]


def two_numbers(discrete=True, n=40):
    """Offline data that no counter gives: all observations are (-7, -7)."""
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=n) if discrete else rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    return MDPDataset(np.full((n, 2), -7.0, np.float32), actions, np.zeros(n), np.arange(n) % 10 == 9)


class TestMixedBatches:
    @pytest.mark.parametrize(("ratio", "expected"), [(0.5, 5), (0.25, 3), (0.3, 3), (0.0, 0), (1.0, 10)])
    def test_every_batch_has_the_stated_share(self, ratio, expected):
        algo = small_dqn(batch_size=10)
        seen = batches_of(algo)
        run(algo, n_steps=30, update_start_step=15, offline_dataset=two_numbers(), offline_ratio=ratio)
        assert len(seen) == 15
        for batch in seen:
            offline = (batch.observations == -7).all(dim=1)
            assert int(offline.sum()) == expected
            assert (batch.rewards[offline] == 0).all()
            assert (batch.rewards[~offline, 0] == batch.observations[~offline, 1] + 1).all()
            assert ((batch.next_observations[offline] == -7).all(1) | (batch.discounts[offline, 0] == 0)).all()

    def test_any_part_of_a_batch_has_about_the_same_shares(self):
        algo = small_dqn(batch_size=20)
        seen = batches_of(algo)
        run(algo, n_steps=30, update_start_step=29, offline_dataset=two_numbers())
        offline = (seen[0].observations == -7).all(dim=1).view(5, 4)
        assert offline.sum(dim=1).tolist() == [2] * 5

    def test_the_buffer_needs_only_its_share(self):
        _, after = run(small_dqn(batch_size=10), n_steps=20, offline_dataset=two_numbers())
        assert after[0] in (5, 6)

    def test_everything_is_scaled_alike(self):
        scaler = {"type": "shift", "params": {"shift": 3}}
        algo = small_dqn(batch_size=10, reward_scaler=scaler, scaler="min_max")
        seen = batches_of(algo)
        run(algo, n_steps=30, update_start_step=29, offline_dataset=two_numbers())
        assert algo.fitted_scalers_.observation.minimum.tolist() == [-7, -7]  # the offline data fits them
        rows = rows_of_batches(seen)
        assert sorted(set(rows["rewards"][:, 0]) - {3.0})[0] >= 4

    def test_algorithms_that_follow_episodes(self):
        algo = AWR(batch_size=8, actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, random_state=0)
        seen = []
        algo.create_impl((2,), 2)
        step = algo.impl.step

        def spy(batch):
            parts = list(batch.steps)
            batch.steps = parts
            observations = torch.cat([part.observations for part in parts])
            seen.append((observations, batch.places, batch.continues, batch.observations.clone()))
            return step(batch)

        algo.impl.step = spy
        run(algo, Counter(discrete=False), explorer=None, n_steps=40, update_start_step=38,
            offline_dataset=two_numbers(discrete=False))  # fmt: skip
        for steps, places, continues, observations in seen:
            assert torch.equal(steps[places], observations)
            assert len(continues) == len(steps)
            goes_on = continues[:-1, 0] == 1
            assert (steps[1:][goes_on, 0] == steps[:-1][goes_on, 0]).all()  # within an episode
            assert int((observations[:, 0] == -7).sum()) == 4

    def test_data_of_another_kind_is_an_error(self):
        with pytest.raises(ValueError, match="DQN learns discrete actions"):
            run(n_steps=5, offline_dataset=make_dataset(discrete=False))
        with pytest.raises(ValueError, match="was built for observations of shape"):
            run(n_steps=5, offline_dataset=make_dataset(discrete=True))

    @pytest.mark.parametrize("ratio", [-0.1, 1.1, None])
    def test_a_bad_ratio_is_named(self, ratio):
        with pytest.raises(ValueError, match="offline_ratio="):
            run(n_steps=5, offline_dataset=two_numbers(), offline_ratio=ratio)


class TestOfflineThenOnline:
    def test_training_goes_on_from_what_fit_has_learned(self):
        algo = small_dqn(learning_rate=1e-30).fit(two_numbers(), n_steps=5, **QUIET)
        before = algo.predict_value(X, [0] * 5)
        run(algo, n_steps=20, update_interval=2, update_start_step=10)
        assert algo.grad_step_ == 5 + 5
        assert (algo.predict_value(X, [0] * 5) == before).all()

    def test_a_second_call_goes_on_and_cuts_what_was_open(self):
        buffer, env = ReplayBuffer(100, env=Counter()), Counter()
        algo, _ = run(env=env, buffer=buffer, n_steps=8)
        run(algo, env, buffer, n_steps=8)
        assert [len(episode) for episode in buffer.to_mdp_dataset().episodes] == [5, 3, 5, 3]

    def test_fit_after_fit_online(self):
        algo, _ = run(n_steps=10)
        done = algo.grad_step_
        algo.fit(two_numbers(), n_steps=3, **QUIET)
        assert algo.grad_step_ == done + 3


class Stop(Exception):
    pass


class TestInterruption:
    def interrupted(self, at, make, explorer, n_steps=60, **kwargs):
        """Stop in a callback, carry everything over into fresh objects, go on."""

        def stop(algo, epoch, step):
            if step == at:
                algo.save_model("stopped.pt")
                torch.save(algo.online_state_, "state.pt")
                raise Stop

        algo, env = make(), Walk(make().action_space == "discrete")
        buffer = ReplayBuffer(50, env=env)
        with pytest.raises(Stop):
            algo.fit_online(env, buffer, explorer(), n_steps=n_steps, callback=stop, **kwargs, **QUIET)
        algo = make()
        algo.load_model("stopped.pt")
        env, buffer = copy.deepcopy((env, buffer))
        algo.fit_online(
            env,
            buffer,
            explorer(),
            n_steps=n_steps,
            resume=torch.load("state.pt", weights_only=True),
            **kwargs,
            **QUIET,
        )
        return algo, env, buffer

    @pytest.mark.parametrize("at", [3, 17, 31, 44])
    @pytest.mark.parametrize(
        ("make", "explorer", "kwargs"),
        [
            (small_dqn, lambda: LinearDecayEpsilonGreedy(duration=50), {"n_steps_per_epoch": 20}),
            (small_sac, OrnsteinUhlenbeck, {"random_steps": 10, "update_interval": 3, "n_updates": 2}),
            (small_sac, lambda: None, {"offline_dataset": two_numbers(discrete=False), "update_start_step": 20}),
        ],
    )
    def test_resumed_equals_uninterrupted(self, at, make, explorer, kwargs):
        algo, env, buffer = self.interrupted(at, make, explorer, **kwargs)
        twin, twin_env = make(), Walk(make().action_space == "discrete")
        twin_buffer = ReplayBuffer(50, env=twin_env)
        twin.fit_online(twin_env, twin_buffer, explorer(), n_steps=60, **kwargs, **QUIET)
        assert algo.grad_step_ == twin.grad_step_
        for name, value in twin.impl.state_dict().items():
            assert torch.equal(algo.impl.state_dict()[name], value), name
        assert (env.place == twin_env.place).all()
        assert (buffer.to_mdp_dataset().observations == twin_buffer.to_mdp_dataset().observations).all()
        assert algo.history_[-1][0] == twin.history_[-1][0]

    def test_a_finished_run_has_nothing_to_resume(self):
        algo, _ = run(n_steps=5)
        with pytest.raises(ValueError, match="has made 5 steps, and n_steps=5 counts them too"):
            run(algo, n_steps=5, resume=algo.online_state_)

    def test_an_error_of_the_environment_comes_through_and_the_rest_survives(self, tmp_path):
        class Broken(Counter):
            def step(self, action):
                if len(self.actions) == 17:
                    raise ZeroDivisionError("the robot fell over")
                return super().step(action)

        algo, buffer = small_dqn(), ReplayBuffer(100, env=Counter())
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            run(algo, Broken(), buffer, n_steps=50, n_steps_per_epoch=10, save_metrics=True, logdir=tmp_path,
                tensorboard_dir=tmp_path / "board")  # fmt: skip
        assert (algo.logdir_ / "loss.csv").read_text().count("\n") == 1
        assert (algo.logdir_ / "model_10.pt").exists()
        assert algo.online_state_["steps"] == 17
        assert not algo.impl.training
        state = torch.get_rng_state()
        run(algo, Counter(), buffer, n_steps=10)
        assert torch.equal(state, torch.get_rng_state())
        lengths = [len(episode) for episode in buffer.to_mdp_dataset().episodes]
        assert lengths[:3] == [5, 5, 5]
        assert lengths[3] in (1, 2)  # the successor of the last step before the error may be unknown
        assert lengths[4:] == [5, 5]


class TestBadInput:
    @pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (np.inf, "inf")])
    def test_observations_that_are_no_numbers(self, value, text):
        class Broken(Counter):
            def observation(self):
                return np.array([0, value if self.t == 3 else 0], np.float32)

        with pytest.raises(ValueError, match=rf"Broken returned an observation with {text} at entry \[1\] in step 3"):
            run(env=Broken(), n_steps=10)

    def test_rewards_that_are_no_numbers(self):
        class Broken(Counter):
            def step(self, action):
                observation, reward, *rest = super().step(action)
                return observation, np.nan if self.t == 2 else reward, *rest

        with pytest.raises(ValueError, match="Broken returned the reward nan in step 2"):
            run(env=Broken(), n_steps=10)

    def test_a_dictionary_of_observations(self):
        gymnasium = pytest.importorskip("gymnasium")
        env = Counter()
        env.observation_space = gymnasium.spaces.Dict({"x": gymnasium.spaces.Box(-1, 1, (2,))})
        with pytest.raises(ValueError, match="FlattenObservation"):
            run(env=env, n_steps=5)

    def test_actions_of_another_kind(self):
        with pytest.raises(ValueError, match="DQN learns discrete actions, those of env are continuous"):
            run(env=Counter(discrete=False), n_steps=5)

    def test_an_algorithm_that_was_built_for_another_shape(self):
        with pytest.raises(ValueError, match=r"observations of shape \(2,\), DQN was built for \(3,\)"):
            run(small_dqn().create_impl((3,), 2), n_steps=5)

    def test_an_evaluation_of_another_shape(self):
        eval_env = Counter()
        eval_env.observation_space = Box([0.0], [1.0])
        with pytest.raises(ValueError, match=r"the environment has observations of shape \(1,\)"):
            run(n_steps=5, eval_env=eval_env)

    def test_a_buffer_without_room_for_a_batch(self):
        with pytest.raises(ValueError, match=r"maxlen=10 .* lower batch_size=32"):
            run(small_dqn(batch_size=32), buffer=ReplayBuffer(10, env=Counter()), n_steps=50)

    def test_an_episode_of_one_step(self):
        _, after = run(env=Counter(length=1), n_steps=10)
        assert after == list(range(4, 11))

    def test_a_bad_hyper_parameter_is_said_before_the_first_step(self):
        env = Counter()
        with pytest.raises(ValueError, match="batch_size=0"):
            run(small_dqn(batch_size=0), env, n_steps=5)
        assert env.seeds == []

    def test_frames_of_vectors(self):
        with pytest.raises(ValueError, match="n_frames=2 stacks images"):
            run(small_dqn(n_frames=2), n_steps=5)


class TestOldDocuments:
    def test_epochs_of_2020(self):
        with pytest.warns(
            FutureWarning, match="write n_steps=30, n_steps_per_epoch=10, update_interval=10, n_updates=3"
        ):
            algo, after = run(n_epochs=3, n_steps_per_epoch=10, n_updates_per_epoch=3)
        assert after == [10] * 3 + [20] * 3 + [30] * 3
        assert len(algo.history_) == 3

    def test_both_lengths_are_an_error(self):
        with pytest.raises(ValueError, match="both set the length"):
            run(n_epochs=3, n_steps=10)

    @pytest.mark.parametrize("given", [{"update_interval": 10}, {"n_updates": 1}])
    def test_both_ways_to_space_updates_are_an_error(self, given):
        with pytest.raises(ValueError, match="leave these out"):
            run(n_epochs=3, **given)

    @pytest.mark.filterwarnings("ignore:.*2020 documentation.*:FutureWarning")
    def test_train_is_fit_online(self):
        algo, env = small_dqn(), Counter()
        train(env, algo, ReplayBuffer(100, env=env), GREEDY, n_epochs=2, n_steps_per_epoch=10, n_updates_per_epoch=4,
              eval_env=Counter(), **QUIET)  # fmt: skip
        assert (algo.grad_step_, len(env.actions)) == (8, 20)
        assert len(algo.eval_results_["evaluation"]) == 2

    def test_train_says_what_to_write(self):
        with pytest.warns(FutureWarning, match="write algo.fit_online"):
            train(Counter(), small_dqn(), None, GREEDY, n_epochs=1, n_steps_per_epoch=5, n_updates_per_epoch=1, **QUIET)


class TestWhoLearns:
    @pytest.mark.parametrize("cls", [BC, DiscreteBC, RandomPolicy, DiscreteRandomPolicy])
    def test_what_does_not_learn_from_rewards_only_collects(self, cls):
        algo = cls()
        assert not hasattr(algo, "fit_online")
        assert not hasattr(algo, "fit_batch_online")
        with pytest.raises(AttributeError) as error:
            algo.fit_online  # noqa: B018
        assert "doesn't learn from rewards" in str(error.value.__cause__)
        assert callable(algo.collect)

    def test_fit_online_returns_the_algorithm(self):
        algo = small_dqn()
        assert algo.fit_online(Counter(), None, GREEDY, n_steps=5, **QUIET) is algo


class TestEveryAlgorithm:
    @pytest.mark.parametrize("name", [name for name, cls in ALGORITHMS.items() if cls.learns_from_rewards])
    def test_it_learns_online_from_mixed_batches_after_learning_offline(self, name):
        algo = make(name, batch_size=6)
        discrete = algo.action_space == "discrete"
        data = two_numbers(discrete)
        algo.fit(data, n_steps=2, **QUIET)
        explorer = GREEDY if discrete else NormalNoise()
        run(algo, Counter(discrete=discrete, limit=True), None, explorer, n_steps=20, offline_dataset=data)
        rounds = 18  # one after each step from the third on, when the buffer has its share
        assert algo.grad_step_ == 2 + rounds * algo.updates_per_step
        losses = [value for key, value in algo.history_[-1][1].items() if "loss" in key]
        assert losses
        assert np.isfinite(losses).all()

    @pytest.mark.parametrize("name", ["dqn", "sac"])
    def test_images_are_stacked_alike_when_acting_and_when_learning(self, name):
        class Images(Counter):
            """The counter as images: all pixels are ten times the episode plus the step."""

            def __init__(self, discrete):
                super().__init__(discrete=discrete)
                self.observation_space = Box(np.zeros((1, 16, 16)), np.full((1, 16, 16), 255), np.uint8)

            def observation(self):
                return np.full((1, 16, 16), 10 * self.episode + self.t, np.uint8)

        class Spy:
            def __init__(self):
                self.stacks = []

            def sample(self, algo, x, step):
                self.stacks.append(x[0, :, 0, 0].tolist())
                return algo.sample_action(x)

        algo, spy = make(name, SMALL_PIXEL, n_frames=3), Spy()
        env = Images(algo.action_space == "discrete")
        buffer = ReplayBuffer(50, env=env)
        run(algo, env, buffer, spy, n_steps=14)
        batch = buffer.sample(14, n_frames=3)
        assert spy.stacks[:7] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [10, 10, 10], [10, 10, 11]]
        assert {tuple(x) for x in batch.observations[:, :, 0, 0].tolist()} <= {tuple(x) for x in spy.stacks}
        assert np.isfinite(algo.history_[-1][1]["loss" if name == "dqn" else "critic_loss"])


@pytest.mark.slow
def test_dqn_learns_to_walk_to_the_right():
    """A corridor of four states: RIGHT from the last one ends it with reward 1."""

    class Corridor:
        observation_space, action_space = Box(np.zeros(4), np.ones(4)), Ids(2)

        def reset(self, seed=None, options=None):
            self.place, self.t = 0, 0
            return np.eye(4, dtype=np.float32)[0], {}

        def step(self, action):
            self.t += 1
            won = self.place == 3 and action == 1
            self.place = min(3, self.place + 1) if action else max(0, self.place - 1)
            return np.eye(4, dtype=np.float32)[self.place], float(won), won, self.t == 20, {}

    algo = DQN(
        learning_rate=3e-3, gamma=0.9, target_update_interval=50, encoder_factory=SMALL, random_state=0, batch_size=32
    )
    explorer = LinearDecayEpsilonGreedy(duration=1000)
    algo.fit_online(Corridor(), None, explorer, n_steps=3000, eval_env=Corridor(), n_steps_per_epoch=1000, **QUIET)
    assert algo.eval_results_["evaluation"][-1] == 1.0
    values = [algo.predict_value(np.eye(4, dtype=np.float32), [a] * 4) for a in (0, 1)]
    assert values[1] == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0], abs=0.1)
    assert (algo.predict(np.eye(4, dtype=np.float32)) == 1).all()
