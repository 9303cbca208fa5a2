import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from d3rlpy.algos import RLPD
from d3rlpy.augmentation import RandomShift
from d3rlpy.dataset import MDPDataset
from d3rlpy.models import VectorEncoderFactory, create_q_functions
from d3rlpy.models.optimizers import Optimizer
from d3rlpy.models.q_functions import ensemble
from d3rlpy.testing import two_step_dataset
from d3rlpy.testing.mdp import BEST_ACTIONS
from tests.algos.restate import numpy_of
from tests.algos.test_sac import squashed_sample
from tests.algos.test_td3 import QUIET, STATES
from tests.common.test_suite import SMALL_PIXEL
from tests.helpers import make_dataset, random_batch
from tests.online.helpers import Walk

N_CRITICS = 4


def normed(*hidden_units):
    return VectorEncoderFactory(hidden_units, use_layer_norm=True)


def impl_of(hidden_units=(16, 8), **params):
    """An impl in float64 whose slow critics, norms and temperature differ from their start."""
    encoders = {
        "actor_encoder_factory": VectorEncoderFactory(hidden_units),
        "critic_encoder_factory": normed(*hidden_units),
    }
    given = {"n_critics": N_CRITICS, "initial_temperature": 0.3, "random_state": 0, **encoders, **params}
    impl = RLPD(**given).create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    norms = [m for m in impl.q_funcs.modules() if isinstance(m, nn.LayerNorm)]
    with torch.no_grad():
        for p in [*impl.targ_q_funcs.parameters(), *(p for norm in norms for p in norm.parameters())]:
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return impl


def a_batch(seed=0):
    return random_batch(32, dtype=torch.float64, seed=seed)


@pytest.fixture
def noise(monkeypatch):
    """The normal variables that torch is going to draw."""
    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 2)))
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    return drawn.numpy()


def critic_of_the_paper(critic, x, a):
    """``w^T relu(LayerNorm(...))``, section 4.2, from the tensors in the order in which the network holds them."""
    tensors = [p.detach().double().numpy() for p in critic.parameters()]
    h = np.concatenate([x, a], axis=1)
    while len(tensors) > 2:
        weight, bias, gain, shift, *tensors = tensors
        z = h @ weight.T + bias
        z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
        h = np.maximum(gain * z + shift, 0)
    weight, bias = tensors
    return h @ weight.T + bias


def critics_of_the_paper(ensemble, x, a):
    return np.stack([critic_of_the_paper(critic, x, a) for critic in ensemble])


class TestLosses:
    @pytest.mark.parametrize("hidden_units", [(16, 8), (8, 8, 8)])
    @pytest.mark.parametrize("entropy_backup", [True, False])
    @pytest.mark.parametrize("drawn", [[2, 0], [1]])
    def test_the_target_is_the_smallest_of_the_drawn_slow_critics(self, drawn, entropy_backup, hidden_units, noise):
        impl = impl_of(hidden_units, n_target_critics=len(drawn), entropy_backup=entropy_backup)
        impl.draw_critics = lambda: drawn
        batch = a_batch()
        b = numpy_of(batch)
        action, log_prob = squashed_sample(impl, b["next_observations"], noise)
        slow = critics_of_the_paper(impl.targ_q_funcs, b["next_observations"], action)
        following = slow[drawn].min(axis=0) - (0.3 * log_prob if entropy_backup else 0.0)
        target = b["rewards"] + b["discounts"] * following
        online = critics_of_the_paper(impl.q_funcs, b["observations"], b["actions"])
        expected = sum(((target - online[i]) ** 2).mean() for i in range(N_CRITICS))  # all critics learn
        assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)

    def test_the_actor_follows_the_mean_of_all_critics(self, noise):
        impl, batch = impl_of(), a_batch()
        b = numpy_of(batch)
        action, log_prob = squashed_sample(impl, b["observations"], noise)
        q = critics_of_the_paper(impl.q_funcs, b["observations"], action).mean(axis=0)
        assert impl.actor_loss(batch).item() == pytest.approx((0.3 * log_prob - q).mean(), rel=1e-7)

    def test_the_gradient_of_the_actor_goes_through_layer_norm(self, noise):
        """Finite differences over the bias of the policy's head, with the noise held fixed."""
        impl, batch = impl_of(), a_batch()
        b, bias = numpy_of(batch), impl.policy.head.bias

        def loss():
            action, log_prob = squashed_sample(impl, b["observations"], noise)
            q = critics_of_the_paper(impl.q_funcs, b["observations"], action).mean(axis=0)
            return (0.3 * log_prob - q).mean()

        gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
        for i in range(4):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    bias[i] += step
                    values.append(loss())
                    bias[i] -= step
            assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)

    def test_critics_and_temperature_receive_no_gradient_from_the_actor_loss(self):
        impl = impl_of()
        impl.actor_loss(a_batch()).backward()
        others = [*impl.q_funcs.parameters(), *impl.temp.parameters(), *impl.targ_q_funcs.parameters()]
        assert all(p.grad is None for p in others)
        assert all(p.grad is not None for p in impl.policy.parameters())

    @pytest.mark.parametrize(("given", "entropy"), [(None, -1.0), (-3.0, -3.0), (1.2, 1.2)])
    def test_the_temperature_loss_by_hand(self, given, entropy):
        """Two action dimensions: the default is -2 / 2."""
        impl = impl_of(target_entropy=given)
        log_prob = torch.tensor([[1.0], [4.0]], dtype=torch.float64)  # entropy -2.5
        loss = impl.temp_loss(log_prob)
        assert loss.item() == pytest.approx(0.3 * (-2.5 - entropy))
        assert torch.autograd.grad(loss, impl.temp.log)[0].item() == pytest.approx(0.3 * (-2.5 - entropy))


