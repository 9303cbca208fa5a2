"""Atari: lives on a game whose script is known, the rest on the real emulator, where it is installed."""

import importlib.util
import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from d3rlpy.algos import DQN
from d3rlpy.dataset import gather, rows_of
from d3rlpy.envs import Atari, FrameStack
from d3rlpy.envs.atari import LifeEpisodes
from d3rlpy.metrics import evaluate_on_environment
from d3rlpy.models.encoders import PixelEncoderFactory
from tests.envs.cameras import Camera, OldCamera

HAS_OPENCV = importlib.util.find_spec("cv2") is not None
needs_opencv = pytest.mark.skipif(not HAS_OPENCV, reason="needs the extra 'atari'")
needs_atari = pytest.mark.skipif(
    not HAS_OPENCV or importlib.util.find_spec("ale_py") is None, reason="needs the extra 'atari'"
)
PIXELS = PixelEncoderFactory(filters=((2, 8, 8),), feature_size=4)
SILENT = {"show_progress": False, "verbose": False}


class Game(gymnasium.Env):
    """As much of an Atari game as gymnasium's preprocessing looks at. A frame is as bright as the game is old.

    ``lives[t]`` is left after frame t; the game is over with its last frame, each of which gives ``reward``.
    """

    _frameskip = 1

    def __init__(self, lives, reward=0.0, truncates=False, no_ops=False):
        self.lives, self.reward, self.truncates, self.no_ops = lives, reward, truncates, no_ops
        self.observation_space = gymnasium.spaces.Box(0, 255, (210, 160, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.games, self.t, self.actions = 0, 0, []
        self.ale = SimpleNamespace(lives=lambda: self.lives[self.t], getScreenGrayscale=self.show)

    def show(self, into):
        into[:] = self.t

    def get_action_meanings(self):
        return ["NOOP", "FIRE"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.games, self.t = self.games + 1, 0
        return self.observe(), {}

    def observe(self):
        return np.full((210, 160, 3), self.t, np.uint8)

    def step(self, action):
        self.actions.append(action)
        self.t += 1
        over = self.t == len(self.lives) - 1
        return self.observe(), self.reward, over and not self.truncates, over and self.truncates, {}


def play(env, n_steps):
    """Brightness of the first observation, then ``(brightness, terminated, truncated)``, resets where it ends."""
    seen = [int(env.reset()[0].max())]
    for _ in range(n_steps):
        observation, _, terminated, truncated, _ = env.step(1)
        seen.append((int(observation.max()), terminated, truncated))
        if terminated or truncated:
            seen.append(int(env.reset()[0].max()))
    return seen


class TestLives:
    def test_a_lost_life_is_a_terminal_and_the_game_goes_on(self):
        game = Game([3, 3, 2, 2, 1, 1])
        seen = play(LifeEpisodes(game), 7)
        yes, no = (True, False), (False, False)
        first = [0, (1, *no), (2, *yes), 2, (3, *no), (4, *yes), 4, (5, *yes)]
        assert seen == [*first, 0, (1, *no), (2, *yes), 2]
        assert game.games == 2
        assert len(game.actions) == 7  # a reset executes nothing

    def test_frames_without_a_life_before_the_end_are_no_episode(self):
        seen = play(LifeEpisodes(Game([2, 1, 0, 0, 0])), 4)
        assert seen == [0, (1, True, False), 1, (2, False, False), (3, False, False), (4, True, False), 0]

    def test_an_extra_life_is_no_loss(self):
        assert play(LifeEpisodes(Game([1, 2, 2, 1, 1])), 3)[1:-1] == [
            (1, False, False),
            (2, False, False),
            (3, True, False),
        ]

    def test_a_game_without_lives_has_no_losses(self):
        assert [x[1] for x in play(LifeEpisodes(Game([0, 0, 0, 0])), 3)[1:-1]] == [False, False, True]

    def test_a_limit_ends_the_game_also_where_a_life_is_lost(self):
        game = Game([2, 2, 1], truncates=True)
        assert play(LifeEpisodes(game), 2) == [0, (1, False, False), (2, True, True), 0]
        assert game.games == 2

    @pytest.mark.parametrize("how", [{"seed": 1}, {"options": {"level": 2}}])
    def test_a_reset_with_a_seed_or_options_begins_a_new_game(self, how):
        env = LifeEpisodes(Game([2, 1, 1, 1]))
        env.reset()
        assert env.step(0)[2]
        assert env.reset(**how)[0].max() == 0
        assert env.step(0)[2]  # lives are those of the new game

    def test_a_reset_inside_a_life_begins_a_new_game(self):
        env = LifeEpisodes(Game([2, 1, 1, 1, 1]))
        env.reset()
        env.step(0)
        env.reset()
        env.step(0)
        assert env.reset()[0].max() == 0

    def test_a_reset_goes_on_only_once(self):
        env = LifeEpisodes(Game([2, 1, 1, 1, 1]))
        env.reset()
        env.step(0)
        assert [int(env.reset()[0].max()) for _ in range(2)] == [1, 0]


@needs_opencv
class TestScript:
    """The whole chain on the scripted game. The no-ops at its start are gymnasium's."""

    LIVES = [2] * 60 + [1] * 40

    def first_age(self, env):
        return int(env.reset(seed=0)[0].max())

    def test_in_training_rewards_are_clipped_and_lives_are_episodes(self):
        game = Game(self.LIVES, reward=0.7)
        env = Atari(game)
        assert 1 <= self.first_age(env) <= 30
        terminated = False
        while not terminated:
            observation, reward, terminated, _, _ = env.step(1)
            assert reward == 1.0  # 4 times 0.7
        assert 60 <= game.t < 64
        assert (env.reset()[0] == observation).all()
        assert env.step(1)[2:4] == (False, False)
        assert game.games == 1

    def test_small_rewards_stay(self):
        env = Atari(Game(self.LIVES, reward=-0.2))
        self.first_age(env)
        assert env.step(0)[1] == pytest.approx(-0.8)

    def test_in_evaluation_rewards_are_the_games_and_only_its_end_is_one(self):
        game = Game(self.LIVES, reward=0.7)
        env = Atari(game, is_eval=True)
        age, total, over = self.first_age(env), 0.0, False
        while not over:
            _, reward, over, _, _ = env.step(1)
            total += reward
        assert game.t == 99
        assert total == pytest.approx(0.7 * (99 - age))

    def test_stacks_begin_anew_with_each_life_and_equal_those_of_mini_batches(self):
        class Spy:
            def __init__(self):
                self.seen = []

            def sample(self, algo, x, step):
                self.seen.append(x[0].copy())
                return np.ones(1, np.int64)

        spy = Spy()
        algo = DQN(n_frames=4, encoder_factory=PIXELS, random_state=0)
        data = algo.collect(Atari(Game(self.LIVES)), None, spy, n_steps=50, **SILENT).to_mdp_dataset()
        batch = gather(*rows_of(data), n_frames=4)
        assert (batch.observations == np.stack(spy.seen)).all()
        starts = np.flatnonzero(data.terminals)[:-1] + 1
        assert len(starts) >= 3
        assert (batch.observations[starts] == batch.observations[starts][:, -1:]).all()
        lives = {bool(stack[-1, 0, 0] >= 60) for stack in batch.observations[starts]}
        assert lives == {True, False}  # in a first life, and in a second one


@needs_atari
class TestEmulator:
    def test_observations_are_those_of_gymnasiums_preprocessing(self):
        gymnasium.register_envs(importlib.import_module("ale_py"))
        theirs = gymnasium.wrappers.AtariPreprocessing(gymnasium.make("ALE/Pong-v5", frameskip=1))
        ours, evaluation = Atari("ALE/Pong-v5"), Atari("ALE/Pong-v5", is_eval=True)
        envs = (theirs, ours, evaluation)
        for env in envs:
            assert env.reset(seed=7)[0].dtype == np.uint8
        assert ours.observation_space == gymnasium.spaces.Box(0, 255, (1, 84, 84), np.uint8)
        actions = np.random.default_rng(0).integers(6, size=40)
        for action in actions:
            steps = [env.step(int(action)) for env in envs]
            for step in steps[1:]:
                assert (step[0] == steps[0][0][None]).all()
                assert step[1:4] == steps[0][1:4]
        assert len(np.unique(steps[0][0])) > 3  # something is to be seen

    def test_breakout_goes_on_after_a_lost_life(self):
        frames = {}
        for is_eval in (False, True):
            env = Atari("ALE/Breakout-v5", is_eval)
            assert env.reset(seed=3)[1]["lives"] == 5
            for _ in range(200):
                observation, _, terminated, _, info = env.step(1)
                if info["lives"] == 4:
                    break
            assert (info["lives"], terminated) == (4, not is_eval)
            frames[is_eval] = info["episode_frame_number"]
            again, after = env.reset()
            assert ((again == observation).all(), after["lives"]) == ((True, 4) if not is_eval else (False, 5))
        assert frames[False] == frames[True]

    def test_it_is_collected_and_evaluated(self):
        algo = DQN(n_frames=4, encoder_factory=PIXELS, random_state=0)
        data = algo.collect(Atari("ALE/Pong-v5"), n_steps=6, **SILENT).to_mdp_dataset()
        assert data.get_observation_shape() == (1, 84, 84)
        assert data.get_action_size() == 6
        game = gymnasium.wrappers.TimeLimit(Atari("ALE/Pong-v5", is_eval=True), 5)
        assert evaluate_on_environment(game, n_trials=1, seed=0)(algo) == 0.0

    def test_frames_are_not_skipped_twice(self):
        importlib.import_module("ale_py")
        with pytest.raises(
            ValueError, match=r"skips frames itself \(frameskip=4\).*make\('ALE/Pong-v5', frameskip=1\)"
        ):
            Atari(gymnasium.make("ALE/Pong-v5"))
        for name in ("PongNoFrameskip-v4", "ALE/Pong-v5"):  # one shows each frame anyway
            assert Atari(name).unwrapped._frameskip == 1

    def test_an_unknown_game_is_gymnasiums_error(self):
        with pytest.raises(gymnasium.error.NameNotFound, match="Did you mean: `Pong`"):
            Atari("ALE/Ponng-v5")


class TestErrors:
    @pytest.mark.parametrize(("module", "package"), [("cv2", "opencv-python-headless"), ("ale_py", "ale-py")])
    def test_a_missing_package_is_named(self, monkeypatch, module, package):
        monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())
        monkeypatch.setitem(sys.modules, module, None)
        message = rf"Atari needs {package}: pip install {package}, or install this library with its extra \[atari\]"
        with pytest.raises(ModuleNotFoundError, match=message):
            Atari("ALE/Pong-v5")

    def test_what_a_package_itself_lacks_is_its_own_error(self, monkeypatch, tmp_path):
        (tmp_path / "cv2.py").write_text("import not_there_at_all\n")
        monkeypatch.delitem(sys.modules, "cv2", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="No module named 'not_there_at_all'"):
            Atari("ALE/Pong-v5")

    @needs_opencv
    @pytest.mark.parametrize("make", [Camera, OldCamera])
    def test_something_that_is_no_game(self, make):
        with pytest.raises(ValueError, match="is no Atari game of gymnasium: pass an id such as"):
            Atari(make())

    @needs_atari
    def test_an_id_that_is_no_game(self):
        with pytest.raises(ValueError, match="'CartPole-v1' is no Atari game: pass an id such as 'ALE/Pong-v5'"):
            Atari("CartPole-v1")

    @needs_opencv
    def test_an_environment_that_does_not_tell_its_frame_skip(self):
        game = Game([1, 1])
        game._frameskip = (2, 5)
        with pytest.raises(ValueError, match=r"frameskip=\(2, 5\).*gymnasium.make\('ALE/...', frameskip=1\)"):
            Atari(game)


def test_stacks_of_one_life_do_not_reach_into_the_next():
    env, frames = LifeEpisodes(Game([2, 2, 1, 1, 1])), FrameStack(3)
    frames.reset(env.reset()[0].transpose(2, 0, 1))
    for _ in range(2):
        frames.push(env.step(0)[0].transpose(2, 0, 1))
    assert frames.reset(env.reset()[0].transpose(2, 0, 1))[::3, 0, 0].tolist() == [2, 2, 2]
