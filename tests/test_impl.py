import pytest
import torch
from torch import nn

from d3rlpy.algos import ALGORITHMS
from d3rlpy.hyperparameters import fields_of
from d3rlpy.impl import hard_sync, soft_sync, target_copy
from d3rlpy.models.encoders import VectorEncoderFactory
from tests.helpers import random_batch


def test_a_copy_follows_the_source_that_it_is_told():
    a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    copy = target_copy(a)
    soft_sync(copy, a, 0.5)
    before = copy.weight.clone()
    soft_sync(copy, b, 0.25)
    assert torch.allclose(copy.weight, 0.75 * before + 0.25 * b.weight)


def test_buffers_are_copied_also_after_a_cast():
    source = nn.BatchNorm1d(2)
    copy = target_copy(source)
    soft_sync(copy, source, 0.5)
    source.double()
    copy.double()
    source.running_mean.fill_(7.0)
    soft_sync(copy, source, 0.5)
    assert copy.running_mean.tolist() == [7.0, 7.0]


def test_a_hard_copy_takes_parameters_and_buffers():
    source, copy = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        source.weight.fill_(3.0)
    source.running_var.fill_(5.0)
    hard_sync(copy, source)
    assert (copy.weight.tolist(), copy.running_var.tolist()) == ([3.0, 3.0], [5.0, 5.0])


def test_a_copy_has_no_gradients_and_is_in_evaluation_mode():
    copy = target_copy(nn.Sequential(nn.Linear(2, 1), nn.Dropout()))
    assert not copy.training
    assert not any(p.requires_grad for p in copy.parameters())


@pytest.mark.parametrize("name", ["iql", "sac", "cql", "awac", "discrete_sac"])
def test_targets_are_made_by_networks_that_act_as_in_evaluation(name):
    encoder = VectorEncoderFactory(hidden_units=(16,), dropout_rate=0.5, use_batch_norm=True)
    cls = ALGORITHMS[name]
    algo = cls(**{f: encoder for f in fields_of(cls) if f.endswith("encoder_factory")}, random_state=0)
    impl = algo.create_impl((3,), 2).impl.train()
    batch = random_batch(8, discrete=cls.action_space == "discrete")
    statistics = {k: v.clone() for k, v in impl.state_dict().items()}
    with algo.stream_:
        state = torch.get_rng_state()
        first = impl.td_target(batch)
        torch.set_rng_state(state)
        assert impl.training
        assert impl.policy.training
        assert all(torch.equal(v, statistics[k]) for k, v in impl.state_dict().items())
        second = impl.eval().td_target(batch)
    assert torch.equal(first, second)