class TestSubsets:
    def test_each_pair_is_equally_likely(self):
        impl = impl_of()
        torch.manual_seed(0)
        draws = [tuple(sorted(impl.draw_critics())) for _ in range(6000)]
        pairs = list(combinations(range(N_CRITICS), 2))
        assert set(draws) == set(pairs)
        for pair in pairs:  # 1000 expected, standard deviation 29
            assert abs(draws.count(pair) - 1000) < 120

    def test_each_single_critic_is_equally_likely(self):
        impl = impl_of(n_target_critics=1)
        torch.manual_seed(0)
        draws = [impl.draw_critics() for _ in range(4000)]
        for k in range(N_CRITICS):  # 1000 expected, standard deviation 27
            assert abs(draws.count([k]) - 1000) < 120

    @pytest.mark.parametrize("n", [1, 2])
    def test_they_are_drawn_anew_for_each_update(self, n, monkeypatch):
        impl = impl_of(n_target_critics=n)
        seen, target = [], impl.targ_q_funcs.target

        def watched(x, action, critics):
            seen.append(tuple(critics))
            return target(x, action, critics=critics)

        monkeypatch.setattr(impl.targ_q_funcs, "target", watched)
        for seed in range(30):
            impl.step(a_batch(seed))
        assert len(seen) == 30
        assert {k for drawn in seen for k in drawn} == set(range(N_CRITICS))
        assert len(set(seen)) > 3

    def test_other_slow_critics_have_no_say(self):
        impl = impl_of()
        impl.draw_critics = lambda: [3, 1]
        with torch.no_grad():
            for k in (0, 2):
                impl.targ_q_funcs.critics[k].head.bias.fill_(math.nan)
        assert math.isfinite(impl.critic_loss(a_batch()).item())
        with torch.no_grad():
            impl.targ_q_funcs.critics[1].head.bias.fill_(math.nan)
        assert math.isnan(impl.critic_loss(a_batch()).item())

    def test_critics_that_share_an_encoder_are_drawn_too(self):
        impl = impl_of(q_func_factory={"type": "mean", "params": {"share_encoder": True}}, entropy_backup=False)
        impl.draw_critics = lambda: [3, 1]
        batch = a_batch()
        with torch.no_grad():
            torch.manual_seed(0)
            got = impl.target(batch)
            torch.manual_seed(0)
            action, _ = impl.policy.sample(batch.next_observations)
            expected = impl.targ_q_funcs(batch.next_observations, action)[[1, 3]].amin(dim=0)
        assert torch.equal(got, expected)


def steps_by_optimizer(impl, monkeypatch):
    """Names of the optimizers in the order of their steps, from now on."""
    names, minimize = {id(optim): name for name, optim in impl.optimizers().items()}, Optimizer.minimize
    seen = []

    def watched(optim, loss):
        seen.append(names[id(optim)])
        minimize(optim, loss)

    monkeypatch.setattr(Optimizer, "minimize", watched)
    return seen


