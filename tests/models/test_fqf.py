"""``fqf`` against the equations of its paper, written with loops."""

import numpy as np
import pytest
import torch

from d3rlpy.algos import SAC, TD3
from d3rlpy.models import Distribution, FQFQFunctionFactory, SGDFactory, VectorEncoderFactory, create_q_functions
from d3rlpy.models.optimizers import OPTIMIZERS
from d3rlpy.models.q_functions.fqf import FractionValues
from tests.models import kinds
from tests.models.kinds import A, B, array, batch, critic, evaluate, features, implicit_quantile

N = 4
FACTORY = FQFQFunctionFactory(n_quantiles=N, embed_size=7, fraction_rate=1.0)
each_space = pytest.mark.parametrize("discrete", [False, True])


def fractions(q, feature, k=0):
    """``tau_0 ... tau_N`` of critic k: sums of a softmax."""
    rows = slice(k * N, (k + 1) * N)
    logits = q.fraction_rate * (array(q.proposal.weight)[rows] @ feature + array(q.proposal.bias)[rows])
    return np.concatenate([[0], np.cumsum(np.exp(logits) / np.exp(logits).sum())])


def midway(taus):
    return (taus[1:] + taus[:-1]) / 2


@each_space
def test_values_are_weighted_by_the_widths_of_their_intervals(discrete):
    q, (x, action, _, _) = critic(FACTORY, discrete, 2), batch()
    values = evaluate(q, x, action)
    z, q_values, f = values.all_distributions(), array(values.expected()), features(q, x, action)
    for k in range(2):
        for b in range(B):
            taus = fractions(q, f[b], k)
            for a in range(A if discrete else 1):
                own = [implicit_quantile(q, f[b], a, t, k) for t in midway(taus)]
                np.testing.assert_allclose(array(z.values)[k, b, a], own, rtol=1e-6)
                np.testing.assert_allclose(array(z.probs)[k, b, a], np.diff(taus), rtol=1e-6)
                assert q_values[k, b, a] == pytest.approx(np.diff(taus) @ own, rel=1e-6)


@each_space
@pytest.mark.parametrize("explicit", [False, True])
def test_the_loss_is_quantile_regression_midway(discrete, explicit):
    q, (x, action, ids, target) = critic(FACTORY, discrete, 2), batch()
    probs = torch.softmax(torch.randn(B, 4, dtype=torch.float64), dim=1)
    given = Distribution(target, probs) if explicit else target
    loss = evaluate(q, x, action).td_loss(given, ids if discrete else action)
    f, total = features(q, x, action), 0.0
    for k in range(2):
        for b in range(B):
            levels = midway(fractions(q, f[b], k))
            own = [implicit_quantile(q, f[b], ids[b].item() if discrete else 0, t, k) for t in levels]
            total += kinds.quantile_loss(own, levels, array(target)[b], array(probs)[b] if explicit else None) / B
    assert loss.item() == pytest.approx(total, rel=1e-6)


def slow_proposal_gradient(q, f, ids, k, entropy_coeff):
    """``sum_i dW_1/dtau_i dtau_i/dlogits - c dH/dlogits`` by numerical derivatives of the fractions, mean of rows."""
    weight, bias = np.zeros((N, f.shape[1])), np.zeros(N)
    for b in range(B):
        taus = fractions(q, f[b], k)
        own = [implicit_quantile(q, f[b], ids[b], t, k) for t in midway(taus)]
        at = [implicit_quantile(q, f[b], ids[b], tau, k) for tau in taus]
        slope = np.array([2 * at[i] - own[i] - own[i - 1] for i in range(1, N)])
        probs = np.diff(taus)
        jacobian = np.diag(probs) - np.outer(probs, probs)  # dprobs/dlogits
        of_fractions = np.cumsum(jacobian, axis=0)[:-1].T @ slope
        of_entropy = entropy_coeff * jacobian @ (np.log(probs) + 1)
        weight += np.outer(of_fractions + of_entropy, f[b]) / B
        bias += (of_fractions + of_entropy) / B
    return weight, bias


