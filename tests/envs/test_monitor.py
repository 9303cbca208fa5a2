"""Monitor: what is in the files, when they appear, and what happens when something breaks."""

import copy
import gc
import importlib
import json
import pickle
import subprocess
import sys
import tracemalloc

import gymnasium
import numpy as np
import pytest

from d3rlpy.algos import DQN, DiscreteRandomPolicy
from d3rlpy.envs import ActionRepeat, ChannelFirst, Monitor
from d3rlpy.metrics import evaluate_on_environment
from d3rlpy.models.encoders import PixelEncoderFactory
from d3rlpy.online import ReplayBuffer
from tests.envs.cameras import BreaksAt, Camera, OldCamera
from tests.online.helpers import QUIET

av = pytest.importorskip("av", reason="needs the extra 'video'")

SILENT = {"show_progress": False, "verbose": False}
PIXELS = PixelEncoderFactory(filters=((2, 8, 8),), feature_size=4)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def frames_of(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def times_of(path):
    """Brightness of each frame as the step it shows."""
    return [round(float(frame.mean()) / 20) for frame in frames_of(path)]


def stats_of(folder, episode):
    return json.loads((folder / f"stats{episode}.json").read_text())


def play(env, n_steps, seed=None):
    env.reset(seed=seed)
    for _ in range(n_steps):
        step = env.step(0)
        if step[2] or step[3]:
            env.reset()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "videos"


class TestFiles:
    @pytest.mark.parametrize("format", ["mp4", "gif"])
    def test_each_episode_has_a_video_and_statistics(self, folder, format):
        env = Monitor(Camera(length=5), folder, format=format)
        play(env, 12)
        expected = [f"stats{i}.json" for i in (1, 2)] + [f"video{i}.{format}" for i in (1, 2)]
        assert [n for n in names(folder) if not n.startswith(".")] == expected  # the third is open
        env.close()
        assert names(folder) == [*expected[:2], "stats3.json", *expected[2:], f"video3.{format}"]
        assert [times_of(folder / f"video{i}.{format}") for i in (1, 2, 3)] == [[0, 1, 2, 3, 4, 5]] * 2 + [[0, 1, 2]]
        assert stats_of(folder, 2) == {"episode_step": 5, "return": 15.0, "finished": True}
        assert stats_of(folder, 3) == {"episode_step": 2, "return": 3.0, "finished": False}

    @pytest.mark.parametrize("limit", [False, True])
    def test_files_appear_when_the_episode_is_over(self, folder, limit):
        env = Monitor(Camera(length=2, limit=limit), folder)
        env.reset()
        env.step(0)
        assert [n for n in names(folder) if not n.startswith(".")] == []
        env.step(0)
        assert names(folder) == ["stats1.json", "video1.mp4"]

    @pytest.mark.parametrize("format", ["mp4", "gif"])
    @pytest.mark.parametrize("size", [(24, 32), (25, 33)])
    def test_pixels_stay_where_they_are(self, folder, format, size):
        class Colours(Camera):
            def render(self):
                image = np.zeros((*self.size, 3), np.uint8)
                image[:12, :, 0], image[12:, :, 1], image[:, 16:, 2] = 200, 100, 250 - 50 * self.t
                return image

        env = Monitor(Colours(length=3, size=size), folder, format=format)
        play(env, 3)
        frames = frames_of(folder / f"video1.{format}")
        even = (24, 32, 3) if size == (24, 32) else (26, 34, 3)
        assert {frame.shape for frame in frames} == {even if format == "mp4" else (*size, 3)}
        for t, frame in enumerate(frames):
            for row, column, colour in ((4, 6, (200, 0, 0)), (20, 6, (0, 100, 0)), (4, 26, (200, 0, 250 - 50 * t))):
                assert frame[row, column].tolist() == pytest.approx(colour, abs=12 if format == "mp4" else 1)

    @pytest.mark.parametrize("format", ["mp4", "gif"])
    def test_the_frame_rate_is_that_of_the_video(self, folder, format):
        play(Monitor(Camera(length=10), folder, format=format, frame_rate=12.5), 10)
        with av.open(str(folder / f"video1.{format}")) as video:
            shown = [frame.time for frame in video.decode(video=0)]
        assert np.diff(shown) == pytest.approx([0.08] * 10, abs=1e-3)

    def test_the_slowest_and_the_fastest_video(self, folder):
        for rate in (np.float32(0.01), 1000):
            play(Monitor(Camera(length=2), folder / str(rate), frame_rate=rate), 2)
            assert times_of(folder / str(rate) / "video1.mp4") == [0, 1, 2]

    def test_the_record_rate_leaves_steps_out(self, folder):
        env = Camera(length=8)
        play(Monitor(env, folder, record_rate=3), 8)
        assert times_of(folder / "video1.mp4") == [0, 3, 6]
        assert stats_of(folder, 1) == {"episode_step": 8, "return": 36.0, "finished": True}
        assert env.renders == 3 + 1  # and the beginning of the next

    def test_video_callable_chooses_episodes_counted_from_one(self, folder):
        asked, env = [], Camera(length=2)
        play(Monitor(env, folder, lambda episode: asked.append(episode) or episode % 2 == 0), 8)
        assert asked == [1, 2, 3, 4, 5]
        assert names(folder) == ["stats2.json", "stats4.json", "video2.mp4", "video4.mp4"]
        assert env.renders == 6  # nothing is rendered for the others

    def test_an_episode_without_a_step_has_no_file_and_no_number(self, folder):
        env = Monitor(Camera(length=2), folder)
        for _ in range(3):
            env.reset()
        assert names(folder) == []
        play(env, 2)
        env.close()
        assert names(folder) == ["stats1.json", "video1.mp4"]

    def test_a_reset_inside_an_episode_finishes_the_file(self, folder):
        env = Monitor(Camera(length=5), folder)
        play(env, 2)
        env.reset()
        assert times_of(folder / "video1.mp4") == [0, 1, 2]
        assert stats_of(folder, 1)["finished"] is False

    def test_steps_after_the_end_or_before_a_reset_are_not_recorded(self, folder):
        camera = Camera(length=2)
        camera.reset()
        env = Monitor(camera, folder)
        env.step(0)
        env.reset()
        for _ in range(4):
            env.step(0)
        env.close()
        assert times_of(folder / "video1.mp4") == [0, 1, 2]

    def test_frames_are_not_kept(self, folder):
        class Wide(Camera):
            def render(self):
                return np.random.default_rng(self.t).integers(0, 256, (120, 200, 3), np.uint8)

        env = Monitor(Wide(length=400, shape=(2, 2, 1)), folder, video_callable=lambda episode: True)
        play(env, 20)
        tracemalloc.start()
        try:
            for _ in range(100):
                env.step(0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20 * 120 * 200 * 3  # of the 100 frames that passed
        env.close()
        assert len(frames_of(folder / "video1.mp4")) == 121


class TestFolder:
    def test_files_of_an_earlier_run_are_not_overwritten(self, folder):
        play(Monitor(Camera(length=2), folder), 4)
        before = {name: (folder / name).read_bytes() for name in names(folder)}
        with pytest.raises(FileExistsError, match=r"holds stats1.json of an earlier run: .* or force=True"):
            Monitor(Camera(length=3), folder)
        assert {name: (folder / name).read_bytes() for name in names(folder)} == before

    def test_force_deletes_them_and_nothing_else(self, folder):
        play(Monitor(Camera(length=2), folder, format="gif"), 8)
        others = ["notes.txt", "video.mp4", "video1.mp4.bak", "videos1.mp4", "stats.json", "myvideo1.mp4"]
        for name in others:
            (folder / name).write_text("mine")
        play(Monitor(Camera(length=2), folder, force=True), 2)
        assert names(folder) == sorted([*others, "stats1.json", "video1.mp4"])

    def test_other_files_are_no_obstacle(self, folder):
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
        play(Monitor(Camera(length=2), str(folder)), 2)
        assert len(names(folder)) == 3

    def test_two_monitors_in_one_folder_are_an_error(self, folder):
        first, second = (Monitor(Camera(length=length), folder) for length in (2, 3))
        play(first, 2)
        before = (folder / "video1.mp4").read_bytes()
        with pytest.raises(FileExistsError, match="video1.mp4 was written by somebody else: give each Monitor its own"):
            play(second, 3)
        assert (folder / "video1.mp4").read_bytes() == before

    def test_a_relative_folder_stays_where_it_was(self, tmp_path, monkeypatch):
        env = Monitor(Camera(length=2), "videos")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        play(env, 2)
        assert names(tmp_path / "videos") == ["stats1.json", "video1.mp4"]


class TestWhenSomethingBreaks:
    @pytest.mark.parametrize("format", ["mp4", "gif"])
    def test_an_error_of_the_environment_comes_through_and_leaves_a_closed_file(self, folder, format):
        env = Monitor(BreaksAt(Camera(length=5), 9), folder, format=format)
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            play(env, 20)
        assert times_of(folder / f"video2.{format}") == [0, 1, 2, 3]
        assert stats_of(folder, 2) == {"episode_step": 3, "return": 6.0, "finished": False}
        assert len(names(folder)) == 4

    def test_an_error_in_the_first_step_leaves_no_file(self, folder):
        with pytest.raises(ZeroDivisionError):
            play(Monitor(BreaksAt(Camera(), 1), folder), 1)
        assert names(folder) == []

    def test_an_interrupt_leaves_a_closed_file(self, folder):
        class Interrupted(Camera):
            def step(self, action):
                if self.t == 2:
                    raise KeyboardInterrupt
                return super().step(action)

        with pytest.raises(KeyboardInterrupt):
            play(Monitor(Interrupted(), folder), 5)
        assert times_of(folder / "video1.mp4") == [0, 1, 2]

    def test_an_error_in_reset_leaves_closed_files(self, folder):
        class NoSecond(Camera):
            def reset(self, *, seed=None, options=None):
                if self.episode == 0:
                    raise ZeroDivisionError("the robot is gone")
                return super().reset()

        env = Monitor(NoSecond(length=5), folder)
        play(env, 2)
        with pytest.raises(ZeroDivisionError, match="the robot is gone"):
            env.reset()
        assert times_of(folder / "video1.mp4") == [0, 1, 2]

    @pytest.mark.parametrize("shape", [(24, 34, 3), (24, 32), (24, 32, 4)])
    def test_a_picture_of_another_shape_in_the_middle(self, folder, shape):
        class Changing(Camera):
            def render(self):
                return super().render() if self.t < 3 else np.zeros(shape, np.uint8)

        with pytest.raises(ValueError, match=r"picture"):
            play(Monitor(Changing(), folder), 5)
        assert times_of(folder / "video1.mp4") == [0, 1, 2]
        assert stats_of(folder, 1)["episode_step"] == 3

    def test_without_close_an_open_episode_leaves_no_file(self, folder):
        env = Monitor(Camera(length=5), folder)
        play(env, 7)
        del env
        gc.collect()
        assert names(folder) == ["stats1.json", "video1.mp4"]

    @pytest.mark.slow
    def test_a_program_that_ends_or_dies_leaves_whole_files(self, folder):
        code = f"""
import os
from pathlib import Path
from d3rlpy.envs import Monitor
from tests.envs.cameras import Camera

child = os.fork()
env = Monitor(Camera(length=5), Path({str(folder)!r}) / ("ends" if child else "dies"))
env.reset()
for t in range(7):
    if env.step(0)[2]:
        env.reset()
if not child:
    os._exit(1)
os.wait()
"""
        root = importlib.import_module("tests").__path__[0] + "/.."
        subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)
        for name, left in (("ends", 0), ("dies", 1)):  # the hidden file that a dead program couldn't delete
            assert [n[0] for n in names(folder / name)] == ["."] * left + ["s", "v"]
            assert times_of(folder / name / "video1.mp4") == [0, 1, 2, 3, 4, 5]
        assert names(folder / "ends") == ["stats1.json", "video1.mp4"]
        play(Monitor(Camera(length=2), folder / "dies", force=True), 2)

    def test_closing_twice(self, folder):
        env = Monitor(Camera(), folder)
        play(env, 2)
        env.close()
        env.close()
        assert len(names(folder)) == 2

    def test_an_environment_is_closed_even_where_the_file_cannot_be(self, folder):
        class Closes(Camera):
            closed = False

            def close(self):
                self.closed = True

        env = Closes()
        monitor = Monitor(env, folder)
        play(monitor, 2)
        (folder / "video1.mp4").write_text("mine")
        with pytest.raises(FileExistsError):
            monitor.close()
        assert env.closed
        assert names(folder) == ["video1.mp4"]

    def test_it_can_be_copied_between_episodes_only(self, folder):
        env = Monitor(Camera(), folder)
        assert isinstance(pickle.loads(pickle.dumps(env)), Monitor)
        play(env, 2)
        with pytest.raises(TypeError, match="an episode is being recorded: copy the environment when"):
            copy.deepcopy(env)


class TestBadInput:
    def test_an_environment_that_renders_nothing(self, folder):
        message = r"render_mode of .* is None: make it with gymnasium.make\('CartPole-v1', render_mode='rgb_array'\)"
        with pytest.raises(ValueError, match=message):
            Monitor(gymnasium.make("CartPole-v1"), folder)
        assert not folder.exists()

    @pytest.mark.parametrize("mode", ["human", "ansi", "rgb_array_list"])
    def test_an_environment_that_renders_something_else(self, folder, mode):
        with pytest.raises(ValueError, match=f"render_mode of .* is '{mode}'"):
            Monitor(Camera(render_mode=mode), folder)

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            (None, "NoneType"),
            ("text", "str"),
            (np.zeros((8, 8, 3)), r"float64 \(8, 8, 3\)"),
            (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
            (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        ],
    )
    def test_what_is_no_picture(self, folder, given, what):
        env = Camera()
        env.render = lambda: given
        with pytest.raises(ValueError, match=rf"must return a picture, uint8 of shape \(H, W, 3\), not {what}"):
            Monitor(env, folder).reset()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"format": "avi"}, ValueError, r"format must be one of \['mp4', 'gif'\], got 'avi'"),
            ({"frame_rate": 0}, ValueError, "frame_rate must be a number from 0.01 to 1000, got 0"),
            ({"frame_rate": float("nan")}, ValueError, "frame_rate must be a number from 0.01 to 1000, got nan"),
            ({"frame_rate": "30"}, ValueError, "frame_rate must be a number from 0.01 to 1000, got '30'"),
            ({"frame_rate": True}, ValueError, "frame_rate must be a number from 0.01 to 1000, got True"),
            ({"frame_rate": 60, "format": "gif"}, ValueError, "frame_rate=60 is too fast for a gif"),
            ({"record_rate": 0}, ValueError, "record_rate must be a whole number of at least 1, got 0"),
            ({"record_rate": 1.5}, ValueError, "record_rate must be a whole number of at least 1, got 1.5"),
            ({"video_callable": False}, TypeError, "video_callable must be a function of the episode's number, got F"),
        ],
    )
    def test_values_out_of_range(self, folder, options, error, message):
        with pytest.raises(error, match=message):
            Monitor(Camera(), folder, **options)
        assert not folder.exists()

    def test_a_missing_package_is_named(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install av, or install this library with its extra \[vide"):
            Monitor(Camera(), folder)

    def test_a_reward_that_is_no_number_is_recorded_and_refused_by_training(self, folder):
        class Strange(Camera):
            def step(self, action):
                observation, reward, *rest = super().step(action)
                return observation, float("nan") if self.t == 3 else reward, *rest

        env, buffer = ChannelFirst(Monitor(Strange(), folder)), ReplayBuffer(20, env=ChannelFirst(Camera()))
        with pytest.raises(ValueError, match="ChannelFirst returned the reward nan in step 3"):
            DQN(encoder_factory=PIXELS).collect(env, buffer, n_steps=9, **SILENT)
        assert buffer.n_rows == 2
        env.close()
        assert times_of(folder / "video1.mp4") == [0, 1, 2, 3]


class TestOtherPackages:
    def test_the_older_interface(self, folder):
        play(Monitor(OldCamera(length=3), folder), 3)
        assert times_of(folder / "video1.mp4") == [0, 1, 2, 3]
        assert stats_of(folder, 1) == {"episode_step": 3, "return": 6.0, "finished": True}

    def test_the_older_interface_without_render(self, folder):
        class Blind(OldCamera):
            render = None

        with pytest.raises(ValueError, match="render_mode of .* is None"):
            Monitor(Blind(), folder)

    @pytest.mark.parametrize("package", ["gym", "gymnasium"])
    def test_a_real_environment(self, folder, package):
        pytest.importorskip("pygame")
        env = importlib.import_module(package).make("CartPole-v1", render_mode="rgb_array")
        play(Monitor(env, folder), 12, seed=0)
        (first, *_, last) = frames_of(folder / "video1.mp4")
        steps = stats_of(folder, 1)["episode_step"]
        assert steps == stats_of(folder, 1)["return"] == len(frames_of(folder / "video1.mp4")) - 1
        assert first.shape == (400, 600, 3)
        assert np.abs(first.astype(int) - last).max() > 100  # the pole has moved

    def test_environments_go_on_as_they_do_unrecorded(self, folder):
        pytest.importorskip("pygame")
        bare = gymnasium.make("CartPole-v1")
        recorded = Monitor(gymnasium.make("CartPole-v1", render_mode="rgb_array"), folder, record_rate=4)
        for seed in (3, None):
            assert (bare.reset(seed=seed)[0] == recorded.reset(seed=seed)[0]).all()
            for _ in range(5):
                ours, theirs = recorded.step(1), bare.step(1)
                assert (ours[0] == theirs[0]).all()
                assert ours[1:] == theirs[1:]


class TestInTraining:
    def test_fit_online_records_training_and_evaluation(self, folder):
        env, eval_env = (
            ChannelFirst(Monitor(Camera(length=4), folder / name, lambda episode: episode == 2))
            for name in ("training", "evaluation")
        )
        algo = DQN(encoder_factory=PIXELS, batch_size=4, random_state=0)
        algo.fit_online(env, n_steps=10, n_steps_per_epoch=10, random_steps=10, eval_env=eval_env, **QUIET)
        assert algo.eval_results_["evaluation"] == [10.0]
        for name in ("training", "evaluation"):
            assert names(folder / name) == ["stats2.json", "video2.mp4"]
            assert times_of(folder / name / "video2.mp4") == [0, 1, 2, 3, 4]
            assert stats_of(folder / name, 2)["return"] == 10.0

    def test_collect_and_evaluate(self, folder):
        env = ActionRepeat(ChannelFirst(Monitor(Camera(length=4), folder)), 2)
        data = DiscreteRandomPolicy(random_state=0).collect(env, n_steps=4, **SILENT).to_mdp_dataset()
        assert data.rewards.tolist() == [3, 7, 3, 7]
        algo = DQN(encoder_factory=PIXELS).create_impl((3, 16, 18), 2)
        assert evaluate_on_environment(env, n_trials=3)(algo) == 10.0
        assert [stats_of(folder, i)["return"] for i in (1, 2, 3, 4, 5)] == [10.0] * 5
        assert times_of(folder / "video5.mp4") == [0, 1, 2, 3, 4]  # inside of ActionRepeat it sees each step

    def test_an_error_in_training_leaves_buffer_logs_and_video(self, folder, tmp_path):
        env = ChannelFirst(Monitor(BreaksAt(Camera(length=4), 11), folder))
        algo, buffer = DQN(encoder_factory=PIXELS, batch_size=4), ReplayBuffer(50, env=ChannelFirst(Camera()))
        with pytest.raises(ZeroDivisionError, match="the robot fell over"):
            algo.fit_online(
                env, buffer, n_steps=30, n_steps_per_epoch=5, random_steps=30, logdir=tmp_path / "logs",
                **{**QUIET, "save_metrics": True},
            )  # fmt: skip
        assert buffer.n_rows == 10
        assert (algo.logdir_ / "loss.csv").read_text().count("\n") == 2
        assert times_of(folder / "video3.mp4") == [0, 1, 2]
        assert names(folder) == [f"stats{i}.json" for i in (1, 2, 3)] + [f"video{i}.mp4" for i in (1, 2, 3)]