class TestUpdateCounts:
    def test_the_actor_and_the_temperature_move_after_every_gth_update_of_the_critics(self, monkeypatch):
        impl = impl_of(n_gradient_steps=3)
        seen = steps_by_optimizer(impl, monkeypatch)
        metrics = [set(impl.step(a_batch(seed))) for seed in range(7)]
        once = ["critic_optim"] * 3 + ["actor_optim", "temp_optim"]
        assert seen == [*once, *once, "critic_optim"]
        of_all = {"critic_loss", "actor_loss", "temp_loss", "temp"}
        assert metrics == [{"critic_loss"}, {"critic_loss"}, of_all] * 2 + [{"critic_loss"}]

    def test_twenty_updates_of_the_critics_are_the_default(self, monkeypatch):
        impl = impl_of((4,))
        assert impl.hp.n_gradient_steps == 20
        seen = steps_by_optimizer(impl, monkeypatch)
        for seed in range(40):
            impl.step(a_batch(seed))
        assert [seen.count(name) for name in ("critic_optim", "actor_optim", "temp_optim")] == [40, 2, 2]

    def test_slow_critics_take_over_their_share_in_every_update(self):
        impl = impl_of(tau=0.1, n_gradient_steps=3)
        for seed in range(3):
            before = [p.clone() for p in impl.targ_q_funcs.parameters()]
            impl.step(a_batch(seed))
            for old, new, online in zip(before, impl.targ_q_funcs.parameters(), impl.q_funcs.parameters(), strict=True):
                torch.testing.assert_close(new, 0.9 * old + 0.1 * online)

    def test_the_actor_sees_critics_and_batch_of_the_last_update(self):
        impl, order = impl_of(n_gradient_steps=1), []
        policy_loss = impl.policy_loss

        def watched(observations, *others):
            order.append((observations.clone(), [p.clone() for p in impl.q_funcs.parameters()]))
            return policy_loss(observations, *others)

        impl.policy_loss = watched
        batch = a_batch()
        impl.step(batch)
        ((observations, params),) = order
        assert torch.equal(observations, batch.observations)
        assert all(torch.equal(a, b) for a, b in zip(params, impl.q_funcs.parameters(), strict=True))


class ValuesStayUnread(TorchDispatchMode):
    """Fails where Python would have to wait for the value of a tensor."""

    WAITING = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal", "aten::masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.name() not in self.WAITING, func.name()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["mean", "qr"])
@pytest.mark.parametrize("share", [False, True])
def test_an_update_does_not_wait_for_the_device(share, kind):
    impl = impl_of(n_gradient_steps=1, q_func_factory={"type": kind, "params": {"share_encoder": share}})
    batches = [a_batch(0), a_batch(1)]
    impl.step(batches[0])  # the first step of an optimizer makes its state
    with ValuesStayUnread():
        impl.step(batches[1])


SMALL = {"actor_encoder_factory": VectorEncoderFactory((8,)), "critic_encoder_factory": normed(8)}


