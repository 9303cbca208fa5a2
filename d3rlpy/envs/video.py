"""VideoWriter: frames into an mp4 or gif file, one at a time, by PyAV."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .optional import require

FORMATS = ("mp4", "gif")
FASTEST_GIF = 50  # a gif counts hundredths of a second, and players slow down frames that last only one


def check_video(frame_rate: float, format: str) -> None:
    """Raise ``ValueError`` or ``ModuleNotFoundError`` for what cannot be written."""
    if format not in FORMATS:
        raise ValueError(f"format must be one of {list(FORMATS)}, got {format!r}")
    number = isinstance(frame_rate, (int, float, np.number)) and not isinstance(frame_rate, bool)
    if not number or not 0.01 <= frame_rate <= 1000:
        raise ValueError(f"frame_rate must be a number from 0.01 to 1000, got {frame_rate!r}")
    if format == "gif" and frame_rate > FASTEST_GIF:
        raise ValueError(
            f"frame_rate={frame_rate} is too fast for a gif, which shows at most {FASTEST_GIF} frames a second: lower"
            " it, raise record_rate, or pass format='mp4'"
        )
    require("av", "av", "video", "recording")


class VideoWriter:
    """Writes frames ``(H, W, 3)`` uint8 as they come; the file appears at ``path`` when ``close`` has succeeded.

    mp4 is H.264, whose sides are even: an odd picture gets a black line. gif has a palette for each frame.

    Parameters
    ----------
    path : the file, which must not be there.
    frame_rate : frames a second.
    format : ``"mp4"`` or ``"gif"``.
    shape : ``(H, W, 3)``.
    """

    def __init__(self, path: Path, frame_rate: float, format: str, shape: tuple[int, ...]):
        check_video(frame_rate, format)
        import av
        import av.filter

        self._av, self._path, self._shape, self._count = av, path, shape, 0
        rate = Fraction(float(frame_rate)).limit_denominator(1000)
        self._time_base = 1 / rate
        self._files = ExitStack()
        self._container = av.open(self._files.enter_context(replacing(path)), "w", format=format)
        self._stream: Any = self._container.add_stream("h264" if format == "mp4" else "gif", rate=rate)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=shape[1], height=shape[0], format=av.VideoFormat("rgb24"), time_base=self._time_base
        )
        (_to_even_yuv if format == "mp4" else _to_palette)(self._graph, source)
        self._graph.configure()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame; ``ValueError`` if it is of another size than the first."""
        if frame.shape != self._shape:
            raise ValueError(f"a picture of shape {frame.shape} cannot follow those of shape {self._shape}")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self._count, self._time_base
        self._count += 1
        self._graph.push(picture)
        filtered: Any = self._graph.pull()  # one for one: no filter holds frames back
        if not self._stream.codec_context.is_open:
            self._stream.width, self._stream.height = filtered.width, filtered.height
            self._stream.pix_fmt = filtered.format.name
        self._container.mux(self._stream.encode(filtered))

    def close(self) -> None:
        """Finish the file; ``FileExistsError`` if somebody else has put one there."""
        with self._files:
            self._container.mux(self._stream.encode())
            self._container.close()
            if self._path.exists():
                raise FileExistsError(f"{self._path} was written by somebody else: give each Monitor its own directory")


def _to_even_yuv(graph: Any, source: Any) -> None:
    """Sides padded to even numbers, and the colours that every player knows."""
    pad = graph.add("pad", "ceil(iw/2)*2:ceil(ih/2)*2")
    graph.link_nodes(source, pad, graph.add("format", "yuv420p"), graph.add("buffersink"))


def _to_palette(graph: Any, source: Any) -> None:
    """The 256 colours that suit each frame."""
    split, use = graph.add("split"), graph.add("paletteuse", "new=1")
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    graph.link_nodes(source, split, palette)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    graph.link_nodes(use, graph.add("buffersink"))
