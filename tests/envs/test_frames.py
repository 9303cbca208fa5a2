"""FrameStack against the stacks of mini-batches."""

from __future__ import annotations

import numpy as np
import pytest

from d3rlpy.dataset import MDPDataset, gather, rows_of
from d3rlpy.envs import FrameStack


def image(value):
    return np.full((2, 3, 3), value, np.uint8)


def test_first_frame_fills_the_front_and_the_newest_comes_last():
    frames = FrameStack(3)
    stacks = [frames.reset(image(1)), frames.push(image(2)), frames.push(image(3)), frames.push(image(4))]
    assert [list(s[::2, 0, 0]) for s in stacks] == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert stacks[0].shape == (6, 3, 3)
    assert stacks[0].dtype == np.uint8


def test_a_rollout_sees_the_stacks_that_training_saw():
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8)
    ends = np.array([0, 0, 0, 1, 0, 0, 1], bool)
    data = MDPDataset(images, np.zeros(7, np.int64), np.zeros(7), ends, action_size=2)
    trained_on = gather(*rows_of(data), n_frames=3).observations

    frames = FrameStack(3)
    starts = np.concatenate([[True], ends[:-1]])
    seen = [frames.reset(x) if first else frames.push(x) for x, first in zip(images, starts, strict=True)]
    np.testing.assert_array_equal(np.stack(seen), trained_on)


def test_an_environment_that_reuses_its_image_does_not_change_older_frames():
    frames, buffer = FrameStack(2), image(1)
    frames.reset(buffer)
    buffer[:] = 9
    assert list(frames.push(buffer)[::2, 0, 0]) == [1, 9]


def test_one_frame_passes_vectors_unchanged():
    frames, vector = FrameStack(1), np.ones(3, np.float32)
    assert frames.reset(vector) is vector
    assert frames.push(vector) is vector


def test_several_frames_of_vectors_are_an_error():
    with pytest.raises(ValueError, match=r"n_frames=4 needs images \(C, H, W\), but observations have"):
        FrameStack(4).reset(np.ones(3, np.float32))


def test_zero_frames_are_an_error():
    with pytest.raises(ValueError, match="n_frames must be at least 1, got 0"):
        FrameStack(0)