def logged_walk(n=60):
    """Rows that the walk can't give: all rewards are 7."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    observations = rng.normal(size=(n, 2)).astype(np.float32)
    return MDPDataset(observations, actions, np.full(n, 7.0), np.arange(n) % 10 == 9)


class TestOnline:
    @pytest.mark.parametrize(("given", "each"), [({}, 3), ({"n_updates": 1}, 1), ({"n_updates": 5}, 5)])
    def test_a_step_has_its_own_number_of_updates_unless_told_otherwise(self, given, each):
        algo = RLPD(batch_size=6, n_gradient_steps=3, n_critics=2, random_state=0, **SMALL)
        counts = []
        watch = {"callback": lambda algo, epoch, step: counts.append(algo.grad_step_)}
        algo.fit_online(Walk(), n_steps=20, update_start_step=10, **watch, **given, **QUIET)
        assert counts == [0] * 10 + [each * k for k in range(1, 11)]

    def test_half_of_each_batch_is_logged(self):
        algo = RLPD(batch_size=10, n_gradient_steps=2, n_critics=2, random_state=0, **SMALL)
        seen = []
        algo.create_impl((2,), 2)
        step = algo.impl.step
        algo.impl.step = lambda batch: seen.append(int((batch.rewards == 7).sum())) or step(batch)
        algo.fit_online(Walk(), n_steps=20, offline_dataset=logged_walk(), **QUIET)
        assert seen == [5] * (2 * 16)  # from the fifth step on, when the buffer has its share

    def test_prior_data_is_no_duty(self):
        algo = RLPD(batch_size=6, n_gradient_steps=2, n_critics=2, random_state=0, **SMALL)
        algo.fit_online(Walk(), n_steps=10, **QUIET)
        assert algo.grad_step_ == 2 * 5


def kinds(module):
    return [type(m).__name__ for m in module.modules() if not list(m.children())]


class TestNetworks:
    def test_layer_norm_stands_before_each_relu_of_the_critics_and_nowhere_else(self):
        impl = RLPD(random_state=0).create_impl((3,), 2).impl
        assert len(impl.q_funcs) == 10
        for critic in (*impl.q_funcs, *impl.targ_q_funcs):
            assert kinds(critic) == ["Linear", "LayerNorm", "ReLU"] * 2 + ["Linear"]
            assert critic.encoder.body.feature_size == 256
        assert "LayerNorm" not in kinds(impl.policy)

    def test_critics_of_images_have_it_too(self):
        impl = RLPD(n_critics=2, random_state=0).create_impl((1, 84, 84), 2).impl
        assert kinds(impl.q_funcs.critics[0]).count("LayerNorm") == 4
        assert "LayerNorm" not in kinds(impl.policy)

    def test_critics_are_computed_in_one_call_and_only_those_drawn_for_the_target(self, monkeypatch):
        impl, seen, original = impl_of(n_gradient_steps=1), [], ensemble.mlp

        def watched(x, n_members, weights, **options):
            seen.append(n_members)
            return original(x, n_members, weights, **options)

        monkeypatch.setattr(ensemble, "mlp", watched)
        impl.step(a_batch())
        assert seen == [2, N_CRITICS, N_CRITICS]  # target, critics, the critics of the actor's step


def circle(n, radius=0.5):
    """Points spread evenly over a disc, ``(n, 2)``, and their norms ``(n, 1)``: the data of figure 3."""
    r, phi = radius * torch.rand(n, 1).sqrt(), 2 * math.pi * torch.rand(n, 1)
    return torch.cat([r * phi.cos(), r * phi.sin()], dim=1), r


def critic_of_the_circle(use_layer_norm, width=24):
    """A critic of two layers that has learned ``||x||`` within radius 0.5; x is its observation and its action."""
    torch.manual_seed(0)
    encoder = VectorEncoderFactory((width, width), use_layer_norm=use_layer_norm)
    q_funcs = create_q_functions("mean", encoder, (1,), 1, 1)
    optim = torch.optim.Adam(q_funcs.parameters(), lr=3e-3)
    for _ in range(200):
        x, y = circle(128)
        optim.zero_grad()
        q_funcs.td_loss(y, x[:, :1], x[:, 1:]).backward()
        optim.step()
    return q_funcs


def largest_on_ring(q_funcs, radius):
    phi = torch.linspace(0, 2 * math.pi, 65)[:, None]
    with torch.no_grad():
        return q_funcs(radius * phi.cos(), radius * phi.sin()).abs().max().item()


def bound_of(critic):
    """``||w|| (max |gain| sqrt(width) + ||shift||) + |b|``, since what layer norm gives has the length sqrt(width)."""
    norm = critic.encoder.body.layers[-1][1]
    length = norm.weight.abs().max() * math.sqrt(len(norm.weight)) + norm.bias.norm()
    return (critic.head.weight.norm() * length + critic.head.bias.abs()).item()


class TestFigure3:
    def test_both_networks_learn_the_circle_and_only_layer_norm_bounds_what_lies_outside(self):
        plain, bounded = critic_of_the_circle(False), critic_of_the_circle(True)
        for q_funcs in (plain, bounded):
            x, y = circle(200)
            assert q_funcs.td_loss(y, x[:, :1], x[:, 1:]).item() < 1e-3
        assert largest_on_ring(plain, 1000) == pytest.approx(10 * largest_on_ring(plain, 100), rel=0.05)
        assert largest_on_ring(plain, 1000) > 500
        (critic,) = bounded
        rings = [largest_on_ring(bounded, radius) for radius in (1, 10, 100, 1000, 1e6)]
        assert max(rings) < bound_of(critic) < largest_on_ring(plain, 100)
        assert max(rings) < 3
        assert rings[-1] == pytest.approx(rings[-2], rel=0.01)
        assert max(rings) > critic.head.weight.norm().item()  # the paper's bound lacks the width

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_layer_norm_gives_vectors_of_the_length_of_the_root_of_the_width(self, scale):
        torch.manual_seed(0)
        (critic,) = create_q_functions("mean", normed(64, 64), (3,), 2, 1).double()
        x, a = scale * torch.randn(50, 3, dtype=torch.float64), scale * torch.randn(50, 2, dtype=torch.float64)
        first, second = critic.encoder.body.layers
        normal = second[1](second[0](first(torch.cat([x, a], dim=1))))
        assert normal.norm(dim=1).max().item() <= 8.0  # sqrt(64); less where the epsilon counts
        if scale == 1e3:
            assert normal.norm(dim=1).min().item() == pytest.approx(8.0, rel=1e-3)
        assert critic(x, a).abs().max().item() <= bound_of(critic)

    def test_a_single_feature_comes_as_close_to_the_bound_as_the_root_of_the_width_minus_1(self):
        """Without the width the bound would be ``||w|| = 1``: far outside, one feature is positive and 15 are not."""
        (critic,) = create_q_functions("mean", normed(16), (1,), 1, 1).double()
        with torch.no_grad():
            layer = critic.encoder.body.layers[0][0]
            layer.weight.fill_(-1.0)[0] = 15.0
            layer.bias.zero_()
            critic.head.weight.zero_()[0, 0] = 1.0
            critic.head.bias.zero_()
        far = torch.full((1, 1), 1e6, dtype=torch.float64)
        assert critic(far, far).item() == pytest.approx(math.sqrt(15))
        assert bound_of(critic) == pytest.approx(math.sqrt(16))


class Marked:
    """Stands in for the transform of an augmentation: the n-th call adds n."""

    def __init__(self):
        self.n = 0

    def __call__(self, augmentation, x):
        self.n += 1
        return x + self.n


def pixel_algo(**params):
    encoders = {"actor_encoder_factory": SMALL_PIXEL, "critic_encoder_factory": SMALL_PIXEL}
    return RLPD(**{"n_critics": 2, "batch_size": 4, "random_state": 0, "n_gradient_steps": 2, **encoders, **params})


class TestAugmentation:
    def test_each_update_changes_observations_and_next_observations_once_for_critics_and_actor(self, monkeypatch):
        monkeypatch.setattr(RandomShift, "transform", lambda self, x: marked(self, x))
        impl = pixel_algo(augmentation="random_shift").create_impl((1, 16, 16), 2).impl
        marked, seen = Marked(), []
        td_loss, sample = impl.q_funcs.td_loss, impl.policy.sample
        impl.q_funcs.td_loss = lambda target, x, action: seen.append(("critics", x)) or td_loss(target, x, action)
        impl.policy.sample = lambda x: seen.append(("policy", x)) or sample(x)
        batches = [random_batch(4, (1, 16, 16), seed=seed) for seed in range(2)]
        for batch in batches:
            impl.step(batch)
        first, second = batches
        expected = [
            ("policy", first.next_observations + 2),  # the target of the first update
            ("critics", first.observations + 1),
            ("policy", second.next_observations + 4),
            ("critics", second.observations + 3),
            ("policy", second.observations + 3),  # the actor: the same images as the critics
        ]
        assert [name for name, _ in seen] == [name for name, _ in expected]
        assert all(torch.equal(got, wanted) for (_, got), (_, wanted) in zip(seen, expected, strict=True))

    def test_several_follow_each_other(self, monkeypatch):
        monkeypatch.setattr(RandomShift, "transform", lambda self, x: 10 * x + self.shift_size)
        impl = pixel_algo(augmentation=[RandomShift(1), {"type": "random_shift", "params": {"shift_size": 2}}])
        impl = impl.create_impl((1, 16, 16), 2).impl
        seen, update = [], impl.update_critic
        impl.update_critic = lambda batch: seen.append(batch) or update(batch)
        batch = random_batch(4, (1, 16, 16))
        impl.step(batch)
        assert torch.equal(seen[0].observations, 10 * (10 * batch.observations + 1) + 2)
        assert seen[0].rewards is batch.rewards

    def test_images_are_shifted_in_training_but_not_in_acting(self):
        dataset = make_dataset(discrete=False, pixel=True, n_episodes=2, length=6)
        found = []
        for given in (None, [], "random_shift", "random_shift"):
            algo = pixel_algo(scaler="pixel", augmentation=given).fit(dataset, n_steps=2, **QUIET)
            found.append([p.clone() for p in algo.impl.q_funcs.parameters()])
        same = [all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True)) for other in found]
        assert same == [True, True, False, False]
        assert all(torch.equal(a, b) for a, b in zip(found[2], found[3], strict=True))  # drawn from the stream
        actions = [algo.predict(dataset.observations) for _ in range(2)]
        assert np.array_equal(*actions)

    def test_a_change_acts_on_the_next_update(self, monkeypatch):
        calls = []
        monkeypatch.setattr(RandomShift, "transform", lambda self, x: calls.append(self.shift_size) or x)
        algo = pixel_algo().create_impl((1, 16, 16), 2)
        for given in (None, "random_shift", RandomShift(2), None):
            algo.set_params(augmentation=given)
            algo.impl.step(random_batch(4, (1, 16, 16)))
        assert calls == [4, 4, 2, 2]

    def test_it_survives_files_and_clone(self, tmp_path):
        for given in ("random_shift", RandomShift(2), [RandomShift(3), "random_shift"]):
            algo = pixel_algo(augmentation=given).create_impl((1, 16, 16), 2)
            (tmp_path / "params.json").write_text(json.dumps(algo.saved_params()))
            twin = RLPD.from_json(tmp_path / "params.json")
            assert twin.augmentation == clone(algo).augmentation == given
        assert algo.set_params(augmentation=RandomShift(2), augmentation__shift_size=5).augmentation == RandomShift(5)

    @pytest.mark.parametrize(
        ("given", "shape", "error", "message"),
        [
            ("cutout", (1, 16, 16), ValueError, r"no augmentation is called 'cutout'; known are \['random_shift'\]"),
            (["random_shift", 3], (1, 16, 16), TypeError, r"kind augmentation, its name \(one of \['random_shift'\]"),
            ("random_shift", (3,), ValueError, r"augmentation='random_shift' changes images.*the shape \(3,\)"),
        ],
    )
    def test_what_cannot_be_done_is_said_when_networks_are_built(self, given, shape, error, message):
        with pytest.raises(error, match=message):
            RLPD(augmentation=given).create_impl(shape, 2)


class TestParameters:
    def test_defaults_are_those_of_table_1(self):
        algo = RLPD()
        assert (algo.batch_size, algo.gamma, algo.tau) == (256, 0.99, 0.005)
        assert (algo.n_critics, algo.n_gradient_steps, algo.updates_per_step) == (10, 20, 20)
        assert algo.actor_learning_rate == algo.critic_learning_rate == algo.temp_learning_rate == 3e-4
        assert (algo.initial_temperature, algo.target_entropy) == (1.0, None)
        assert RandomShift().shift_size == 4

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"n_critics": 1}, "n_target_critics=2 are more than n_critics=1"),
            ({"n_target_critics": 3}, r"n_target_critics=3 is unknown, it must be one of \[1, 2\]"),
            ({"target_entropy": 1.4}, r"target_entropy=1.4 must be a number of at most 1.3863"),
            ({"target_entropy": math.nan}, "target_entropy=nan must be a number"),
            ({"target_entropy": "auto"}, "target_entropy='auto' must be a number"),
            ({"n_gradient_steps": 0}, "n_gradient_steps=0 is out of bounds"),
            ({"entropy_backup": 1}, "entropy_backup must be True or False"),
        ],
    )
    def test_what_makes_no_sense_is_said_when_networks_are_built(self, given, message):
        with pytest.raises(ValueError, match=message):
            RLPD(**given).create_impl((3,), 2)

    def test_a_single_critic_is_enough_for_targets_of_one(self):
        impl = RLPD(n_critics=1, n_target_critics=1, random_state=0, **SMALL).create_impl((3,), 2).impl
        assert math.isfinite(impl.step(random_batch())["critic_loss"])


@pytest.mark.slow
def test_rlpd_finds_the_actions_of_two_steps_at_a_low_temperature():
    algo = RLPD(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, temp_learning_rate=0.0, initial_temperature=0.01, tau=0.05,
        gamma=0.9, batch_size=128, n_critics=3, n_gradient_steps=2, random_state=0,
        actor_encoder_factory=VectorEncoderFactory((24, 24)), critic_encoder_factory=normed(24, 24),
    )  # fmt: skip
    algo.fit(two_step_dataset(), n_steps=800, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.1)
