"""ChannelFirst, ActionRepeat, and what converts environments of other packages."""

import importlib

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from d3rlpy.algos import DQN, DiscreteRandomPolicy
from d3rlpy.dataset import gather, rows_of
from d3rlpy.envs import ActionRepeat, ChannelFirst, EnvAdapter, FrameStack
from d3rlpy.envs.conversion import Converted, to_gymnasium
from d3rlpy.metrics import evaluate_on_environment
from d3rlpy.models.encoders import PixelEncoderFactory
from d3rlpy.online import ReplayBuffer
from tests.envs.cameras import BreaksAt, Camera, OldCamera, picture
from tests.online.helpers import QUIET, Counter, small_dqn

SILENT = {"show_progress": False, "verbose": False}
PIXELS = PixelEncoderFactory(filters=((4, 8, 8),), feature_size=8)


class Shows(Camera):
    """Any observation, of any declared space."""

    def __init__(self, space, observation=None):
        super().__init__()
        self.observation_space, self.given = space, observation

    def reset(self, *, seed=None, options=None):
        return self.given, {}


class TestChannelFirst:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_axes_of_images_and_of_the_space(self, channels):
        image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
        low = np.broadcast_to(np.arange(channels, dtype=np.uint8), (5, 7, channels))
        env = ChannelFirst(Shows(Box(low, low + 200, dtype=np.uint8), image))
        seen = env.reset()[0]
        assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == ((channels, 5, 7), np.uint8, True)
        assert all((seen[c] == image[:, :, c]).all() for c in range(channels))
        space = env.observation_space
        assert (space.shape, space.dtype) == (seen.shape, np.uint8)
        assert space.low[:, 2, 3].tolist() == list(range(channels))
        assert space.high[:, 2, 3].tolist() == list(range(200, 200 + channels))

    def test_an_image_without_channels_gets_one(self):
        env = ChannelFirst(Camera(shape=(16, 18)))
        assert env.observation_space == Box(0, 255, (1, 16, 18), np.uint8)
        env.reset()
        assert (env.step(0)[0] == 1).all()
        assert env.step(0)[0].shape == (1, 16, 18)

    @pytest.mark.parametrize("make", [Camera, OldCamera])
    def test_what_is_collected_are_the_environments_images(self, make):
        data = DQN(encoder_factory=PIXELS).collect(ChannelFirst(make(length=3)), n_steps=7, **SILENT).to_mdp_dataset()
        assert data.get_observation_shape() == (3, 16, 18)
        expected = [
            picture(episode, t, (16, 18, 3))
            for episode, t in zip([0, 0, 0, 1, 1, 1, 2], [0, 1, 2, 0, 1, 2, 0], strict=True)
        ]
        assert (data.observations == np.stack(expected).transpose(0, 3, 1, 2)).all()

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (Box(0, 1, (8, 8, 3)), r"uint8 images \(H, W\) or \(H, W, C\), but observation_space is Box.*float32"),
            (Box(0, 255, (8,), np.uint8), r"but observation_space is .*\(8,\)"),
            (Box(0, 255, (2, 8, 8, 3), np.uint8), r"but observation_space is .*\(2, 8, 8, 3\)"),
            (Dict({"x": Box(0, 255, (8, 8), np.uint8)}), r"but observation_space is Dict.*TransformObservation"),
            (Discrete(5), r"but observation_space is Discrete\(5\)"),
            (Box(0, 255, (3, 8, 9), np.uint8), r"shape \(3, 8, 9\) have their channels first already: leave the wrap"),
        ],
    )
    def test_other_observations_are_an_error(self, space, message):
        with pytest.raises(ValueError, match=message):
            ChannelFirst(Shows(space))

    def test_it_is_one_of_gymnasiums_wrappers(self):
        vector = gymnasium.vector.SyncVectorEnv([lambda: ChannelFirst(Camera())] * 2)
        assert vector.reset()[0].shape == (2, 3, 16, 18)
        assert isinstance(gymnasium.wrappers.TimeLimit(ChannelFirst(Camera()), 3), gymnasium.Env)


