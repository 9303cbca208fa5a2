import pickle

import numpy as np
import torch

import d3rlpy
from d3rlpy.randomness import RandomStream, new_seed

CPU = torch.device("cpu")


def test_a_stream_leaves_the_global_generator_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with RandomStream(0, CPU):
        torch.rand(100)
    assert torch.equal(torch.rand(2), expected)


def test_a_stream_continues_where_it_stopped_and_nests():
    stream, whole = RandomStream(0, CPU), RandomStream(0, CPU)
    with whole:
        expected = torch.rand(4)
    with stream:
        first = torch.rand(1)
        with stream:
            second = torch.rand(1)
    torch.rand(9)
    with stream:
        rest = torch.rand(2)
    assert torch.equal(torch.cat([first, second, rest]), expected)


def test_a_stream_is_saved_and_restored_inside_and_outside():
    stream, other = RandomStream(0, CPU), RandomStream(1, CPU)
    with stream:
        torch.rand(3)
        stream.numpy.random(3)
        other.set_state(stream.get_state())
        expected = torch.rand(2), stream.numpy.random(2)
    other = pickle.loads(pickle.dumps(other))
    with other:
        got = torch.rand(2), other.numpy.random(2)
    assert torch.equal(got[0], expected[0])
    assert (got[1] == expected[1]).all()


def test_the_global_seed_decides_about_torch_numpy_and_new_seeds():
    d3rlpy.seed(3)
    first = (new_seed(), np.random.rand(), torch.rand(1).item())
    d3rlpy.seed(3)
    assert (new_seed(), np.random.rand(), torch.rand(1).item()) == first
