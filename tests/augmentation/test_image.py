"""Augmentations of images against slow twins in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.augmentation import AUGMENTATIONS, RandomShift


def slow_shift(image, size, down, right):
    """Pad ``(C, H, W)`` by repeating the border, then cut out the old size ``down`` and ``right`` of the middle."""
    padded = np.pad(image, ((0, 0), (size, size), (size, size)), mode="edge")
    top, left = size + down, size + right
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def images(n=6, channels=3, height=5, width=7, dtype=torch.uint8, seed=0):
    numbers = np.random.default_rng(seed).permutation(n * channels * height * width) % 256
    return torch.from_numpy(numbers.reshape(n, channels, height, width)).to(dtype)


def shifts_of(x, shifted, size):
    """The shift of each image, found by trying all."""
    found = []
    for before, after in zip(x.numpy(), shifted.numpy(), strict=True):
        pairs = [(d, r) for d in range(-size, size + 1) for r in range(-size, size + 1)]
        found.append([pair for pair in pairs if np.array_equal(slow_shift(before, size, *pair), after)])
    return found


class TestRandomShift:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
    def test_type_and_shape_stay_and_the_argument_too(self, dtype):
        x = images(dtype=dtype)
        before = x.clone()
        shifted = RandomShift().transform(x)
        assert (shifted.dtype, shifted.shape, shifted.device) == (x.dtype, x.shape, x.device)
        assert torch.equal(x, before)
        assert not torch.equal(shifted, x)

    @settings(deadline=None, max_examples=60)
    @given(
        n=st.integers(1, 4), channels=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9),
        size=st.integers(1, 12), seed=st.integers(0, 99), contiguous=st.booleans(),
    )  # fmt: skip
    def test_each_image_moves_as_a_whole_with_its_border_repeated(
        self, n, channels, height, width, size, seed, contiguous
    ):
        x = images(n, channels, height, width, seed=seed)
        x = x if contiguous else x.to(memory_format=torch.channels_last)
        torch.manual_seed(seed)
        shifted = RandomShift(size).transform(x)
        torch.manual_seed(seed)  # the numbers that it drew: rows first, then columns
        down, right = torch.randint(-size, size + 1, (2, n, 1)).squeeze(2).tolist()
        for i in range(n):
            assert np.array_equal(shifted[i].numpy(), slow_shift(x[i].numpy(), size, down[i], right[i]))

    def test_images_are_drawn_apart_and_all_shifts_are_equally_likely(self):
        torch.manual_seed(0)
        x = images(900, 1, 6, 6)
        found = shifts_of(x, RandomShift(1).transform(x), 1)
        assert all(len(pairs) == 1 for pairs in found)
        counts = {pair: sum(pairs[0] == pair for pairs in found) for (pair,) in found}
        assert len(counts) == 9
        assert all(abs(count - 100) < 45 for count in counts.values())  # standard deviation 9.4

    def test_all_frames_of_a_stack_move_alike(self):
        frame = images(8, 1, 6, 6)
        shifted = RandomShift(2).transform(frame.expand(-1, 4, -1, -1))
        assert all(torch.equal(shifted[:, :1], shifted[:, [k]]) for k in range(4))

    def test_the_numbers_come_from_the_generator_of_torch(self):
        x = images()
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(RandomShift().transform(x))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_a_gradient_flows_back_to_the_pixels_that_are_shown(self):
        x = images(2, 1, 4, 4, torch.float64).requires_grad_()
        RandomShift(1).transform(x).sum().backward()
        assert x.grad.sum().item() == 2 * 16

    @pytest.mark.parametrize("shift_size", [0, -1, 1.5, True, "4", None])
    def test_a_size_that_is_no_number_of_pixels_is_an_error(self, shift_size):
        with pytest.raises(ValueError, match=r"shift_size=.* of RandomShift must be a whole number of at least 1"):
            RandomShift(shift_size)

    def test_vectors_are_refused(self):
        with pytest.raises(ValueError, match=r"'random_shift' changes images .* have the shape \(3,\): leave it out"):
            RandomShift().transform(torch.zeros(4, 3))

    def test_it_has_a_name(self):
        assert AUGMENTATIONS.resolve("random_shift") == RandomShift(4)
        assert AUGMENTATIONS.resolve(RandomShift(2).to_dict()) == RandomShift(2)

    def test_it_stays_on_the_device_and_reads_no_value(self):
        x = torch.empty(4, 3, 8, 8, device="meta")  # has no values
        assert RandomShift().transform(x).device.type == "meta"

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu_it_stays_there_without_waiting(self):
        x = images().cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            shifted = RandomShift(2).transform(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(shifts_of(x.cpu(), shifted.cpu(), 2))
