import copy
import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from d3rlpy.models.optimizers import (
    OPTIMIZERS,
    AdamFactory,
    AdamWFactory,
    OptimizerFactory,
    RMSpropFactory,
    SGDFactory,
    create_optimizer_factory,
)


def quadratic(start=(3.0, -4.0)):
    """A parameter, and its loss with the gradient ``x``."""
    x = torch.nn.Parameter(torch.tensor(start))
    return x, lambda: 0.5 * (x**2).sum()


def test_sgd_steps_against_the_gradient():
    x, loss = quadratic()
    SGDFactory().create([x], lr=0.1).minimize(loss())
    assert x.tolist() == pytest.approx([2.7, -3.6])


def test_momentum_adds_the_step_before():
    x, loss = quadratic((1.0,))
    optim = SGDFactory(momentum=0.5).create([x], lr=0.1)
    optim.minimize(loss())  # v = 1, x = 0.9
    optim.minimize(loss())  # v = 0.5 + 0.9 = 1.4, x = 0.76
    assert x.item() == pytest.approx(0.76)


def test_the_first_adam_step_has_the_length_of_the_learning_rate():
    x, loss = quadratic()
    AdamFactory().create([x], lr=0.01).minimize(loss())
    assert x.tolist() == pytest.approx([2.99, -3.99])


def test_adamw_decays_the_weights_apart_from_the_gradient():
    x, loss = quadratic()
    AdamWFactory(weight_decay=0.5).create([x], lr=0.01).minimize(loss())
    assert x.tolist() == pytest.approx([3 * (1 - 0.005) - 0.01, -4 * (1 - 0.005) + 0.01])


def test_rmsprop_divides_by_the_centered_spread():
    x, loss = quadratic((2.0,))
    RMSpropFactory().create([x], lr=0.1).minimize(loss())
    square, mean = 0.05 * 4, 0.05 * 2
    assert x.item() == pytest.approx(2 - 0.1 * 2 / (math.sqrt(square - mean**2) + 1e-2))


def test_a_clipped_gradient_keeps_its_direction():
    x, loss = quadratic()  # the gradient (3, -4) has the norm 5
    SGDFactory(clip_grad_norm=1.0).create([x], lr=1.0).minimize(loss())
    assert x.tolist() == pytest.approx([3 - 0.6, -4 + 0.8], abs=1e-4)


def test_parameters_are_clipped_by_the_norm_of_all_their_gradients():
    a, b = (torch.full((), value, requires_grad=True) for value in (3.0, -4.0))
    SGDFactory(clip_grad_norm=1.0).create([a, b], lr=1.0).minimize((a**2 + b**2) / 2)
    assert [a.item(), b.item()] == pytest.approx([3 - 0.6, -4 + 0.8], abs=1e-4)


def test_warm_up_is_linear_and_the_cosine_falls_to_zero():
    factory = SGDFactory(warmup_steps=4, cosine_steps=10)
    assert [factory.multiplier(k) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factory.multiplier(4) == 1.0
    assert factory.multiplier(9) == pytest.approx(0.5)
    assert factory.multiplier(14) == pytest.approx(0.0)
    assert factory.multiplier(100) == pytest.approx(0.0)


def test_the_schedule_acts_on_the_steps():
    x, loss = quadratic((1.0,))
    optim = SGDFactory(warmup_steps=2).create([x], lr=0.2)
    optim.minimize(loss())
    assert x.item() == pytest.approx(0.9)
    optim.minimize(loss())
    assert x.item() == pytest.approx(0.9 * 0.8)


def test_a_new_learning_rate_acts_on_the_next_step():
    x, loss = quadratic((1.0,))
    optim = SGDFactory().create([x], lr=0.2)
    optim.learning_rate = 0.5
    optim.minimize(loss())
    assert x.item() == pytest.approx(0.5)


def test_only_the_own_parameters_receive_a_gradient():
    x, other = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    SGDFactory().create([x], lr=0.1).minimize((x * other).sum())
    assert other.grad is None
    assert other.item() == 1.0


@pytest.mark.parametrize("factory", [SGDFactory(momentum=0.9), AdamFactory(), AdamWFactory(), RMSpropFactory()])
def test_a_restored_optimizer_continues_as_if_nothing_had_happened(factory):
    x, loss = quadratic()
    optim = factory.create([x], lr=0.1)
    optim.minimize(loss())
    state = copy.deepcopy(optim.state_dict())
    y = torch.nn.Parameter(x.detach().clone())
    twin = factory.create([y], lr=0.1)
    twin.load_state_dict(state)
    for _ in range(3):
        optim.minimize(loss())
        twin.minimize(0.5 * (y**2).sum())
    assert np.array_equal(x.detach().numpy(), y.detach().numpy())
    assert twin.n_steps == 4


def test_a_reset_optimizer_acts_like_a_new_one():
    x, loss = quadratic()
    optim = AdamFactory(warmup_steps=4).create([x], lr=0.1)
    optim.minimize(loss())
    optim.reset()
    with torch.no_grad():
        x.copy_(torch.tensor([3.0, -4.0]))
    optim.minimize(loss())
    assert x.tolist() == pytest.approx([3 - 0.025, -4 + 0.025])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_factories_survive_json_names_and_cloning(name):
    factory = create_optimizer_factory(name, weight_decay=0.25, clip_grad_norm=2.0)
    assert OPTIMIZERS.resolve(factory.to_dict()) == factory
    assert clone(factory) == factory
    assert factory.get_type() == name


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        create_optimizer_factory("adm")


@pytest.mark.parametrize(
    "params", [{"clip_grad_norm": -1.0}, {"clip_grad_norm": 0.0}, {"cosine_steps": 0}, {"weight_decay": float("nan")}]
)
def test_options_that_make_no_sense_are_errors(params):
    with pytest.raises(ValueError, match=f"AdamFactory: {next(iter(params))}=.* must be a number of at least"):
        AdamFactory(**params)


def test_a_factory_of_ones_own_needs_only_build():
    class Signs(OptimizerFactory):
        TYPE = "signs"

        def build(self, params, lr):
            return torch.optim.Rprop(params, lr)

    x, loss = quadratic((1.0,))
    Signs().create([x], lr=0.1).minimize(loss())
    assert x.item() == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_gradient_in_another_memory_layout_makes_the_same_step(name):
    start, grad = torch.arange(6.0).view(2, 3), torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, 6.0]])
    after = []
    for given in (grad, grad.t().contiguous().t()):
        param = torch.nn.Parameter(start.clone())
        optim = create_optimizer_factory(name).create([param], 0.1)
        for _ in range(3):
            optim.apply([given])
        after.append(param.detach())
    assert torch.equal(*after)