class TestActionRepeat:
    def run(self, env, n_actions=10):
        env.reset()
        rows = []
        for _ in range(n_actions):
            observation, reward, terminated, truncated, info = env.step(1)
            rows.append((int(observation[0, 0, 0]), reward, terminated, truncated, info["t"]))
            if terminated or truncated:
                break
        return rows

    def test_rewards_are_summed_and_the_last_observation_is_given(self):
        env = Camera(length=6)
        assert self.run(ActionRepeat(env, 3)) == [(3, 6.0, False, False, 3), (6, 15.0, True, False, 6)]
        assert env.actions == [1] * 6

    @pytest.mark.parametrize("limit", [False, True])
    def test_it_stops_where_the_episode_ends(self, limit):
        env = Camera(length=5, limit=limit)
        assert self.run(ActionRepeat(env, 4)) == [(4, 10.0, False, False, 4), (5, 5.0, not limit, limit, 5)]
        assert len(env.actions) == 5

    def test_once_changes_nothing(self):
        assert self.run(ActionRepeat(Camera(), 1)) == self.run(Camera())

    def test_a_time_limit_inside_counts_steps_and_one_outside_counts_actions(self):
        limit = gymnasium.wrappers.TimeLimit
        inside, outside = ActionRepeat(limit(Camera(50), 6), 3), limit(ActionRepeat(Camera(50), 3), 6)
        assert len(self.run(inside)) == 2
        assert len(self.run(outside)) == 6

    def test_rewards_may_be_arrays_of_one_number(self):
        class Arrays(Camera):
            def step(self, action):
                observation, reward, *rest = super().step(action)
                return observation, np.array([[reward]], np.float32), *rest

        rewards = [row[1] for row in self.run(ActionRepeat(Arrays(), 2))]
        assert [(type(reward), reward) for reward in rewards] == [(float, 3.0), (float, 7.0), (float, 5.0)]

    @pytest.mark.parametrize("n", [0, -1, 2.5, True, None])
    def test_another_number_is_an_error(self, n):
        with pytest.raises(ValueError, match=f"n must be a whole number of at least 1, got {n}"):
            ActionRepeat(Camera(), n)

    def test_the_older_interface(self):
        data = small_dqn().collect(ActionRepeat(OldCounter(), 2), n_steps=6, **SILENT).to_mdp_dataset()
        assert data.rewards.tolist() == [3, 7, 5, 3, 7, 5]
        assert [len(episode) for episode in data.episodes] == [3, 3]
        assert not data.terminals.any()


class OldCounter(Counter):
    """The counter with the 4-tuple API, without seeds; a limit ends its episodes."""

    def __init__(self):
        super().__init__(limit=True)

    def reset(self):
        return super().reset()[0]

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated or truncated, {"TimeLimit.truncated": truncated}


class TestFrameStacks:
    """What the policy sees when it acts and when it is evaluated is what it learns from, to the pixel."""

    @pytest.mark.parametrize("limit", [False, True])
    def test_acting_evaluating_and_training_see_the_same(self, limit):
        def new_env():
            return ActionRepeat(ChannelFirst(Camera(length=7, limit=limit)), 2)

        class Spy:
            n_frames = 3

            def __init__(self):
                self.seen = []

            def sample(self, algo, x, step):
                self.seen.append(x[0].copy())
                return np.zeros(1, np.int64)

            def predict(self, x):
                return self.sample(None, x, 0)

        acting, evaluated = Spy(), Spy()
        algo = DQN(n_frames=3, encoder_factory=PIXELS)
        data = algo.collect(new_env(), None, acting, n_steps=12, **SILENT).to_mdp_dataset()
        evaluate_on_environment(new_env(), n_trials=3)(evaluated)
        trained_on = gather(*rows_of(data), n_frames=3)

        values = [[0, 0, 0], [0, 0, 2], [0, 2, 4], [2, 4, 6]]  # of the first channel in the first episode
        expected = np.array([[10 * episode + v for v in stack] for episode in range(3) for stack in values])
        assert (np.stack(acting.seen)[:, ::3, 0, 0] == expected).all()
        assert (np.stack(acting.seen) == trained_on.observations).all()
        assert (np.stack(evaluated.seen) == trained_on.observations).all()
        assert trained_on.observations.shape == (12, 9, 16, 18)

        inside = np.arange(12) % 4 != 3
        assert (trained_on.next_observations[inside] == np.stack(acting.seen)[1:][inside[:-1]]).all()
        if limit:  # behind a terminal, what is stacked counts for nothing
            assert trained_on.next_observations[3, ::3, 0, 0].tolist() == [4, 6, 7]

    def test_all_channels_of_a_frame_stay_together(self):
        env, frames = EnvAdapter(ChannelFirst(Camera())), FrameStack(2)
        frames.reset(env.reset()[0])
        assert frames.push(env.step(0)[0])[:, 0, 0].tolist() == [0, 80, 160, 1, 81, 161]


