import pytest
import torch

from d3rlpy.gpu import Device, resolve_device


@pytest.mark.parametrize("value", [False, None, "cpu"])
def test_no_gpu_is_the_cpu(value):
    assert resolve_device(value) == torch.device("cpu")


@pytest.mark.parametrize(("value", "index"), [(True, 0), (0, 0), (1, 1), (Device(1), 1), ("cuda:1", 1), ("cuda", None)])
def test_a_gpu_is_found_by_flag_index_device_and_name(value, index, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device(value) == torch.device("cuda", index)


@pytest.mark.parametrize("value", [2, Device(2), "cuda:2"])
def test_a_missing_gpu_is_a_clear_error(value, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"use_gpu=.* torch sees 2 CUDA device\(s\): pass use_gpu=False"):
        resolve_device(value)


@pytest.mark.parametrize("value", [-1, 1.5, "gpu", [0]])
def test_nonsense_names_no_device(value):
    with pytest.raises(ValueError, match="names no device"):
        resolve_device(value)


def test_devices_compare_by_their_number():
    assert Device(1) == Device(1) != Device(0)
    assert Device(0) != 0
    assert Device(1).get_id() == 1
