"""Ensembles of critics: reductions against numpy, sums of losses, actor steps that leave critics alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.models import VectorEncoderFactory, create_q_functions
from d3rlpy.models.q_functions import reduce_distributions, reduce_values

B, A, LAM = 5, 3, 0.75


def make(kind="mean", n_critics=3, discrete=False, encoder=None):
    torch.manual_seed(0)
    encoder = encoder or VectorEncoderFactory((8,))
    kind = {"type": "qr", "params": {"n_quantiles": 4}} if kind == "qr" else kind
    return create_q_functions(kind, encoder, (2,), A, n_critics, discrete)


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    x, action = torch.randn(B, 2, generator=g), torch.randn(B, A, generator=g)
    return x, action, torch.randint(0, A, (B,), generator=g)


def slow_reduce_values(values, reduction):
    """Entry by entry over the critics ``values[k]``."""
    flat = values.reshape(len(values), -1)
    out = []
    for entry in flat.T:
        low, high = min(entry), max(entry)
        out.append({"min": low, "max": high, "mean": np.mean(entry), "mix": LAM * low + (1 - LAM) * high}[reduction])
    return np.array(out).reshape(values.shape[1:])


def slow_reduce_distributions(z, reduction):
    """Entry by entry: whole distributions of the critics with the smallest and largest mean."""
    flat = z.reshape(z.shape[0], -1, z.shape[-1])
    out = []
    for entry in flat.transpose(1, 0, 2):  # (K, N)
        means = [np.mean(row) for row in entry]
        low, high = entry[means.index(min(means))], entry[means.index(max(means))]
        mix = LAM * low + (1 - LAM) * high
        out.append({"min": low, "max": high, "mean": entry.mean(axis=0), "mix": mix}[reduction])
    return np.array(out).reshape(z.shape[1:])


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 999))
@settings(deadline=None, max_examples=80)
@pytest.mark.parametrize("reduction", ["min", "max", "mean", "mix"])
def test_reductions_equal_their_restatements(reduction, critics, batch, n, per_action, ties, seed):
    rng = np.random.default_rng(seed)
    shape = (critics, batch, A, n) if per_action else (critics, batch, n)
    z = rng.integers(-1, 2, shape).astype(float) if ties else rng.normal(size=shape)
    values = reduce_values(torch.from_numpy(z), reduction, LAM)
    np.testing.assert_allclose(values, slow_reduce_values(z, reduction), rtol=1e-12, atol=1e-12)
    distributions = reduce_distributions(torch.from_numpy(z), reduction, LAM)
    np.testing.assert_allclose(distributions, slow_reduce_distributions(z, reduction), rtol=1e-12, atol=1e-12)
    assert distributions.shape == shape[1:]


def test_whole_distribution_of_the_critic_with_the_smaller_mean_is_taken():
    z = torch.tensor([[[0.0, 4.0]], [[1.0, 2.0]]])  # means 2 and 1.5
    assert reduce_distributions(z, "min").tolist() == [[1, 2]]
    assert reduce_distributions(z, "max").tolist() == [[0, 4]]
    assert reduce_distributions(z, "mean").tolist() == [[0.5, 3]]
    assert reduce_distributions(z, "mix", lam=0.75).tolist() == [[0.75, 2.5]]


def test_critic_is_chosen_separately_for_each_sample_and_action():
    z = torch.tensor([[[[1.0, 1.0], [9.0, 9.0]]], [[[2.0, 2.0], [3.0, 5.0]]]])  # (K, B, A, N)
    assert reduce_distributions(z, "min").tolist() == [[[1, 1], [3, 5]]]


def test_unknown_reduction_is_refused():
    for function in (reduce_values, reduce_distributions):
        with pytest.raises(ValueError, match=r"reduction='median' is unknown, it must be one of \('min'"):
            function(torch.zeros(2, 3, 4), "median")


@pytest.mark.parametrize("kind", ["mean", "qr"])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_continuous_ensemble_stacks_its_critics(kind, n_critics):
    q, (x, action, _) = make(kind, n_critics), inputs()
    expected = torch.stack([critic(x, action) for critic in q])
    assert torch.equal(q(x, action), expected)
    assert expected.shape == (n_critics, B, 1)
    each = np.stack([critic.distribution(x, action).detach() for critic in q])
    for reduction in ("min", "max", "mean", "mix"):
        result = q.target(x, action, reduction, LAM).detach()
        np.testing.assert_allclose(result, slow_reduce_distributions(each, reduction), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "qr"])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_discrete_ensemble_stacks_its_critics(kind, n_critics):
    q, (x, _, ids) = make(kind, n_critics, discrete=True), inputs()
    assert torch.equal(q(x), torch.stack([critic(x) for critic in q]))
    assert q(x).shape == (n_critics, B, A)
    each = np.stack([critic.distributions(x).detach() for critic in q])
    for reduction in ("min", "max", "mean", "mix"):
        of_all = q.target_all(x, reduction, LAM).detach()
        np.testing.assert_allclose(of_all, slow_reduce_distributions(each, reduction), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(q.target(x, ids, reduction, LAM), of_all[torch.arange(B), ids])


@pytest.mark.parametrize("kind", ["mean", "qr"])
def test_values_and_distributions_agree_about_the_expectation(kind):
    q, (x, action, _) = make(kind), inputs()
    expected = reduce_values(q(x, action), "min")
    torch.testing.assert_close(q.target(x, action).mean(dim=1, keepdim=True), expected)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", ["mean", "qr"])
def test_loss_is_the_sum_over_critics(kind, discrete):
    q, (x, action, ids) = make(kind, discrete=discrete), inputs()
    target = torch.randn(B, 4 if kind == "qr" else 1)
    chosen = ids if discrete else action
    expected = sum(critic.td_loss(target, x, chosen).item() for critic in q)
    assert q.td_loss(target, x, chosen).item() == pytest.approx(expected, rel=1e-6)


def test_critics_start_from_independent_weights():
    q = make()
    weights = [critic.head.weight for critic in q]
    assert not torch.equal(weights[0], weights[1])


def test_detached_value_is_the_value_and_its_gradient_reaches_the_action_only():
    q, (x, action, _) = make(), inputs()
    action.requires_grad_()
    value = q.detached(x, action, critic=1)
    assert torch.equal(value, q(x, action)[1])
    value.sum().backward()
    assert all(p.grad is None for p in q.parameters())
    again = action.detach().clone().requires_grad_()
    q(x, again)[1].sum().backward()
    torch.testing.assert_close(action.grad, again.grad)
    assert all(p.requires_grad for p in q.parameters())


def test_detached_value_of_all_critics():
    q, (x, action, _) = make("qr"), inputs()
    assert torch.equal(q.detached(x, action, critic=None), q(x, action))


def test_detached_call_between_loss_and_its_backward_changes_no_gradient():
    q, (x, action, _) = make(), inputs()
    twin = copy.deepcopy(q)
    target = torch.zeros(B, 1)
    loss = q.td_loss(target, x, action)
    q.detached(x, action)
    loss.backward(inputs=list(q.parameters()))
    twin.td_loss(target, x, action).backward()
    for p, other in zip(q.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad)


def test_detached_call_leaves_a_frozen_target_network_frozen():
    q, (x, action, _) = make(), inputs()
    q.requires_grad_(False).eval()
    q.detached(x, action)
    assert not any(p.requires_grad for p in q.parameters())
    assert not q.training


def test_critics_act_as_in_evaluation_in_an_actor_step_and_keep_their_state():
    encoder = VectorEncoderFactory((8,), use_batch_norm=True, dropout_rate=0.5)
    q, (x, action, _) = make(encoder=encoder), inputs()
    q.train()
    q.td_loss(torch.zeros(B, 1), x, action)  # the running statistics leave their initial values
    before = copy.deepcopy(q.state_dict())
    value = q.detached(x, action, critic=None)
    assert all(module.training for module in q.modules())
    assert all(torch.equal(after, before[name]) for name, after in q.state_dict().items())
    assert torch.equal(value, q.eval()(x, action))


def test_detached_call_that_fails_leaves_the_critics_as_they_were():
    q, (x, _, _) = make(), inputs()
    q.train()
    with pytest.raises(RuntimeError):
        q.detached(x, torch.zeros(B, A + 1))
    assert all(module.training for module in q.modules())
    assert all(p.requires_grad for p in q.parameters())


def test_n_critics_and_factories_by_name_dictionary_or_object():
    q = create_q_functions({"type": "qr", "params": {"n_quantiles": 2}}, "default", (2,), A, 2, discrete=True)
    assert len(q) == 2
    assert q.target_all(torch.zeros(1, 2)).shape == (1, A, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["mean", "qr"])
def test_ensemble_computes_the_same_on_a_gpu_without_waiting_for_it(kind):
    q, (x, action, _) = make(kind), inputs()
    target = torch.randn(B, 4)
    expected = q.td_loss(target, x, action), q.target(x, action, "mix"), q.detached(x, action)
    q.cuda()
    on_gpu = [t.cuda() for t in (target, x, action)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = q.td_loss(*on_gpu), q.target(*on_gpu[1:], "mix"), q.detached(*on_gpu[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result.cpu(), value, rtol=1e-4, atol=1e-5)
