"""The generative model of BCQ, the perturbation of actions, and many actions for one observation."""

import numpy as np
import pytest
import torch

from d3rlpy.models import PixelEncoderFactory, VectorEncoderFactory, create_q_functions
from d3rlpy.models.bodies import Network
from d3rlpy.models.encoders import create_encoder_with_action
from d3rlpy.models.imitators import ConditionalVAE
from d3rlpy.models.policies import ResidualPolicy
from d3rlpy.models.q_functions import QRQFunctionFactory
from tests.algos.restate import mlp

B, N, A, LAM = 4, 3, 2, 0.75
KINDS = {
    "vector": (VectorEncoderFactory((8, 8)), (3,)),
    "batch norm": (VectorEncoderFactory((8,), use_batch_norm=True), (3,)),
    "pixel": (PixelEncoderFactory(((4, 3, 2),), 8), (2, 9, 9)),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def observations(shape, seed=0):
    return torch.randn(B, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_vae(kind="vector"):
    torch.manual_seed(0)
    factory, shape = KINDS[kind]
    return ConditionalVAE(factory, shape, A).double().eval(), observations(shape)


@pytest.fixture
def noise(monkeypatch):
    drawn = numbers(B, 2 * A, seed=7)
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    return drawn.numpy()


def constant(network, values):
    """Let a network give the same outputs for every input."""
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(values, dtype=torch.float64))


def test_the_loss_is_the_squared_error_of_the_decoded_sample_plus_the_weighted_divergence(noise):
    vae, x = make_vae()
    action = numbers(B, A).tanh()
    mean, log_std = np.split(mlp(vae.encoder, np.concatenate([x, action], axis=1)), 2, axis=1)
    assert np.abs(log_std).max() < 4  # so nothing is clamped
    std = np.exp(log_std)
    decoded = np.tanh(mlp(vae.decoder, np.concatenate([x, mean + std * noise], axis=1)))
    divergence = -0.5 * (1 + np.log(std**2) - mean**2 - std**2)
    expected = ((decoded - action.numpy()) ** 2).mean() + 0.3 * divergence.mean()
    assert vae.loss(x, action, 0.3).item() == pytest.approx(expected, rel=1e-9)


def test_the_divergence_by_hand():
    """Means 1 and 0, deviations 1 and 2: (1 + 1 - 1 - 0) / 2 = 1/2 and (0 + 4 - 1 - log 4) / 2."""
    vae, x = make_vae()
    constant(vae.encoder, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, np.log(2.0), np.log(2.0)])
    constant(vae.decoder, [0.0, 0.0])
    expected = 0.5 * (0.5 + 0.5 * (3 - np.log(4.0)))
    assert vae.loss(x, torch.zeros(B, A, dtype=torch.float64), 1.0).item() == pytest.approx(expected, rel=1e-12)


def test_the_divergence_is_zero_where_the_code_is_standard_normal():
    vae, x = make_vae()
    constant(vae.encoder, [0.0] * 8)
    constant(vae.decoder, [0.0] * 2)
    action = torch.full((B, A), 0.5, dtype=torch.float64)
    assert vae.loss(x, action, 100.0).item() == pytest.approx(0.25)


def test_log_standard_deviations_stay_between_minus_4_and_15():
    vae, x = make_vae()
    constant(vae.encoder, [0.0] * 4 + [-100.0, 100.0, 3.0, -3.0])
    assert vae.encode(x, numbers(B, A))[1][0].tolist() == [-4.0, 15.0, 3.0, -3.0]


def test_the_code_has_two_components_for_each_of_the_action():
    vae, x = make_vae()
    assert vae.latent_size == 2 * A
    assert vae.encode(x, numbers(B, A))[0].shape == (B, 2 * A)


def test_drawn_latents_are_normal_and_cut_at_one_half():
    vae, _ = make_vae()
    torch.manual_seed(0)
    latent = vae.draw_latent(torch.empty(2000, 3), 5)
    assert latent.shape == (2000, 5, 2 * A)
    assert latent.abs().max() == 0.5
    inside = (latent.abs() < 0.5).double().mean().item()
    assert inside == pytest.approx(0.3829, abs=0.01)  # of a normal variable within half a deviation
    assert latent.mean().item() == pytest.approx(0.0, abs=0.01)


def test_latents_for_bytes_of_an_image_have_the_type_of_the_networks():
    vae, _ = make_vae("pixel")
    assert vae.draw_latent(torch.zeros(2, 2, 9, 9, dtype=torch.uint8), 3).dtype == torch.float64