@each_space
@pytest.mark.parametrize("entropy_coeff", [0.0, 0.3])
@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_the_proposal_receives_the_paper_s_derivative_and_not_its_derivative(discrete, entropy_coeff, rate):
    factory = FQFQFunctionFactory(N, 7, entropy_coeff=entropy_coeff, fraction_rate=rate)
    q, (x, action, ids, target) = critic(factory, discrete, 2), batch()
    evaluate(q, x, action).td_loss(target, ids if discrete else action).backward()
    f, chosen = features(q, x, action), ids.numpy() if discrete else np.zeros(B, int)
    slow = [slow_proposal_gradient(q, f, chosen, k, entropy_coeff) for k in range(2)]
    # As if there were no rate: that only shortens the way of the fractions.
    np.testing.assert_allclose(array(q.proposal.weight.grad), np.vstack([s[0] for s in slow]), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(array(q.proposal.bias.grad), np.hstack([s[1] for s in slow]), rtol=1e-6, atol=1e-12)


def distance(taus):
    """``W_1 = sum_i int |F(w) - F(midway_i)| dw`` over the intervals, for the quantile function ``F(w) = w^4``."""
    grid = np.linspace(0, 1, 400_001)[:-1] + 0.5 / 400_000
    index = np.searchsorted(taus, grid) - 1
    return np.abs(grid**4 - midway(taus)[index] ** 4).mean()


def test_the_derivative_is_that_of_the_distance():
    """By finite differences."""
    taus = np.array([0, 0.2, 0.55, 0.8, 1])
    for i in range(1, N):
        step = np.eye(N + 1)[i] * 1e-3
        numeric = (distance(taus + step) - distance(taus - step)) / 2e-3
        mid = midway(taus)
        assert numeric == pytest.approx(2 * taus[i] ** 4 - mid[i] ** 4 - mid[i - 1] ** 4, abs=1e-4)


def test_fractions_go_where_the_distance_is_least():
    """The quantile function is known; fractions learn from it alone, and end where the derivative vanishes."""

    class Known(FractionValues):
        def quantiles(self, taus):
            return (taus**4)[:, :, None].expand(-1, -1, A, -1)

    q, (x, _, ids, _) = critic(FACTORY), batch()
    optim = torch.optim.Adam(q.proposal.parameters(), lr=0.05)
    for _ in range(400):
        values = Known(x[None], q.weights(), q)
        optim.zero_grad()
        values.errors(values.distributions(ids), ids).sum().backward()
        optim.step()
    for row in array(Known(x[None], q.weights(), q).taus)[0]:
        taus, mid = np.concatenate([[0], row]), midway(np.concatenate([[0], row]))
        np.testing.assert_allclose(2 * taus[1:-1] ** 4, mid[1:] ** 4 + mid[:-1] ** 4, atol=5e-3)
        assert distance(taus) < 0.7 * distance(np.linspace(0, 1, N + 1))


@each_space
def test_each_loss_stays_with_its_network(discrete):
    """The quantile loss moves no fraction, the proposal's loss neither encoder nor quantiles."""
    encoder, (x, action, ids, _) = VectorEncoderFactory((8,)), batch()
    torch.manual_seed(0)
    q = create_q_functions(FACTORY, encoder, (2,), A, 1, discrete).double()
    values = q.evaluate(x, None if discrete else action)
    own = values.distributions(ids if discrete else action)
    proposal = values.proposal_loss(own.values.detach(), ids if discrete else action)
    assert proposal.abs().max() == 0
    names = [n for n, _ in q.named_parameters()]
    grads = torch.autograd.grad(proposal.sum(), list(q.parameters()), allow_unused=True, retain_graph=True)
    assert [n for n, g in zip(names, grads, strict=True) if g is not None] == [
        "critics.0.proposal.weight", "critics.0.proposal.bias",
    ]  # fmt: skip
    for loss in (own.values.sum(), own.probs.sum() + values.expected().sum()):
        grads = torch.autograd.grad(loss, list(q.parameters()), allow_unused=True, retain_graph=True)
        assert not [n for n, g in zip(names, grads, strict=True) if g is not None and "proposal" in n]


@pytest.mark.parametrize("optim", ["adam", SGDFactory(), "rmsprop"])
def test_fractions_move_at_their_own_rate_with_any_optimizer(optim):
    moves = []
    for rate in (1.0, 1e-3):
        q, (x, _, ids, target) = critic(FQFQFunctionFactory(N, 7, fraction_rate=rate)), batch()
        with torch.no_grad():
            q.proposal.weight.zero_()
            q.proposal.bias.zero_()
        q.evaluate(x)
        optimizer = OPTIMIZERS.resolve(optim).create(q.parameters(), 1e-3)
        before = q.evaluate(x).log_probs.detach()
        optimizer.minimize(q.evaluate(x).td_loss(target, ids))
        moves.append((q.evaluate(x).log_probs.detach() - before).abs().mean().item())
    assert moves[1] / moves[0] == pytest.approx(1e-3, rel=0.01)


def test_fractions_begin_at_equal_distances():
    q, (x, *_) = critic(FQFQFunctionFactory(n_quantiles=8)), batch()
    np.testing.assert_allclose(array(q.evaluate(x).taus)[0], np.tile(np.arange(1, 9) / 8, (B, 1)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [5e-5, 0.1])
def test_dqn_finds_the_values_of_a_corridor(rate):
    kinds.check_dqn_on_a_corridor(FQFQFunctionFactory(n_quantiles=8, embed_size=16, fraction_rate=rate))


@pytest.mark.slow
@pytest.mark.parametrize("cls", [SAC, TD3])
def test_actor_critics_find_the_actions_of_two_steps(cls):
    kinds.check_actor_critic_on_two_steps(cls, FQFQFunctionFactory(n_quantiles=8, embed_size=16))
