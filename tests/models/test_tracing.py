"""Every model can be traced and exported to ONNX, and then takes batches of any size."""

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from d3rlpy.models import (
    CategoricalPolicy,
    DenseEncoderFactory,
    DeterministicPolicy,
    NormalPolicy,
    PixelEncoderFactory,
    SquashedNormalPolicy,
    VectorEncoderFactory,
    create_encoder,
    create_q_functions,
)

ALL = {"use_batch_norm": True, "use_layer_norm": True, "dropout_rate": 0.1}
ENCODERS = {
    "vector": (VectorEncoderFactory((8, 8), **ALL), (3,)),
    "normed": (VectorEncoderFactory((8, 8), use_layer_norm=True), (3,)),
    "dense": (DenseEncoderFactory(activation="gelu"), (3,)),
    "pixel": (PixelEncoderFactory(((4, 3, 2),), 8, activation="swish", **ALL), (2, 9, 9)),
}


def observations(shape, n):
    if len(shape) == 3:
        return torch.randint(0, 256, (n, *shape), dtype=torch.uint8)
    return torch.randn(n, *shape)


def check_exports(module, example, other):
    """Trace with ``example``; TorchScript and ONNX must agree with the module on ``other``."""
    module.eval().requires_grad_(False)
    names = [f"in{i}" for i in range(len(example))]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit and its exporter
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, example)
        torch.onnx.export(
            module, example, file, dynamo=False, opset_version=17, input_names=names,
            output_names=["out"], dynamic_axes={n: {0: "batch"} for n in names},
        )  # fmt: skip
    expected = module(*other)
    torch.testing.assert_close(traced(*other), expected)
    session = onnxruntime.InferenceSession(file.getvalue())
    result = session.run(None, {n: x.numpy() for n, x in zip(names, other, strict=True)})[0]
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", list(ENCODERS))
@pytest.mark.parametrize("cls", [DeterministicPolicy, SquashedNormalPolicy, NormalPolicy, CategoricalPolicy])
def test_best_action_is_exported(cls, kind):
    factory, shape = ENCODERS[kind]
    policy = cls(create_encoder(factory, shape), 2)
    check_exports(policy, (observations(shape, 2),), (observations(shape, 5),))


class BestDiscreteAction(nn.Module):
    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, x):
        return self.q(x).mean(dim=0).argmax(dim=1)


@pytest.mark.parametrize("kind", list(ENCODERS))
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_critics_are_exported(q_func, kind):
    factory, shape = ENCODERS[kind]
    q = create_q_functions(q_func, factory, shape, 2, n_critics=2)
    check_exports(q, (observations(shape, 2), torch.randn(2, 2)), (observations(shape, 5), torch.randn(5, 2)))
    q = create_q_functions(q_func, factory, shape, 2, n_critics=2, discrete=True)
    check_exports(BestDiscreteAction(q), (observations(shape, 2),), (observations(shape, 5),))