class TestConversion:
    def test_environments_of_gymnasium_stay_as_they_are(self):
        env = Camera()
        assert to_gymnasium(env) is env
        assert to_gymnasium(EnvAdapter(env)) is env

    def test_spaces(self):
        env = Converted(Counter(discrete=False, low=-2.0, high=3.0))
        assert env.observation_space == Box(-np.inf, np.inf, (2,), np.float32)
        assert env.action_space == Box(-2.0, 3.0, (2,), np.float32)
        assert Converted(OldCamera()).observation_space == Box(0, 255, (16, 18, 3), np.uint8)
        assert Converted(OldCamera()).action_space == Discrete(2)

    def test_numbers_become_float32_in_space_and_observation(self):
        class Doubles(Counter):
            def observation(self):
                return super().observation().astype(np.float64)

        env = Doubles()
        env.observation_space = Box(-1e3, 1e3, (2,), np.float64)
        converted = Converted(env)
        assert converted.observation_space == Box(-1e3, 1e3, (2,), np.float32)
        assert converted.reset()[0].dtype == np.float32

    def test_seeds_reach_the_environment_as_they_do_without_a_wrapper(self):
        bare, wrapped = OldCamera(), OldCamera()
        for env, given in ((bare, ChannelFirst(bare)), (wrapped, EnvAdapter(wrapped))):
            adapter = EnvAdapter(given)
            assert adapter.takes_seed
            adapter.reset(seed=5)
            adapter.reset()
            assert env.camera.seeds == [5, None, None]

    def test_an_environment_without_seeds_is_trained_in_and_refuses_a_seed(self):
        env = ActionRepeat(OldCounter(), 2)
        assert not EnvAdapter(env).takes_seed
        small_dqn().fit_online(env, n_steps=5, eval_env=ActionRepeat(OldCounter(), 2), random_steps=5, **QUIET)
        with pytest.raises(ValueError, match="seed=3: OldCounter takes no seed"):
            env.reset(seed=3)

    def test_options_are_an_error(self):
        with pytest.raises(ValueError, match="only environments of gymnasium take options"):
            ChannelFirst(OldCamera()).reset(options={"level": 2})

    def test_a_real_environment_of_gym_gives_gymnasiums_numbers(self):
        gym = importlib.import_module("gym")  # not at the top: it prints a notice
        old, new = (ActionRepeat(m.make("CartPole-v1"), 2) for m in (gym, gymnasium))
        assert old.reset(seed=1)[0] == pytest.approx(new.reset(seed=1)[0])
        for action in (0, 1, 1):
            ours, theirs = old.step(action), new.step(action)
            assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
            assert ours[1:4] == theirs[1:4] == (2.0, False, False)

    def test_closing_reaches_the_environment(self):
        env, closed = OldCamera(), []
        env.close = lambda: closed.append(True)
        ChannelFirst(env).close()
        assert closed == [True]

    def test_a_vector_is_an_error(self):
        with pytest.raises(ValueError, match="SyncVectorEnv holds several environments: wrap each of them"):
            ActionRepeat(gymnasium.vector.SyncVectorEnv([Camera] * 2), 2)

    def test_something_else_is_an_error(self):
        with pytest.raises(TypeError, match="str has no 'observation_space'"):
            ChannelFirst("CartPole-v1")

    def test_the_module_has_no_other_names(self):
        with pytest.raises(AttributeError, match="no attribute 'Atary'"):
            importlib.import_module("d3rlpy.envs").Atary  # noqa: B018


