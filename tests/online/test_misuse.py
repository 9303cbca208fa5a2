"""What users get wrong about acting, and environments that behave badly: errors that say so, and nothing lost."""

import copy

import gymnasium
import numpy as np
import pytest
import torch

from d3rlpy.algos import RLPD
from d3rlpy.dataset import MDPDataset
from d3rlpy.online.buffers import ReplayBuffer
from d3rlpy.online.explorers import ConstantEpsilonGreedy, NormalNoise
from tests.online.helpers import QUIET, SMALL, Box, Counter, Walk, small_dqn, small_sac

GREEDY = ConstantEpsilonGreedy(0.0)
SPACES = {"observation_space": gymnasium.spaces.Box(-9.0, 9.0, (2,)), "action_space": gymnasium.spaces.Discrete(2)}


class Game(gymnasium.Env):
    """Counts steps; episodes of five. Its number is part of what is seen."""

    def __init__(self, number=0, bad_reward_at=None):
        self.number, self.bad_reward_at, self.n_steps, self.t = number, bad_reward_at, 0, 0
        self.observation_space, self.action_space = SPACES["observation_space"], SPACES["action_space"]

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observation(), {}

    def observation(self):
        return np.array([self.number, self.t], np.float32)

    def step(self, action):
        self.n_steps += 1
        self.t += 1
        reward = 1e39 if self.n_steps == self.bad_reward_at else 1.0
        return self.observation(), reward, self.t == 5, False, {}


def vector(*envs):
    return gymnasium.vector.SyncVectorEnv([lambda env=env: env for env in envs])


class TestVectors:
    def test_the_default_buffer_has_room_for_the_steps_of_all(self, monkeypatch):
        made, original = [], ReplayBuffer.__init__

        def spy(self, maxlen, *args, **kwargs):
            made.append(maxlen)
            original(self, maxlen, *args, **kwargs)

        monkeypatch.setattr(ReplayBuffer, "__init__", spy)
        envs = vector(*(Game(k) for k in range(4)))
        small_dqn().fit_batch_online(
            envs, explorer=GREEDY, n_epochs=2, n_steps_per_epoch=30, n_updates_per_epoch=1, **QUIET
        )
        assert made == [240]

    @pytest.mark.parametrize("method", ["fit_batch_online", "collect"])
    def test_a_reward_that_cannot_be_stored_costs_no_other_row(self, method):
        algo, envs = small_dqn(), vector(Game(0, bad_reward_at=8), Game(1), Game(2))
        buffer = ReplayBuffer(100, env=Game())
        arguments = QUIET if method == "fit_batch_online" else {"show_progress": False, "verbose": False}
        with pytest.raises(ValueError, match=r"SyncVectorEnv returned the reward 1e\+39 in step"):
            getattr(algo, method)(envs, buffer, GREEDY, **arguments)
        rows = [tuple(o) for episode in buffer.to_mdp_dataset().episodes for o in episode.observations]
        assert {n for n, _ in rows} == {0.0, 1.0, 2.0}
        steps = [sum(n == k for n, _ in rows) for k in range(3)]
        assert max(steps) - min(steps) <= 2  # the last rows of open episodes may wait for their successors
        if method == "collect":
            assert algo.collected_.n_steps > 0

    def test_what_a_failing_write_has_written_is_not_written_again(self):
        from d3rlpy.online.rollout import Lane

        buffer, lane = ReplayBuffer(10, env=Game()), Lane(1)
        good, bad = np.zeros(2, np.float32), np.zeros(3, np.float32)
        lane.begin(good)
        lane.rows = [(good, 0, 1.0, good), (bad, 0, 1.0, good), (good, 1, 2.0, good)]
        with pytest.raises(ValueError, match="observation has shape"):
            lane.write(buffer, terminal=False)
        assert len(lane.rows) == 1
        lane.write(buffer, terminal=False)
        assert buffer.n_rows == 2


