"""Monitor: videos of episodes, one file each, and their lengths and returns beside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ..dataset.validation import check_whole
from ..files import replacing
from .adapter import to_number
from .conversion import to_gymnasium
from .video import VideoWriter, check_video

OURS = re.compile(r"video\d+\.(mp4|gif)|stats\d+\.json")


class Monitor(gymnasium.Wrapper):
    """Records episodes: ``video{episode}.mp4`` and ``stats{episode}.json`` in ``directory``, episodes counted from 1.

    A video holds what the environment renders after ``reset`` and after every ``record_rate``-th step. Frames are
    encoded one by one and not kept. A file appears when its episode is over. An episode that ``reset``, ``close`` or an
    error of the environment cuts short is kept as far as it went; one that is open when the program ends without
    ``close`` is not. An episode without a step leaves no file and has no number.

    The statistics are ``episode_step``, the number of steps, ``return``, the sum of rewards as they pass through this
    wrapper, and ``finished``, whether the environment ended the episode.

    Parameters
    ----------
    env : environment of gymnasium or gym made with ``render_mode="rgb_array"``, or one of the 4-tuple API with
        ``render(mode="rgb_array")``.
    directory : where the files go; made if it isn't there.
    video_callable : ``video_callable(episode)`` says whether to record that episode; None records all.
    force : delete the videos and statistics of an earlier run that are in ``directory``, instead of refusing.
    frame_rate : frames a second that the video shows; a gif at most 50.
    record_rate : steps from one recorded frame to the next.
    format : ``"mp4"`` or ``"gif"``.

    Raises
    ------
    ModuleNotFoundError
        Without PyAV, which the extra ``video`` brings.
    FileExistsError
        Without ``force``, for a directory with files of an earlier run.
    ValueError, TypeError
        For an environment that renders no pictures, and for values out of range.
    """

    def __init__(
        self,
        env: Any,
        directory: str | os.PathLike[str],
        video_callable: Callable[[int], bool] | None = None,
        force: bool = False,
        frame_rate: float = 30.0,
        record_rate: int = 1,
        format: str = "mp4",
    ):
        super().__init__(to_gymnasium(env))
        if self.env.render_mode != "rgb_array":
            name = self.env.spec.id if self.env.spec else "..."
            raise ValueError(
                f"Monitor needs pictures, but the render_mode of {self.env} is {self.env.render_mode!r}: make it with"
                f" gymnasium.make({name!r}, render_mode='rgb_array')"
            )
        if video_callable is not None and not callable(video_callable):
            raise TypeError(f"video_callable must be a function of the episode's number, got {video_callable!r}")
        check_whole("record_rate", record_rate, 1)
        check_video(frame_rate, format)
        self.directory = _prepared(Path(directory), force)
        self.video_callable, self.record_rate = video_callable, record_rate
        self.frame_rate, self.format = frame_rate, format
        self._episodes = 0  # that had a step
        self._first_frame: np.ndarray | None = None  # of an episode without a step
        self._begun = False  # whether an episode waits for its first step
        self._recording: Recording | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; what was recorded of the one before is finished."""
        self._end(finished=False)
        result = self.env.reset(seed=seed, options=options)
        if self.video_callable is None or self.video_callable(self._episodes + 1):
            self._first_frame = self._frame()
        self._begun = True
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, and its frame."""
        try:
            result = self.env.step(action)
            self._record(to_number(result[1]))
        except BaseException:
            with suppress(Exception):  # the error to tell about is the first one
                self._end(finished=False)
            raise
        if result[2] or result[3]:
            self._end(finished=True)
        return result

    def close(self) -> None:
        """Finish the file that is open, and close the environment."""
        try:
            self._end(finished=False)
        finally:
            super().close()

    def _record(self, reward: float) -> None:
        if self._begun:
            self._episodes += 1
            if self._first_frame is not None:
                self._recording = Recording(self, self._episodes, self._first_frame)
            self._begun, self._first_frame = False, None
        if self._recording is not None:
            self._recording.add(reward, self._frame)

    def _end(self, finished: bool) -> None:
        recording, self._recording = self._recording, None
        self._begun, self._first_frame = False, None
        if recording is not None:
            recording.close(finished)

    def _frame(self) -> np.ndarray:
        """What the environment renders, checked."""
        frame: Any = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"render() of {self.env} must return a picture, uint8 of shape (H, W, 3), not {what}")
        return frame


class Recording:
    """The files of one episode while it goes on."""

    def __init__(self, monitor: Monitor, episode: int, first_frame: np.ndarray):
        self._stats = monitor.directory / f"stats{episode}.json"
        self._rate, self._steps, self._return = monitor.record_rate, 0, 0.0
        path = monitor.directory / f"video{episode}.{monitor.format}"
        self._video = VideoWriter(path, monitor.frame_rate, monitor.format, first_frame.shape)
        self._video.write(first_frame)

    def add(self, reward: float, frame: Callable[[], np.ndarray]) -> None:
        """Count a step, and write its frame if it is due."""
        self._steps += 1
        self._return += reward
        if self._steps % self._rate == 0:
            self._video.write(frame())

    def close(self, finished: bool) -> None:
        """Finish both files."""
        self._video.close()
        stats = {"episode_step": self._steps, "return": self._return, "finished": finished}
        with replacing(self._stats) as temporary:
            Path(temporary).write_text(json.dumps(stats) + "\n")

    def __reduce__(self) -> Any:
        raise TypeError("an episode is being recorded: copy the environment when its Monitor has none open")


def _prepared(directory: Path, force: bool) -> Path:
    """The directory, without files of another run; an absolute path, so that it stays the same one."""
    directory.mkdir(parents=True, exist_ok=True)
    found = sorted(path for path in directory.iterdir() if OURS.fullmatch(path.name))
    if found and not force:
        raise FileExistsError(
            f"{directory} holds {found[0].name} of an earlier run: give another directory, or force=True, which"
            " deletes the video and stats files there"
        )
    for path in found:
        path.unlink()
    return directory.resolve()
