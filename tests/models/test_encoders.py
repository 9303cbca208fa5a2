"""Encoders: what a layer is made of, dense connections, factories, own factories, clear errors."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from d3rlpy.models import (
    DefaultEncoderFactory,
    DenseEncoderFactory,
    DeterministicPolicy,
    EncoderFactory,
    PixelEncoderFactory,
    VectorEncoderFactory,
    create_encoder,
    create_encoder_factory,
    create_encoder_with_action,
    create_q_functions,
    register_encoder_factory,
)
from d3rlpy.models.encoders import ENCODERS
from d3rlpy.models.layers import ACTIVATIONS

SMALL = ((3, 3, 1), (4, 2, 2))

ACTIVATION_TWINS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
}


def parameters(module):
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def layer_norm(x):
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)


def kinds(module):
    """Names of the classes of the leaf modules, in order."""
    return [type(m).__name__ for m in module.modules() if not list(m.children())]


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_vector_encoder_equals_its_numpy_restatement(activation):
    encoder = VectorEncoderFactory((5, 4), activation=activation).create((3,)).double()
    p, x = parameters(encoder), np.random.default_rng(0).normal(size=(6, 3))
    act = ACTIVATION_TWINS[activation]
    h = act(x @ p["layers.0.0.weight"].T + p["layers.0.0.bias"])
    h = act(h @ p["layers.1.0.weight"].T + p["layers.1.0.bias"])
    np.testing.assert_allclose(encoder(torch.from_numpy(x)).detach(), h, rtol=1e-9, atol=1e-12)


def test_dense_encoder_reads_the_observation_and_action_again_in_every_later_layer():
    factory = VectorEncoderFactory((5, 4, 3), use_dense=True)
    encoder = factory.create_with_action((2,), 1).double()
    p, rng = parameters(encoder.body), np.random.default_rng(0)
    x, a = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    inputs = np.hstack([x, a])
    h = inputs
    for i in range(3):
        read = h if i == 0 else np.hstack([h, inputs])
        h = np.maximum(read @ p[f"layers.{i}.0.weight"].T + p[f"layers.{i}.0.bias"], 0)
    result = encoder(torch.from_numpy(x), torch.from_numpy(a))
    np.testing.assert_allclose(result.detach(), h, rtol=1e-9, atol=1e-12)


def test_layer_norm_comes_before_the_activation():
    encoder = VectorEncoderFactory((5,), use_layer_norm=True).create((3,)).double()
    p, x = parameters(encoder), np.random.default_rng(0).normal(size=(6, 3))
    h = np.maximum(layer_norm(x @ p["layers.0.0.weight"].T + p["layers.0.0.bias"]), 0)
    np.testing.assert_allclose(encoder(torch.from_numpy(x)).detach(), h, rtol=1e-9, atol=1e-12)


def test_batch_norm_comes_after_the_activation_and_normalises_the_last_layer_once():
    encoder = VectorEncoderFactory((5,), use_batch_norm=True).create((3,)).double().train()
    p, x = parameters(encoder), np.random.default_rng(0).normal(size=(6, 3))
    h = np.maximum(x @ p["layers.0.0.weight"].T + p["layers.0.0.bias"], 0)
    expected = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
    np.testing.assert_allclose(encoder(torch.from_numpy(x)).detach(), expected, rtol=1e-9, atol=1e-12)


def test_every_layer_has_each_part_exactly_once():
    options = {"use_batch_norm": True, "use_layer_norm": True, "dropout_rate": 0.1, "activation": "tanh"}
    vector = ["Linear", "LayerNorm", "Tanh", "BatchNorm1d", "Dropout"]
    conv = ["Conv2d", "LayerNorm", "Tanh", "BatchNorm2d", "Dropout2d"]
    assert kinds(VectorEncoderFactory((5, 4), **options).create((3,))) == 2 * vector
    pixel = PixelEncoderFactory(SMALL, 6, **options)
    assert kinds(pixel.create((1, 8, 8))) == 2 * conv + vector
    assert kinds(pixel.create_with_action((1, 8, 8), 2)) == 2 * conv + vector
    assert kinds(DenseEncoderFactory(**options).create((3,))) == 4 * vector


def test_dropout_keeps_the_expected_share_while_training_and_everything_in_evaluation():
    torch.manual_seed(0)
    encoder = VectorEncoderFactory((2000,), dropout_rate=0.25, activation="tanh").create((3,))
    x = torch.randn(1, 3)
    whole = encoder.eval()(x)
    dropped = encoder.train()(x)
    kept = dropped != 0
    assert 0.70 < kept.float().mean().item() < 0.80
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


def test_pixel_encoder_equals_its_numpy_restatement():
    encoder = PixelEncoderFactory(((2, 3, 2),), 4).create((1, 5, 5)).double()
    p, x = parameters(encoder), np.random.default_rng(0).normal(size=(3, 1, 5, 5))
    weight, bias = p["convolutions.layers.0.0.weight"], p["convolutions.layers.0.0.bias"]
    h = np.zeros((3, 2, 2, 2))
    for f, i, j in itertools.product(range(2), range(2), range(2)):
        patch = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        h[:, f, i, j] = np.maximum((patch * weight[f]).sum(axis=(1, 2, 3)) + bias[f], 0)
    h = np.maximum(h.reshape(3, -1) @ p["layer.0.weight"].T + p["layer.0.bias"], 0)
    np.testing.assert_allclose(encoder(torch.from_numpy(x)).detach(), h, rtol=1e-9, atol=1e-12)


def test_layer_norm_of_a_convolution_covers_channels_and_pixels():
    encoder = PixelEncoderFactory(((2, 3, 2),), 4, use_layer_norm=True).create((1, 5, 5)).double()
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    h = encoder.convolutions.layers[0][0](x).flatten(1).detach().numpy()
    result = encoder.convolutions(x).detach()
    np.testing.assert_allclose(result, np.maximum(layer_norm(h), 0), rtol=1e-9, atol=1e-12)


def test_pixel_encoder_reads_the_action_in_its_last_layer():
    encoder = PixelEncoderFactory(SMALL, 6).create_with_action((1, 8, 8), 2)
    x, a = torch.rand(3, 1, 8, 8), torch.rand(3, 2)
    read = torch.cat([encoder.convolutions(x), a], dim=1)
    assert torch.equal(encoder(x, a), encoder.layer(read))


def test_bytes_of_an_image_are_read_as_numbers():
    encoder = PixelEncoderFactory(SMALL, 6).create((1, 8, 8))
    x = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(encoder(x), encoder(x.float()))


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8)])
def test_discrete_action_is_read_as_a_one_hot_vector(shape):
    params = {"filters": SMALL} if len(shape) == 3 else {}
    factory = create_encoder_factory("pixel" if params else "vector", **params)
    encoder = create_encoder_with_action(factory, shape, 4, discrete_action=True)
    x, ids = torch.rand(3, *shape), torch.tensor([0, 3, 1])
    result = encoder(x, ids)
    encoder.discrete_action = False
    assert torch.equal(result, encoder(x, torch.eye(4)[ids]))


def test_default_factory_is_pixel_for_images_and_vector_otherwise():
    options = {"activation": "elu", "use_layer_norm": True}
    default = DefaultEncoderFactory(**options)
    assert repr(default.create((4, 84, 84))) == repr(PixelEncoderFactory(**options).create((4, 84, 84)))
    assert repr(default.create((3,))) == repr(VectorEncoderFactory(**options).create((3,)))


def test_dense_factory_is_four_layers_of_256_with_dense_connections():
    dense = DenseEncoderFactory().create_with_action((3,), 2)
    same = VectorEncoderFactory([256] * 4, use_dense=True).create_with_action((3,), 2)
    assert repr(dense) == repr(same)
    assert dense.body.use_dense


def test_feature_size_of_the_default_image_encoder_is_that_of_nature_dqn():
    encoder = PixelEncoderFactory().create((4, 84, 84))
    assert encoder.convolutions.out_size == 3136
    assert encoder.feature_size == 512


def test_no_hidden_units_hand_on_the_observation():
    encoder = VectorEncoderFactory(hidden_units=[]).create((3,))
    x = torch.rand(2, 3)
    assert torch.equal(encoder(x), x)
    assert encoder.feature_size == 3


def test_lists_become_tuples_and_tuples_stay_the_same_object():
    given = (64, 32)
    assert VectorEncoderFactory(given).hidden_units is given
    assert VectorEncoderFactory([64, 32]) == VectorEncoderFactory(given)
    filters = ((8, 3, 1),)
    assert PixelEncoderFactory(filters).filters is filters
    assert PixelEncoderFactory([[8, 3, 1]]) == PixelEncoderFactory(filters)
    assert hash(VectorEncoderFactory([64])) == hash(VectorEncoderFactory((64,)))


@pytest.mark.parametrize(
    "factory",
    [
        VectorEncoderFactory([64, 32], use_dense=True, activation="tanh"),
        PixelEncoderFactory([[8, 3, 1]], feature_size=16, dropout_rate=0.2),
        DenseEncoderFactory(use_batch_norm=True),
        DefaultEncoderFactory(use_layer_norm=True),
    ],
)
def test_factory_survives_json_and_clone(factory):
    assert ENCODERS.resolve(json.loads(json.dumps(factory.to_dict()))) == factory
    assert clone(factory) == factory
    assert create_encoder_factory(factory.get_type(), **factory.get_params()) == factory


@pytest.mark.parametrize("name", ["vector", "dense"])
@pytest.mark.parametrize("method", ["create", "create_with_action"])
def test_fully_connected_encoders_refuse_images(name, method):
    args = [(4, 84, 84)] if method == "create" else [(4, 84, 84), 2]
    with pytest.raises(ValueError, match=r"not observations of shape \(4, 84, 84\): images .* 'pixel'"):
        getattr(create_encoder_factory(name), method)(*args)


def test_pixel_encoder_refuses_vectors():
    with pytest.raises(ValueError, match=r"reads images .* not observations of shape \(3,\)"):
        PixelEncoderFactory().create((3,))


def test_image_smaller_than_the_filters_is_refused_with_the_place():
    with pytest.raises(ValueError, match=r"\(4, 32, 32\) are too small.*kernel size 3 meets 2 x 2 pixels"):
        PixelEncoderFactory().create((4, 32, 32))


def test_smallest_image_for_the_default_filters_works():
    encoder = PixelEncoderFactory().create((1, 36, 36))
    assert torch.isfinite(encoder(torch.zeros(1, 1, 36, 36))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorEncoderFactory(activation="rellu"), r"activation='rellu' is unknown.*'relu'\?"),
        (lambda: VectorEncoderFactory(dropout_rate=1.0), r"dropout_rate=1\.0 must be in \[0, 1\)"),
        (lambda: VectorEncoderFactory([64, 0]), r"hidden_units=\(64, 0\) must be a list of whole positive"),
        (lambda: VectorEncoderFactory(64), "hidden_units=64 must be a list"),
        (lambda: PixelEncoderFactory([]), r"filters=\(\) must hold \(channels"),
        (lambda: PixelEncoderFactory([(8, 3)]), r"filters=\(\(8, 3\),\) must hold \(channels"),
        (lambda: PixelEncoderFactory(feature_size=0), "feature_size=.* must be a list of whole positive"),
        (lambda: create_encoder_factory("vectors"), "no encoder factory is called 'vectors'.*'vector'"),
    ],
)
def test_wrong_parameters_are_refused_with_their_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Doubling(nn.Module):
    feature_size = 3

    def forward(self, x):
        return 2 * x


class OnlyCreate(EncoderFactory):
    """An own factory with nothing but what an observation needs."""

    TYPE = "only_create"

    def create(self, observation_shape):
        return Doubling()

    def get_params(self, deep=False):
        return {}


@pytest.fixture
def own_factory():
    register_encoder_factory(OnlyCreate)
    yield "only_create"
    del ENCODERS.classes["only_create"]


def test_own_factory_serves_policies_and_discrete_critics(own_factory):
    x = torch.rand(2, 3)
    assert torch.equal(create_encoder(own_factory, (3,))(x), 2 * x)
    policy = DeterministicPolicy(create_encoder(own_factory, (3,)), 2)
    assert torch.equal(policy(x), torch.tanh(policy.head(2 * x)))
    for kind in ("mean", "qr"):
        q = create_q_functions(kind, own_factory, (3,), 2, n_critics=2, discrete=True)
        assert q(x).shape == (2, 2, 2)
    assert ENCODERS.resolve(OnlyCreate().to_dict()).create((3,)) is not None


def test_own_factory_without_actions_says_what_to_define_when_one_is_needed(own_factory):
    with pytest.raises(TypeError, match=r"OnlyCreate makes no network.*define create_with_action"):
        create_q_functions("mean", own_factory, (3,), 2, n_critics=1)


def test_own_factory_must_make_a_module_with_a_feature_size():
    class Wrong(OnlyCreate):
        def create(self, observation_shape):
            return nn.Linear(3, 3)

    with pytest.raises(TypeError, match="Wrong must make a torch module with the attribute feature_size"):
        create_encoder(Wrong(), (3,))