@each_kind
def test_many_latents_are_decoded_as_one_after_the_other(kind):
    vae, x = make_vae(kind)
    latent = numbers(B, N, 2 * A)
    expected = torch.stack([vae.decode(x, latent[:, i]) for i in range(N)], dim=1)
    torch.testing.assert_close(vae.decode(x, latent).unflatten(0, (B, N)), expected)
    torch.testing.assert_close(vae.decode(x, latent), vae.decode_raw(x, latent).tanh())


def make_residual(kind="vector"):
    torch.manual_seed(0)
    factory, shape = KINDS[kind]
    policy = ResidualPolicy(create_encoder_with_action(factory, shape, A), A)
    return policy.double().eval(), observations(shape)


def test_a_perturbation_is_the_scaled_tanh_of_the_network():
    policy, x = make_residual()
    action = 0.5 * numbers(B, A).tanh()
    expected = action.numpy() + 0.3 * np.tanh(mlp(policy, np.concatenate([x, action], axis=1)))
    np.testing.assert_allclose(policy(x, action, 0.3).detach(), expected, rtol=1e-12)


def test_a_perturbation_reaches_its_range_and_never_leaves_that_of_actions():
    policy, x = make_residual()
    constant(policy, [100.0, -100.0])
    action = torch.tensor([[0.2, 0.2], [0.97, -0.97], [-1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.25, 0.15], [1.0, -1.0], [-0.95, 0.95], [0.05, -0.05]], dtype=torch.float64)
    torch.testing.assert_close(policy(x, action, 0.05), expected)
    torch.testing.assert_close(policy(x, action, 0.0), action)


@each_kind
def test_many_actions_are_perturbed_as_one_after_the_other(kind):
    policy, x = make_residual(kind)
    action = numbers(B, N, A).tanh()
    expected = torch.stack([policy(x, action[:, i], 0.2) for i in range(N)], dim=1)
    torch.testing.assert_close(policy(x, action, 0.2).unflatten(0, (B, N)), expected)


Q_FUNCS = {"mean": "mean", "qr": QRQFunctionFactory(n_quantiles=4)}


def make_critics(kind, q_func):
    torch.manual_seed(0)
    factory, shape = KINDS[kind]
    return create_q_functions(Q_FUNCS[q_func], factory, shape, A, 3).double().eval(), observations(shape)


@each_kind
@pytest.mark.parametrize("q_func", Q_FUNCS)
def test_values_of_many_actions_equal_a_loop_over_actions_and_critics(kind, q_func):
    critics, x = make_critics(kind, q_func)
    actions = numbers(B, N, A).tanh()
    expected = torch.stack(
        [torch.stack([c(x, actions[:, i])[0, :, 0] for i in range(N)], dim=1) for c in critics.critics]
    )
    torch.testing.assert_close(critics.expected_of_many(x, actions), expected)
    torch.testing.assert_close(critics.detached(x, actions, critic=0).view(B, N), expected[0])


@each_kind
@pytest.mark.parametrize("q_func", Q_FUNCS)
@pytest.mark.parametrize("reduction", ["min", "max", "mean", "mix"])
def test_the_best_of_many_actions_equals_a_loop_over_rows_actions_and_critics(kind, q_func, reduction):
    critics, x = make_critics(kind, q_func)
    actions = numbers(B, N, A).tanh()
    target, best = critics.best_of(x, actions, reduction, LAM)
    for b in range(B):
        scores, values = [], []
        for i in range(N):
            pair = x[b : b + 1], actions[b : b + 1, i]
            z = torch.stack([c.evaluate(*pair).distributions(pair[1])[0, 0] for c in critics.critics])  # (K, N)
            means = z.mean(dim=1)
            low, high = z[means.argmin()], z[means.argmax()]
            z = {"min": low, "max": high, "mean": z.mean(dim=0), "mix": LAM * low + (1 - LAM) * high}[reduction]
            scores.append(z.mean().item())
            values.append(z)
        assert best[b].item() == int(np.argmax(scores))
        torch.testing.assert_close(target[b], values[best[b]])
    assert len(set(best.tolist())) > 1 or kind != "vector"  # so the wrong row would be noticed


class OwnBody(torch.nn.Module):
    """An encoder of a user, which knows nothing of many actions."""

    feature_size = 5

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 5)

    def forward(self, x, action):
        assert action.dim() == 2
        return self.layer(torch.cat([x, action], dim=1)).tanh()


def test_an_encoder_of_ones_own_gets_the_pairs_row_by_row():
    network = Network(OwnBody(), 2).double()
    x, actions = observations((3,)), numbers(B, N, A)
    expected = torch.stack([network.outputs(x, actions[:, i]) for i in range(N)], dim=1)
    torch.testing.assert_close(network.outputs(x, actions).unflatten(0, (B, N)), expected)


def test_gradients_through_the_decoder_equal_finite_differences():
    vae, x = make_vae()
    latent = numbers(B, N, 2 * A).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: vae.decode(x, z), latent)
