"""The one-node networks against ordinary modules under autograd."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d3rlpy import kernels
from d3rlpy.algos import CQL, DQN, SAC, DiscreteCQL, TD3PlusBC
from d3rlpy.models import mlp as mlp_module
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.mlp import NORM_EPS, Linear, mlp, weights_of
from tests.helpers import random_batch


@pytest.fixture(params=["plain", "auto"])
def backend(request):
    kernels.use_backend(request.param)
    yield request.param
    kernels.use_backend("auto")


def networks(n_members, sizes, dtype, norm=False):
    """Linear layers of each member, with a layer norm behind all but the last if asked for."""
    torch.manual_seed(0)
    members = []
    for _ in range(n_members):
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        if norm:
            layers = [part for layer in layers for part in (layer, nn.LayerNorm(layer.out_features, NORM_EPS))][:-1]
            for part in layers[1::2]:
                nn.init.normal_(part.weight, 1.0, 0.3)
                nn.init.normal_(part.bias, 0.0, 0.3)
        members.append([part.to(dtype) for part in layers])
    return members


def by_modules(x, members):
    return torch.stack([one_network(x, layers) for layers in members])


def one_network(x, layers):
    """ReLU behind each hidden layer, or behind the norm that follows it."""
    normed = any(isinstance(layer, nn.LayerNorm) for layer in layers)
    for layer in layers[:-1]:
        x = layer(x)
        if not normed or isinstance(layer, nn.LayerNorm):
            x = F.relu(x)
    return layers[-1](x)


def flat(members):
    return [p for layers in members for p in weights_of(layers)]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("n_members", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (14, 256, 256, 1), (11, 70, 90, 64, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("n_rows", [1, 32, 256])
def test_outputs_and_gradients_equal_those_of_modules(n_members, sizes, dtype, tolerance, n_rows, norm, backend):
    members = networks(n_members, sizes, dtype, norm)
    x = torch.randn(n_rows, sizes[0], dtype=dtype, requires_grad=True)
    weight = torch.randn(n_members, n_rows, sizes[-1], dtype=dtype)
    expected, got = by_modules(x, members), mlp(x, n_members, flat(members))
    assert (expected - got).norm() <= tolerance * expected.norm()
    expected, got = (
        torch.cat([g.flatten() for g in torch.autograd.grad((weight * y.square()).sum(), [x, *flat(members)])])
        for y in (expected, got)
    )
    assert (expected - got).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("n_rows", [16, 17, 50])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (11, 70, 90, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_blocks_of_rows_give_the_outputs_and_gradients_of_modules(
    sizes, dtype, tolerance, frozen, n_rows, norm, monkeypatch
):
    monkeypatch.setattr(mlp_module, "BLOCK_ROWS", 16)
    members = networks(2, sizes, dtype, norm)
    x = torch.randn(n_rows, sizes[0], dtype=dtype, requires_grad=True)
    weight = torch.randn(2, n_rows, sizes[-1], dtype=dtype)
    expected, got = by_modules(x, members), mlp(x, 2, flat(members), frozen=frozen)
    with torch.no_grad():
        assert torch.equal(got, mlp(x, 2, flat(members)))
    assert (expected - got).norm() <= tolerance * expected.norm()
    inputs = [x] if frozen else [x, *flat(members)]
    expected, got = (
        torch.cat([g.flatten() for g in torch.autograd.grad((weight * y.square()).sum(), inputs)])
        for y in (expected, got)
    )
    assert (expected - got).norm() <= tolerance * expected.norm()


def test_weights_alone_receive_the_gradients_of_all_blocks(monkeypatch):
    """Inputs without a gradient, as observations and sampled actions are."""
    members = networks(2, (5, 70, 3), torch.float64)
    x = torch.randn(50, 5, dtype=torch.float64)
    whole = torch.autograd.grad(mlp(x, 2, flat(members)).square().sum(), flat(members))
    monkeypatch.setattr(mlp_module, "BLOCK_ROWS", 7)
    by_blocks = torch.autograd.grad(mlp(x, 2, flat(members)).square().sum(), flat(members))
    for a, b in zip(whole, by_blocks, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(("n_rows", "sizes"), [(1, [1]), (1024, [1024]), (1025, [513, 512]), (7936, [992] * 8)])
def test_many_rows_pass_all_layers_in_few_equal_blocks(n_rows, sizes, monkeypatch):
    seen = []

    def watched(x, weight, bias, relu):
        seen.append(len(x))
        return kernels.linear(x, weight, bias, relu)

    monkeypatch.setattr(mlp_module._forward, "__defaults__", (watched,))
    mlp(torch.randn(n_rows, 5), 2, flat(networks(2, (5, 8, 1), torch.float32)))
    assert seen == [size for size in sizes for _ in range(4)]


@pytest.mark.parametrize("norm", [False, True])
def test_a_traced_network_takes_batches_of_any_size(norm, monkeypatch):
    """The number of blocks of the example must not become part of the export."""
    monkeypatch.setattr(mlp_module, "BLOCK_ROWS", 2)
    members = networks(1, (4, 8, 1), torch.float32, norm)
    for p in flat(members):
        p.requires_grad_(False)
    traced = torch.jit.trace(lambda x: mlp(x, 1, flat(members)), torch.randn(5, 4))
    for n in (1, 5, 9):
        x = torch.randn(n, 4)
        assert torch.allclose(traced(x), by_modules(x, members), atol=1e-6)


def test_frozen_networks_hand_the_gradient_to_their_input_only():
    members = networks(2, (4, 8, 1), torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(by_modules(x, members).sum(), x)[0]
    mlp(x, 2, flat(members), frozen=True).sum().backward()
    assert torch.allclose(x.grad, expected, rtol=1e-12)
    assert all(p.grad is None for p in flat(members))


def test_without_gradients_no_graph_is_built():
    members = networks(1, (4, 8, 1), torch.float32)
    with torch.no_grad():
        outputs = mlp(torch.randn(6, 4), 1, flat(members))
    assert outputs.grad_fn is None


def test_a_second_derivative_is_refused_instead_of_wrong():
    members = networks(1, (4, 8, 1), torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(mlp(x, 1, flat(members)).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        slope.square().sum().backward()


def test_changing_weights_between_forward_and_backward_is_noticed():
    members = networks(1, (4, 8, 1), torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    loss = mlp(x, 1, flat(members)).sum()
    with torch.no_grad():
        members[0][1].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("n_rows", [3, 128])
def test_one_layer_equals_the_module_of_torch(relu, n_rows, backend):
    torch.manual_seed(0)
    layer = Linear(96, 128, relu=relu)
    x = torch.randn(n_rows, 96, requires_grad=True)
    plain = F.linear(x, layer.weight, layer.bias)
    params = [x, layer.weight, layer.bias]
    expected = torch.autograd.grad((F.relu(plain) if relu else plain).square().sum(), params)
    got = torch.autograd.grad(layer(x).square().sum(), params)
    for e, g in zip(expected, got, strict=True):
        assert (e - g).abs().max() / e.abs().max() < 1e-6


class OrdinaryLinear:
    """Replaces the layers of an impl by torch's modules under plain autograd."""

    @staticmethod
    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        return F.relu(y) if self.relu else y