class TestBadInput:
    """Errors of an environment come through wrappers, and buffer and logs survive."""

    def numbers(self, at, **wrong):
        class Wrong(gymnasium.Env):
            observation_space, action_space = Box(-np.inf, np.inf, (2,), np.float32), Discrete(2)

            def reset(self, *, seed=None, options=None):
                self.t = 0
                return np.zeros(2, np.float32), {}

            def step(self, action):
                self.t += 1
                observation = np.full(2, self.t, np.float32)
                if self.t == at:
                    observation[1] = wrong.get("observation", 0)
                return observation, wrong.get("reward", 1.0) if self.t == at else 1.0, False, self.t == 20, {}

        return Wrong()

    @pytest.mark.parametrize("method", ["collect", "fit_online"])
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"observation": np.nan}, r"ActionRepeat returned an observation with nan at entry \[1\] in step 3"),
            ({"observation": np.inf}, r"ActionRepeat returned an observation with inf at entry \[1\] in step 3"),
            ({"reward": np.nan}, "ActionRepeat returned the reward nan in step 3"),
            ({"reward": -np.inf}, "ActionRepeat returned the reward -inf in step 3"),
        ],
    )
    def test_values_that_are_no_numbers(self, method, wrong, message):
        algo, buffer = small_dqn(), ReplayBuffer(50, env=self.numbers(0))
        env = ActionRepeat(self.numbers(6, **wrong), 2)
        options = SILENT if method == "collect" else {**QUIET, "random_steps": 99}
        with pytest.raises(ValueError, match=message):
            getattr(algo, method)(env, buffer, n_steps=20, **options)
        assert buffer.n_rows == 2

    def test_an_error_in_the_middle_leaves_buffer_and_logs(self, tmp_path):
        algo, buffer = small_dqn(), ReplayBuffer(50, env=self.numbers(0))
        env = ActionRepeat(BreaksAt(self.numbers(0), 15), 2)
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            algo.fit_online(
                env, buffer, n_steps=50, n_steps_per_epoch=5, random_steps=99, logdir=tmp_path,
                **{**QUIET, "save_metrics": True},
            )  # fmt: skip
        assert buffer.n_rows == 7  # the action in whose second step it happened gave no row
        assert (algo.logdir_ / "loss.csv").read_text().count("\n") == 1
        algo.fit_online(self.numbers(0), buffer, n_steps=3, random_steps=3, **QUIET)

    def test_an_error_in_the_middle_of_an_evaluation_comes_through(self):
        algo = small_dqn().create_impl((2,), 2)
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            evaluate_on_environment(ActionRepeat(BreaksAt(self.numbers(0), 15), 2), n_trials=2)(algo)

    @pytest.mark.parametrize("wrap", [lambda env: ActionRepeat(env, 2), lambda env: env])
    def test_dictionaries_of_observations(self, wrap):
        env = Shows(Dict({"x": Box(-1, 1, (2,))}))
        with pytest.raises(ValueError, match="FlattenObservation"):
            DiscreteRandomPolicy().collect(wrap(env), n_steps=3, **SILENT)

    def test_dictionaries_can_be_flattened_outside(self):
        env = ActionRepeat(Shows(Dict({"x": Box(-99, 99, (2,))}), {"x": np.ones(2)}), 2)
        flat = gymnasium.wrappers.FlattenObservation(env)
        assert flat.reset()[0].tolist() == [1, 1]

    def test_another_image_than_declared(self):
        env = ChannelFirst(Shows(Box(0, 255, (8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)))
        with pytest.raises(ValueError, match=r"shape \(3, 8, 9\), but its observation_space says \(3, 8, 8\)"):
            DiscreteRandomPolicy().collect(env, n_steps=3, **SILENT)
