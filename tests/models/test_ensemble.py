"""Ensembles of critics: reductions against numpy, sums of losses, actor steps that leave critics alone."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.models import VectorEncoderFactory, create_q_functions
from d3rlpy.models.q_functions import Distribution, reduce_distributions, reduce_values
from d3rlpy.models.q_functions.distribution import as_distribution, expected, reshaped

B, A, LAM = 5, 3, 0.75
PARAMS = {
    "mean": {},
    "qr": {"n_quantiles": 4},
    "iqn": {"n_quantiles": 6, "n_greedy_quantiles": 3, "embed_size": 8},
    "fqf": {"n_quantiles": 5, "embed_size": 8, "fraction_rate": 1.0},
    "c51": {"n_atoms": 7, "v_min": -2.0, "v_max": 2.0},
}
KINDS = list(PARAMS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind="mean", n_critics=3, discrete=False, encoder=None, **params):
    torch.manual_seed(0)
    encoder = encoder or VectorEncoderFactory((8,))
    factory = {"type": kind, "params": PARAMS[kind] | params}
    return create_q_functions(factory, encoder, (2,), A, n_critics, discrete)


def seeded(function, *args):
    """The result for levels drawn from the same seed."""
    torch.manual_seed(7)
    return function(*args)


def numpy_of(z):
    """Values and probabilities of a distribution as arrays."""
    z = as_distribution(z)
    return z.values.detach().numpy(), z.probs.detach().numpy()


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


def test_explicit_probabilities_are_mixed():
    z = Distribution(
        torch.tensor([[[0.0, 4.0]], [[1.0, 2.0]], [[5.0, 6.0]]]), torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]], [[0, 1.0]]])
    )  # expected values 0.4, 1.5 and 6

    def parts(reduction):
        return [t.squeeze(0).tolist() for t in numpy_of(reduce_distributions(z, reduction, LAM))]

    assert parts("min") == [[0, 4], pytest.approx([0.9, 0.1])]
    assert parts("max") == [[5, 6], [0, 1]]
    assert parts("mix") == [[0, 4, 5, 6], pytest.approx([0.675, 0.075, 0, 0.25])]
    assert parts("mean") == [[0, 4, 1, 2, 5, 6], pytest.approx([0.3, 0.1 / 3, 1 / 6, 1 / 6, 0, 1 / 3])]


def test_a_distribution_is_shifted_and_scaled_like_a_tensor():
    z = Distribution(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.tensor([[0.5, 0.5], [0.1, 0.9]]))
    reward, discount = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [0.0]])
    moved = reward + discount * (z - torch.tensor([[2.0], [7.0]]))
    assert moved.values.tolist() == [[0, 1], [2, 2]]
    assert moved.probs is z.probs
    assert ((z * 2.0 + 1.0) - 1.0).values.tolist() == (2.0 * z).values.tolist()
    torch.testing.assert_close(z.expected(), torch.tensor([1.0, 2.8]))


@each_kind
@pytest.mark.parametrize("n_critics", [1, 3])
def test_continuous_ensemble_stacks_its_critics(kind, n_critics):
    q, (x, action, _) = make(kind, n_critics), inputs()
    of_each = torch.cat([critic(x, action) for critic in q])
    torch.testing.assert_close(q(x, action), of_each)
    assert of_each.shape == (n_critics, B, 1)
    each = [numpy_of(seeded(critic.evaluate(x, action).distributions, action)) for critic in q]
    for reduction in ("min", "max", "mean", "mix"):
        values, probs = numpy_of(seeded(q.target, x, action, reduction, LAM))
        if kind in ("mean", "qr", "iqn"):
            slow = slow_reduce_distributions(np.stack([values[0] for values, _ in each]), reduction)
            np.testing.assert_allclose(values, slow, rtol=1e-5, atol=1e-6)
        else:  # compared through the expected values
            means = np.stack([(v * p).sum(axis=2)[0] for v, p in each])
            np.testing.assert_allclose((values * probs).sum(axis=1), slow_reduce_values(means, reduction), atol=1e-5)


@each_kind
@pytest.mark.parametrize("n_critics", [1, 3])
def test_discrete_ensemble_stacks_its_critics(kind, n_critics):
    q, (x, _, ids) = make(kind, n_critics, discrete=True), inputs()
    torch.testing.assert_close(q(x), torch.cat([critic(x) for critic in q]))
    assert q(x).shape == (n_critics, B, A)
    each = [numpy_of(seeded(critic.evaluate(x).all_distributions)) for critic in q]
    for reduction in ("min", "max", "mean", "mix"):
        of_all = seeded(q.target_all, x, reduction, LAM)
        if kind in ("mean", "qr", "iqn"):
            slow = slow_reduce_distributions(np.stack([values[0] for values, _ in each]), reduction)
            np.testing.assert_allclose(of_all.detach(), slow, rtol=1e-5, atol=1e-6)
        else:
            means = np.stack([(v * p).sum(axis=-1)[0] for v, p in each])
            slow = slow_reduce_values(means, reduction)
            np.testing.assert_allclose(of_all.expected().detach(), slow, atol=1e-5)
        chosen = numpy_of(reshaped(of_all, lambda t: t[torch.arange(B), ids]))
        for got, wanted in zip(numpy_of(seeded(q.target, x, ids, reduction, LAM)), chosen, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-6)
        best = q(x).mean(dim=0).argmax(dim=1)
        chosen = numpy_of(reshaped(of_all, lambda t, best=best: t[torch.arange(B), best]))
        for got, wanted in zip(numpy_of(seeded(q.greedy_target, x, reduction, LAM)), chosen, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-6)


@each_kind
@pytest.mark.parametrize("drawn", [[1], [2, 0]])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_target_of_some_critics_is_reduced_over_these_alone(discrete, share, drawn, kind):
    q, (x, action, ids) = make(kind, discrete=discrete, share_encoder=share), inputs()
    chosen = ids if discrete else action
    of_all = seeded(lambda: q.evaluate(x, None if discrete else action).distributions(chosen))
    wanted = numpy_of(reduce_distributions(reshaped(of_all, lambda t: t[drawn]), "min"))
    for got, value in zip(numpy_of(seeded(lambda: q.target(x, chosen, critics=drawn))), wanted, strict=True):
        np.testing.assert_allclose(got, value, atol=1e-6)


@pytest.mark.parametrize("norm", [False, True])
def test_a_target_of_some_critics_does_not_compute_the_others(norm):
    q, (x, action, _) = make(encoder=VectorEncoderFactory((8,), use_layer_norm=norm)), inputs()
    assert q.plain_weights is not None
    with torch.no_grad():
        q.critics[1].head.bias.fill_(float("nan"))
        assert torch.isfinite(q.target(x, action, "mean", critics=[2, 0])).all()
        assert torch.isnan(q.target(x, action, "mean", critics=[2, 1])).all()


@pytest.mark.parametrize("kind", ["mean", "qr", "fqf", "c51"])  # iqn takes other levels
def test_values_and_distributions_agree_about_the_expectation(kind):
    q, (x, action, _) = make(kind), inputs()
    reduced = reduce_values(q(x, action), "min")
    torch.testing.assert_close(expected(q.target(x, action))[:, None], reduced)


@pytest.mark.parametrize("discrete", [False, True])
@each_kind
def test_loss_is_the_sum_over_critics(kind, discrete):
    q, (x, action, ids) = make(kind, discrete=discrete), inputs()
    target = torch.randn(B, 1 if kind == "mean" else 4)
    chosen = ids if discrete else action
    of_each = sum(seeded(c.evaluate(x, None if discrete else action).td_loss, target, chosen).item() for c in q)
    assert seeded(q.td_loss, target, x, chosen).item() == pytest.approx(of_each, rel=1e-6)


@each_kind
def test_policy_target_is_the_expectation_over_actions(kind):
    q, (x, _, _) = make(kind, discrete=True), inputs()
    probs = torch.softmax(torch.randn(B, A), dim=1)
    of_all, result = seeded(q.target_all, x), seeded(q.policy_target, x, probs)
    torch.testing.assert_close(expected(result), (probs * expected(of_all)).sum(dim=1))
    if isinstance(of_all, torch.Tensor):  # level by level
        slow = sum(probs[:, [a]] * of_all[:, a] for a in range(A))
        torch.testing.assert_close(result, slow)
    else:  # every value of every action, with the probability of both
        for b in range(B):
            pairs = [
                (of_all.values[b, a, i].item(), (probs[b, a] * of_all.probs[b, a, i]).item())
                for a in range(A)
                for i in range(of_all.shape[2])
            ]
            got = list(zip(result.values[b].tolist(), result.probs[b].tolist(), strict=True))
            np.testing.assert_allclose(sorted(got), sorted(pairs), atol=1e-6)


@each_kind
@pytest.mark.parametrize("share", [False, True])
def test_best_of_takes_the_distribution_of_the_best_action(kind, share):
    q, (x, _, _) = make(kind, share_encoder=share), inputs()
    actions = torch.randn(B, 6, A)
    best, index = seeded(q.best_of, x, actions, "mix", LAM)
    of_all = q.expected_of_many(x, actions)
    torch.testing.assert_close(of_all, torch.stack([q(x, actions[:, i]).squeeze(2) for i in range(6)], dim=2))
    assert index.tolist() == reduce_values(of_all, "mix", LAM).argmax(dim=1).tolist()
    wanted = seeded(q.target, x, actions[torch.arange(B), index], "mix", LAM)
    for got, value in zip(numpy_of(best), numpy_of(wanted), strict=True):
        np.testing.assert_allclose(got, value, atol=1e-5)


def test_critics_start_from_independent_weights():
    q = make()
    weights = [critic.head.weight for critic in q]
    assert not torch.equal(weights[0], weights[1])


@each_kind
@pytest.mark.parametrize("share", [False, True])
def test_detached_value_is_the_value_and_its_gradient_reaches_the_action_only(kind, share):
    q, (x, action, _) = make(kind, share_encoder=share), inputs()
    action.requires_grad_()
    value = q.detached(x, action, critic=1)
    torch.testing.assert_close(value, q(x, action)[1])
    value.sum().backward()
    assert all(p.grad is None for p in q.parameters())
    again = action.detach().clone().requires_grad_()
    q(x, again)[1].sum().backward()
    torch.testing.assert_close(action.grad, again.grad)
    assert all(p.requires_grad for p in q.parameters())


@each_kind
@pytest.mark.parametrize("share", [False, True])
def test_detached_value_of_all_critics(kind, share):
    q, (x, action, _) = make(kind, share_encoder=share), inputs()
    torch.testing.assert_close(q.detached(x, action, critic=None), q(x, action))
    q = make(kind, share_encoder=share, discrete=True)
    torch.testing.assert_close(q.detached(x, critic=None), q(x))
    torch.testing.assert_close(q.detached(x, critic=2), q(x)[2])


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
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["mean", "qr", "fqf", "c51"])  # the levels of iqn are other random numbers
def test_ensemble_computes_the_same_on_a_gpu_without_waiting_for_it(kind, share):
    q, (x, action, _) = make(kind, share_encoder=share), inputs()
    target = torch.randn(B, 4)
    wanted = q.td_loss(target, x, action), expected(q.target(x, action, "mix")), q.detached(x, action)
    q.cuda()
    on_gpu = [t.cuda() for t in (target, x, action)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = q.td_loss(*on_gpu), expected(q.target(*on_gpu[1:], "mix")), q.detached(*on_gpu[1:])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, value in zip(results, wanted, strict=True):
        torch.testing.assert_close(result.cpu(), value, rtol=1e-4, atol=1e-5)