def as_ordinary_modules(impl, monkeypatch):
    """The same impl without the one-node path."""
    monkeypatch.setattr(Linear, "forward", OrdinaryLinear.forward)
    for module in impl.modules():
        if hasattr(module, "weights"):
            module.weights = None
        if hasattr(module, "plain_weights"):
            module.plain_weights = None


def impl_of(cls, width, norm=False):
    encoder = VectorEncoderFactory(hidden_units=(width, width), use_layer_norm=norm)
    names = [n for n in cls().get_params(deep=False) if n.endswith("encoder_factory")]
    params = dict.fromkeys(names, encoder)
    if cls in (DQN, DiscreteCQL):
        params |= {"target_update_interval": 10, "learning_rate": 1e-3, "n_critics": 2}
    if cls is CQL:
        params["n_action_samples"] = 4
    return cls(random_state=0, **params).create_impl((3,), 2).impl


def losses(impl, n_updates, n_rows, dtype):
    """Metrics of updates on random batches, with the same noise for everyone."""
    torch.manual_seed(0)
    discrete = impl.hp.action_space == "discrete"
    found = []
    for seed in range(n_updates):
        metrics = impl.step(random_batch(n_rows, discrete=discrete, seed=seed, dtype=dtype))
        found.append(torch.stack([metrics[k].double() for k in ("loss", "critic_loss") if k in metrics]))
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [TD3PlusBC, SAC, DQN, DiscreteCQL])
def test_a_thousand_updates_in_float64_take_the_path_of_ordinary_modules(cls, monkeypatch):
    fast = impl_of(cls, 16).double().train()
    ordinary = copy.deepcopy(fast)
    expected_fast = losses(fast, 1000, 16, torch.float64)
    with monkeypatch.context() as patch:
        as_ordinary_modules(ordinary, patch)
        expected = losses(ordinary, 1000, 16, torch.float64)
    assert ((expected_fast - expected).abs() / expected.abs()).max() < 1e-9
    for ours, theirs in zip(fast.parameters(), ordinary.parameters(), strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()


@pytest.mark.parametrize(
    ("cls", "norm"),
    [(TD3PlusBC, False), (SAC, False), (DQN, False), (DiscreteCQL, False), (CQL, False), (SAC, True), (DQN, True)],
)
def test_ten_updates_in_float32_agree_on_both_backends_and_with_modules(cls, norm, monkeypatch):
    start = impl_of(cls, 256, norm).train()
    results = []
    for name in ("plain", "auto"):
        kernels.use_backend(name)
        results.append(losses(copy.deepcopy(start), 10, 256, torch.float32))
    ordinary = copy.deepcopy(start)
    with monkeypatch.context() as patch:
        as_ordinary_modules(ordinary, patch)
        results.append(losses(ordinary, 10, 256, torch.float32))
    for other in results[1:]:
        assert ((results[0] - other).abs() / results[0].abs()).max() < 1e-5
