"""``iqn`` against the equations of its paper, written with loops."""

import numpy as np
import pytest
import torch

from d3rlpy.algos import DQN, SAC, TD3
from d3rlpy.models import IQNQFunctionFactory, VectorEncoderFactory, create_q_functions
from tests.helpers import random_batch
from tests.models import kinds
from tests.models.kinds import A, B, array, batch, critic, evaluate, features, implicit_quantile

N = 5
FACTORY = IQNQFunctionFactory(n_quantiles=N, n_greedy_quantiles=4, embed_size=7)
each_space = pytest.mark.parametrize("discrete", [False, True])


@pytest.fixture
def drawn(monkeypatch):
    """The levels that are drawn, in order."""
    levels, rand = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda *a, **k: levels.append(rand(*a, **k)) or levels[-1])
    return levels


def test_cosines_begin_with_the_constant_one():
    """At tau = 1/2: cos 0 = 1, cos pi/2 = 0, cos pi = -1 (eq. 4 counts from i = 0)."""
    q = critic(IQNQFunctionFactory(embed_size=3))
    with torch.no_grad():
        q.embed.weight.copy_(torch.tensor([[10.0, 100.0, 1.0], [0.0, 0.0, 1.0]]))
        q.embed.bias.fill_(0.5)
    phi = q.evaluate(torch.zeros(1, 2, dtype=torch.float64)).embedding(torch.full((1, 1), 0.5, dtype=torch.float64))
    np.testing.assert_allclose(array(phi).ravel(), [10 - 1 + 0.5, 0], atol=1e-6)  # relu(-0.5) = 0


@each_space
@pytest.mark.parametrize("n_critics", [1, 2])
def test_quantiles_are_those_of_equation_4(discrete, n_critics):
    q, (x, action, _, _) = critic(FACTORY, discrete, n_critics), batch()
    taus = torch.rand(N, dtype=torch.float64)
    got = array(evaluate(q, x, action).quantiles(taus))
    f = features(q, x, action)
    for k in range(n_critics):
        for b in range(B):
            for a in range(A if discrete else 1):
                wanted = [implicit_quantile(q, f[b], a, tau, k) for tau in array(taus)]
                np.testing.assert_allclose(got[k, b, a], wanted, rtol=1e-6, atol=1e-9)


@each_space
@pytest.mark.parametrize("training", [False, True])
def test_expected_values_are_means_at_fixed_midpoints_in_any_mode(discrete, training, drawn):
    q, (x, action, _, _) = critic(FACTORY, discrete, 2).train(training), batch()
    got, f = array(evaluate(q, x, action).expected()), features(q, x, action)
    for k in range(2):
        for b in range(B):
            for a in range(A if discrete else 1):
                wanted = np.mean([implicit_quantile(q, f[b], a, t, k) for t in (0.125, 0.375, 0.625, 0.875)])
                assert got[k, b, a] == pytest.approx(wanted, rel=1e-6)
    assert drawn == []


@each_space
@pytest.mark.parametrize("training", [False, True])
def test_the_loss_is_that_of_equation_3_at_drawn_levels(discrete, training, drawn):
    q, (x, action, ids, target) = critic(FACTORY, discrete, 2).train(training), batch()
    loss = evaluate(q, x, action).td_loss(target, ids if discrete else action)
    (taus,) = drawn
    assert taus.shape == (N,)
    f, total = features(q, x, action), 0.0
    for k in range(2):
        for b in range(B):
            own = [implicit_quantile(q, f[b], ids[b].item() if discrete else 0, t, k) for t in array(taus)]
            total += kinds.quantile_loss(own, array(taus), array(target)[b]) / B
    assert loss.item() == pytest.approx(total, rel=1e-6)


def test_levels_are_drawn_anew_for_target_and_prediction_although_slow_copies_never_train(drawn):
    impl = DQN(q_func_factory=FACTORY, random_state=0).create_impl((2,), A).impl.train()
    impl.step(random_batch(B, (2,), A, discrete=True))
    target, own = (levels for levels in drawn if levels.shape == (N,))
    assert not torch.equal(target, own)
    assert target.min() >= 0
    assert target.max() < 1
    assert not impl.targ_q_funcs.training


def test_all_critics_and_actions_take_the_same_levels():
    """Otherwise a mean of quantiles over critics or actions would not be one of equal levels."""
    q = create_q_functions(FACTORY, VectorEncoderFactory((4,)), (2,), A, 2, discrete=True)
    with torch.no_grad():
        for mine, other in zip(q.critics[0].parameters(), q.critics[1].parameters(), strict=True):
            other.copy_(mine)
        q.critics[0].head.weight[1:] = q.critics[0].head.weight[0]
        q.critics[1].head.weight[1:] = q.critics[1].head.weight[0]
        q.critics[0].head.bias.zero_()
        q.critics[1].head.bias.zero_()
    z = q.evaluate(torch.randn(B, 2)).all_distributions()
    torch.testing.assert_close(z, z[:1, :, :1].expand_as(z))


def test_quantiles_learn_a_known_distribution():
    """Targets are 0 or 10 with equal probability: the lower half of the levels goes to 0 and the upper one to 10."""
    torch.manual_seed(0)
    q = create_q_functions(IQNQFunctionFactory(16, 16, 16), VectorEncoderFactory((16,)), (1,), 1, 1, discrete=True)
    x, ids = torch.ones(64, 1), torch.zeros(64, dtype=torch.int64)
    target = torch.tensor([[0.0], [10.0]]).repeat(32, 1)
    optim = torch.optim.Adam(q.parameters(), lr=0.02)
    for _ in range(600):
        optim.zero_grad()
        q.td_loss(target, x, ids).backward()
        optim.step()
    z = q.evaluate(x[:1]).quantiles(torch.tensor([0.1, 0.3, 0.7, 0.9])).flatten()
    np.testing.assert_allclose(array(z), [0, 0, 10, 10], atol=1.0)
    assert q(x[:1]).item() == pytest.approx(5, abs=0.7)


@pytest.mark.slow
def test_dqn_finds_the_values_of_a_corridor():
    kinds.check_dqn_on_a_corridor(IQNQFunctionFactory(n_quantiles=16, embed_size=16))


@pytest.mark.slow
@pytest.mark.parametrize("cls", [SAC, TD3])
def test_actor_critics_find_the_actions_of_two_steps(cls):
    kinds.check_actor_critic_on_two_steps(cls, IQNQFunctionFactory(n_quantiles=16, embed_size=16))