class TestEnvironments:
    def test_an_environment_that_changes_its_action_changes_no_row(self):
        class Rude(Counter):
            def step(self, action):
                action *= 0
                return super().step(action)

        env = Rude(discrete=False)
        buffer = ReplayBuffer(100, env=env)
        small_sac().fit_online(env, buffer, n_steps=10, random_steps=10, **QUIET)
        assert (buffer.to_mdp_dataset().actions != 0).any()

    def test_evaluations_clip_as_training_does(self):
        env, eval_env = (Counter(discrete=False, low=-0.01, high=0.01) for _ in range(2))
        with pytest.warns(UserWarning, match="takes actions in"):
            small_sac().fit_online(env, n_steps=6, eval_env=eval_env, **QUIET)
        assert np.abs(eval_env.actions).max() <= np.float32(0.01)

    def test_evaluations_in_other_ranges_are_refused(self):
        env, eval_env = Counter(discrete=False), Counter(discrete=False, low=-9.0, high=9.0)
        with pytest.raises(ValueError, match=r"eval_env takes actions in \(\[-9.0, -9.0\], \[9.0, 9.0\]\), env in"):
            small_sac().fit_online(env, n_steps=6, eval_env=eval_env, **QUIET)

    @pytest.mark.parametrize("share", [
        lambda env: gymnasium.wrappers.RecordEpisodeStatistics(env), lambda env: env.unwrapped, lambda env: env
    ])  # fmt: skip
    def test_evaluations_in_the_same_environment_in_disguise(self, share):
        env = gymnasium.make("CartPole-v1")
        with pytest.raises(ValueError, match="eval_env is env"):
            small_dqn().fit_online(env, explorer=GREEDY, eval_env=share(env), n_steps=9, **QUIET)

    def test_evaluations_in_one_of_a_vector(self):
        envs = vector(Game(0), Game(1))
        with pytest.raises(ValueError, match="eval_env is env"):
            small_dqn().fit_batch_online(envs, explorer=GREEDY, eval_env=envs.envs[1], **QUIET)

    @pytest.mark.parametrize("value", [3, "CartPole-v1"])
    def test_an_evaluation_in_nothing_names_the_argument(self, value):
        with pytest.raises(TypeError, match="eval_env=.* can't be used"):
            small_dqn().fit_online(Counter(), explorer=GREEDY, eval_env=value, n_steps=9, **QUIET)

    def test_rewards_of_evaluations_must_be_finite(self):
        class Broken(Counter):
            def step(self, action):
                observation, _, *rest = super().step(action)
                return observation, np.nan, *rest

        with pytest.raises(ValueError, match="Broken returned the reward nan in an evaluation"):
            small_dqn().fit_online(Counter(), explorer=GREEDY, eval_env=Broken(), n_steps=9, **QUIET)

    def test_a_policy_that_has_diverged_is_not_blamed_on_the_environment(self):
        algo = small_sac().build_with_env(Counter(discrete=False))
        with torch.no_grad():
            for p in algo.impl.policy.parameters():
                p.fill_(float("nan"))
        with pytest.raises(ValueError, match="the policy of SAC chose .*nan.* in step 1: training has diverged"):
            algo.fit_online(Counter(discrete=False), n_steps=9, **QUIET)


class Returns:
    """An explorer that returns what it was given."""

    def __init__(self, value):
        self.value = value

    def sample(self, algo, x, step):
        return self.value


class TestExplorers:
    @pytest.mark.parametrize(("value", "text"), [
        (np.array([0.3, 0.4]), r"float64 of shape \(2,\) in step 1, .* numbers of shape \(1, 2\)"),
        (np.array([[0.3]]), r"shape \(1, 1\)"),
        (None, r"object of shape \(\)"),
        (np.array([[0.3, np.nan]]), "actions must be finite"),
    ])  # fmt: skip
    def test_vectors(self, value, text):
        env = Counter(discrete=False)
        with pytest.raises(ValueError, match=f"Returns.sample returned .*{text}"):
            small_sac().fit_online(env, explorer=Returns(value), n_steps=9, **QUIET)
        assert env.actions == []

    @pytest.mark.parametrize(("value", "text"), [
        (1, r"int64 of shape \(\)"),
        (np.array([0, 1]), r"shape \(2,\)"),
        (np.array([0.7]), "float64"),
        (np.array([True]), "bool"),
        (np.array([5]), "ids are from 0 to 1"),
    ])  # fmt: skip
    def test_ids(self, value, text):
        env = Counter()
        with pytest.raises(ValueError, match=f"Returns.sample returned .*{text}"):
            small_dqn().fit_online(env, explorer=Returns(value), n_steps=9, **QUIET)
        assert env.actions == []

    def test_a_class_is_not_an_explorer(self):
        with pytest.raises(TypeError, match=r"explorer=NormalNoise is a class: pass an object, NormalNoise\(...\)"):
            small_sac().fit_online(Counter(discrete=False), explorer=NormalNoise, n_steps=9, **QUIET)


