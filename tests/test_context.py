"""Copies of a device rotate over the GPUs inside ``parallel``, and nowhere else."""

import copy

import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_validate

from d3rlpy.algos import DQN
from d3rlpy.context import disable_parallel, get_parallel_flag, parallel
from d3rlpy.gpu import Device


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
def test_clones_take_turns():
    dqn = DQN(use_gpu=Device(0))
    with parallel():
        ids = [clone(dqn).use_gpu.get_id() for _ in range(7)]
    assert ids == [1, 2, 0, 1, 2, 0, 1]
    assert [clone(dqn).use_gpu.get_id() for _ in range(3)] == [0, 0, 0]
    assert dqn.use_gpu == Device(0)


@pytest.mark.usefixtures("three_gpus")
def test_cross_validation_spreads_its_folds(monkeypatch):
    used = []

    class Recorder(DQN):
        def fit(self, episodes):
            used.append(self.use_gpu.get_id())
            return self

    with parallel():
        cross_validate(Recorder(use_gpu=Device(1)), list(range(9)), cv=3, scoring=lambda algo, episodes: 0.0)
    assert used == [2, 0, 1]


@pytest.mark.usefixtures("three_gpus")
def test_true_takes_turns_as_well():
    with parallel():
        ids = {clone(DQN(use_gpu=True)).use_gpu.get_id() for _ in range(3)}
        assert clone(DQN(use_gpu=2)).use_gpu == 2
    assert ids == {0, 1, 2}
    assert clone(DQN(use_gpu=True)).use_gpu is True


def test_the_example_of_2020(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device = Device(0)
    assert copy.deepcopy(device).get_id() == 0
    with parallel():
        assert [copy.deepcopy(device).get_id() for _ in range(3)] == [1, 0, 1]
    assert device.get_id() == 0  # there it changed along with its copies


@pytest.mark.usefixtures("three_gpus")
def test_a_block_inside_can_stop_it_and_errors_end_it():
    with parallel(), disable_parallel():
        assert [copy.deepcopy(Device(2)).get_id() for _ in range(3)] == [2, 2, 2]
    with pytest.raises(ZeroDivisionError), parallel():
        raise ZeroDivisionError
    assert not get_parallel_flag()


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_choice_nothing_changes(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with parallel():
        assert copy.deepcopy(Device(0)) == Device(0)
        assert copy.deepcopy(Device(5)) == Device(5)  # and building it says that there is no such device


def test_numbers_stay_numbers():
    with parallel():
        assert clone(DQN(use_gpu=1)).use_gpu == 1