class TestBuffers:
    @pytest.mark.parametrize("buffer", [1000, GREEDY, MDPDataset(np.zeros((3, 2)), [0, 1, 0], [0, 0, 0], [0, 0, 1])])
    def test_something_else(self, buffer):
        for method in ("fit_online", "collect"):
            with pytest.raises(TypeError, match="buffer must be a ReplayBuffer, got"):
                getattr(small_dqn(), method)(Counter(), buffer, n_steps=5, verbose=False)

    @pytest.mark.parametrize(("shape", "size", "discrete", "text"), [
        ((3,), 2, True, r"the buffer holds observations \(3,\) and discrete actions, the environment has \(2,\)"),
        ((2,), 2, False, "continuous actions, the environment has .* discrete ones"),
        ((2,), 1, True, "the buffer has action_size=1, the environment 2"),
    ])  # fmt: skip
    def test_rows_of_another_kind(self, shape, size, discrete, text):
        env = Counter()
        buffer = ReplayBuffer(9, observation_shape=shape, action_size=size, discrete_action=discrete)
        with pytest.raises(ValueError, match=text):
            small_dqn().fit_online(env, buffer, GREEDY, n_steps=5, **QUIET)
        assert env.seeds == []

    def test_ids_that_the_networks_do_not_have(self):
        buffer = ReplayBuffer(9, observation_shape=(2,), action_size=5, discrete_action=True)
        buffer.append(np.zeros(2), 4, 0.0, True)
        with pytest.raises(ValueError, match="the buffer holds the action 4, but DQN was built for action_size=2"):
            small_dqn().fit_online(Counter(), buffer, GREEDY, n_steps=5, **QUIET)

    @pytest.mark.parametrize(("given", "text"), [
        ({"discrete_action": "continuous"}, "discrete_action='continuous' of ReplayBuffer must be True or False"),
        ({"observation_shape": [2.7]}, r"observation_shape=\[2.7\] must be a sequence of whole numbers"),
        ({"observation_shape": 2}, "observation_shape=2 must be a sequence of whole numbers"),
        ({"env": vector(Game())}, "env is a SyncVectorEnv: pass one of its environments"),
    ])  # fmt: skip
    def test_what_a_buffer_is_made_of(self, given, text):
        usual = {} if "env" in given else {"observation_shape": (2,), "action_size": 2, "discrete_action": True}
        with pytest.raises((TypeError, ValueError), match=text):
            ReplayBuffer(9, **{**usual, **given})

    @pytest.mark.parametrize("pass_it", [
        lambda algo, buffer: algo.fit(buffer, n_steps=1, **QUIET),
        lambda algo, buffer: algo.fit_online(Counter(), explorer=GREEDY, offline_dataset=buffer, n_steps=9, **QUIET),
    ])  # fmt: skip
    def test_a_buffer_in_place_of_data_says_how(self, pass_it):
        with pytest.raises(TypeError, match=r"got ReplayBuffer: pass its to_mdp_dataset\(\)"):
            pass_it(small_dqn(), ReplayBuffer(9, env=Counter()))


class TestArguments:
    def test_a_run_without_updates_says_why(self):
        with pytest.warns(UserWarning, match="no update was made in 9 steps: .* update_start_step=50, .* 4 trans"):
            small_dqn().fit_online(Counter(), explorer=GREEDY, n_steps=9, update_start_step=50, **QUIET)

    @pytest.mark.parametrize(("given", "error", "text"), [
        ({"offline_ratio": 0.3}, ValueError, "offline_ratio=0.3 needs offline_dataset"),
        ({"eval_epsilon": 0.3}, ValueError, "eval_epsilon=0.3 needs eval_env"),
        ({"eval_env": Counter(), "eval_epsilon": "a"}, ValueError, "epsilon must be a number"),
        ({"timelimit_aware": "nope"}, TypeError, "timelimit_aware='nope' of fit_online must be True or False"),
        ({"eval_interval": 0}, ValueError, "eval_interval=0 of fit_online"),
    ])  # fmt: skip
    def test_nothing_is_accepted_and_ignored(self, given, error, text):
        with pytest.raises(error, match=text):
            small_dqn().fit_online(Counter(), explorer=GREEDY, n_steps=9, **QUIET, **given)

    def test_a_share_that_is_rounded_away(self):
        data = MDPDataset(np.zeros((3, 2)), [0, 1, 0], [0, 0, 0], [0, 0, 1])
        with pytest.warns(UserWarning, match="offline_ratio=0.01 of batch_size=4 is rounded to 0 transitions"):
            small_dqn().fit_online(
                Counter(), explorer=GREEDY, n_steps=9, offline_dataset=data, offline_ratio=0.01, **QUIET
            )

    def test_greedy_collecting_is_asked_for_with_a_flag(self):
        with pytest.raises(TypeError, match="deterministic='no' of collect must be True or False"):
            small_dqn().collect(Counter(), deterministic="no", n_steps=3)

    def test_hyper_parameters_come_first(self):
        encoders = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}
        with pytest.raises(ValueError, match="n_gradient_steps=0"):
            RLPD(n_gradient_steps=0, **encoders).fit_online(Counter(discrete=False), n_steps=9, **QUIET)

    def test_ranges_of_several_kinds_are_all_shown(self):
        env = Counter(discrete=False)
        env.action_space = Box([-1.0, 0.0], [1.0, 1.0])
        with pytest.warns(UserWarning, match=r"takes actions in \[-1, 1\] and \[0, 1\]"):
            small_sac().fit_online(env, n_steps=6, **QUIET)


class TestResuming:
    def stopped(self, algo, env, buffer, explorer=GREEDY, **kwargs):
        with pytest.raises(KeyboardInterrupt):
            algo.fit_online(env, buffer, explorer, n_steps=40, **kwargs, **QUIET)
        return algo.online_state_

    def test_an_interrupt_between_two_episodes_leaves_no_made_up_step(self):
        class Slow(Counter):
            def reset(self, seed=None, options=None):
                if self.episode == 3 and not getattr(self, "asked", False):
                    self.asked = True
                    raise KeyboardInterrupt
                return super().reset(seed, options)

        env, algo = Slow(), small_dqn()
        buffer = ReplayBuffer(100, env=env)
        state = self.stopped(algo, env, buffer)
        assert state["steps"] == buffer.n_rows == 20
        algo.fit_online(env, buffer, GREEDY, n_steps=40, resume=state, **QUIET)
        seen = [tuple(o) for episode in buffer.to_mdp_dataset().episodes for o in episode.observations]
        assert seen == [(float(e), float(t)) for e in range(8) for t in range(5)]

    def test_an_interrupt_in_the_middle_of_a_step_begins_a_fresh_episode(self):
        class Slow(Counter):
            def step(self, action):
                result = super().step(action)
                if len(self.actions) == 13:
                    raise KeyboardInterrupt
                return result

        env, algo = Slow(), small_dqn()
        buffer = ReplayBuffer(100, env=env)
        state = self.stopped(algo, env, buffer)
        assert state["steps"] == buffer.n_rows == 12
        algo.fit_online(env, buffer, GREEDY, n_steps=40, resume=state, **QUIET)
        seen = [[tuple(o) for o in episode.observations] for episode in buffer.to_mdp_dataset().episodes]
        assert seen[2] == [(2.0, 0.0), (2.0, 1.0)]
        assert seen[3][0] == (3.0, 0.0)
        assert buffer.n_rows == 40

    @pytest.mark.parametrize("state", [{}, 3, {"a": 1}])
    def test_what_is_no_state(self, state):
        with pytest.raises(ValueError, match="resume is .* must be the online_state_ of a fit_online"):
            small_dqn().fit_online(Counter(), explorer=GREEDY, n_steps=9, resume=state, **QUIET)

    @pytest.mark.parametrize(("change", "text"), [
        ({"buffer": None}, "resume: rows was .*pass the buffer that was dumped"),
        ({"algo": small_dqn}, "resume: updates was .*load the model"),
        ({"explorer": None}, "resume: explorer was ConstantEpsilonGreedy, here it is None"),
        ({"random_steps": 3}, "resume: schedule was .*pass the same arguments"),
        ({"update_interval": 2}, "resume: schedule was .*pass the same arguments"),
        ({"offline_ratio": 0.5, "offline_dataset": True}, r"shares was \[0, 4\], here it is \[2, 2\].*offline_ratio"),
    ])  # fmt: skip
    @pytest.mark.filterwarnings("ignore:DQN acts greedily")
    def test_another_run_cannot_be_resumed(self, change, text):
        def stop(algo, epoch, step):
            if step == 12:
                raise KeyboardInterrupt

        env, algo = Walk(discrete=True), small_dqn()
        buffer = ReplayBuffer(100, env=env)
        state = self.stopped(algo, env, buffer, callback=stop)
        given = {"buffer": buffer, "explorer": GREEDY, **change}
        algo = given.pop("algo", lambda: algo)()
        if "offline_dataset" in given:
            given["offline_dataset"] = MDPDataset(np.zeros((3, 2)), [0, 1, 0], [0, 0, 0], [0, 0, 1])
        with pytest.raises(ValueError, match=text):
            algo.fit_online(copy.deepcopy(env), n_steps=40, resume=state, **given, **QUIET)
