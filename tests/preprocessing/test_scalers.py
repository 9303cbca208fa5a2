"""Observation and action scalers, and what all scalers have in common."""

import copy
import io
import json
import pickle
import warnings
from types import SimpleNamespace

import gymnasium
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from d3rlpy.dataset import MDPDataset
from d3rlpy.preprocessing import (
    ACTION_SCALERS,
    SCALERS,
    ClipRewardScaler,
    MinMaxActionScaler,
    MinMaxScaler,
    PixelScaler,
    StandardScaler,
    create_action_scaler,
    create_scaler,
)
from d3rlpy.preprocessing import statistics as stats


def make_dataset(n=20, seed=0, constant_column=False, **kwargs):
    rng = np.random.default_rng(seed)
    observations = rng.normal(3.0, [1.0, 10.0, 0.1], (n, 3)).astype(np.float32)
    actions = rng.uniform([-1, 2], [3, 2.5], (n, 2)).astype(np.float32)
    if constant_column:
        observations[:, 1], actions[:, 1] = 0.1, 0.3
    terminals = np.arange(n) % 5 == 4
    return MDPDataset(observations, actions, rng.normal(size=n).astype(np.float32), terminals, **kwargs)


def make_images(n=8, shape=(1, 4, 4)):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images[:, 0, 0, 0] = 7  # a pixel that never changes
    return MDPDataset(images, rng.integers(0, 2, n), np.ones(n, np.float32), np.arange(n) % 4 == 3)


def tensor(array):
    return torch.tensor(np.asarray(array))


def every_fitted_scaler():
    data, images = make_dataset(constant_column=True), make_images()
    return {
        "min_max": (create_scaler("min_max").fit(data), data.observations),
        "standard": (create_scaler("standard").fit(data), data.observations),
        "pixel": (create_scaler("pixel").fit(images), images.observations),
        "min_max of images": (create_scaler("min_max").fit(images), images.observations),
        "action min_max": (create_action_scaler("min_max").fit(data), data.actions),
    }


def test_min_max_scaler_maps_the_data_to_zero_and_one():
    x = np.array([[1.0, -2.0], [3.0, 0.0], [2.0, -1.0]], np.float32)
    scaler = MinMaxScaler(MDPDataset(x, np.full((3, 1), 0.5, np.float32), np.zeros(3), [0, 0, 1]))
    assert scaler.transform(tensor(x)).tolist() == [[0, 0], [1, 1], [0.5, 0.5]]


def test_standard_scaler_divides_by_the_population_deviation_plus_eps():
    x = np.array([[0.0], [4.0]], np.float32)
    data = MDPDataset(x, np.full((2, 1), 0.5, np.float32), np.zeros(2), [0, 1])
    assert StandardScaler(data, eps=0.0).transform(tensor(x)).tolist() == [[-1], [1]]
    scaler = StandardScaler(data)
    torch.testing.assert_close(scaler.transform(tensor(x)), torch.tensor([[-2 / 2.001], [2 / 2.001]]))


def test_action_scaler_maps_the_data_to_minus_one_and_one():
    a = np.array([[-2.0, 1.0], [2.0, 3.0], [1.0, 1.5]], np.float32)
    scaler = MinMaxActionScaler(MDPDataset(a, a, np.zeros(3), [0, 0, 1]))
    assert scaler.transform(tensor(a)).tolist() == [[-1, -1], [1, 1], [0.5, -0.5]]
    assert scaler.reverse_transform_numpy(np.zeros((1, 2), np.float32)).tolist() == [[0, 2]]


def test_pixel_scaler_divides_by_255_and_gives_the_same_bytes_back():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    scaled = PixelScaler().transform(x)
    assert scaled.dtype == torch.float32
    assert scaled.max().item() == 1.0
    back = PixelScaler().reverse_transform(scaled)
    assert back.dtype == torch.uint8
    assert torch.equal(back, x)


def test_last_row_of_a_timed_out_episode_is_only_a_successor_and_not_seen():
    x = np.array([[0.0], [1.0], [100.0]], np.float32)
    actions = np.array([[0.5], [1.0], [50.0]], np.float32)
    data = MDPDataset(x, actions, np.zeros(3), np.zeros(3), timeouts=[0, 0, 1])
    assert MinMaxScaler(data).maximum.tolist() == [1.0]
    assert MinMaxActionScaler(data).maximum.tolist() == [1.0]


def test_fit_sees_the_same_in_a_dataset_in_episodes_and_in_transitions():
    data = make_dataset()
    transitions = [t for episode in data.episodes for t in episode]
    fitted = [StandardScaler(d) for d in (data, data.episodes, transitions)]
    for scaler in fitted[1:]:
        np.testing.assert_array_equal(scaler.mean, fitted[0].mean)
        np.testing.assert_array_equal(scaler.std, fitted[0].std)
    half = StandardScaler(data.episodes[:2])
    np.testing.assert_allclose(half.mean, data.observations[:10].mean(axis=0, dtype=np.float64))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.integers(1, 7),
)
@settings(deadline=None, max_examples=60)
def test_chunked_statistics_equal_those_of_the_whole_column(values, chunk):
    column = np.array(values, np.float32)[:, None]
    indices = np.arange(len(column))[::-1]
    exact = column.astype(np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "CHUNK_SIZE", chunk)
        mean, std = stats.mean_std(column, indices)
        low, high = stats.minimum_maximum(column, indices)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(std, exact.std(axis=0), rtol=1e-9, atol=1e-9)
    assert (low, high) == (exact.min(), exact.max())


def test_standard_deviation_of_a_large_offset_keeps_its_digits():
    column = (1e4 + np.tile([0.0, 0.25], 500)).astype(np.float32)[:, None]
    _, std = stats.mean_std(column, np.arange(1000))
    assert std[0] == pytest.approx(0.125, rel=1e-9)


@pytest.mark.parametrize("name", list(every_fitted_scaler()))
def test_reverse_transform_gives_the_values_back(name):
    scaler, x = every_fitted_scaler()[name]
    back = scaler.reverse_transform(scaler.transform(tensor(x)))
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(every_fitted_scaler()))
def test_numpy_twin_equals_the_tensor_method(name):
    scaler, x = every_fitted_scaler()[name]
    x = np.array(x)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = scaler.transform_numpy(x)
    np.testing.assert_array_equal(scaled, scaler.transform(tensor(x)))
    np.testing.assert_array_equal(scaler.reverse_transform_numpy(scaled), scaler.reverse_transform(tensor(scaled)))


@pytest.mark.parametrize("scaler", [MinMaxScaler(), StandardScaler(), StandardScaler(eps=0.0)])
def test_constant_column_maps_to_zero_and_back_to_the_constant(scaler):
    data = make_dataset(constant_column=True)
    scaled = scaler.fit(data).transform(tensor(data.observations))
    assert torch.equal(scaled[:, 1], torch.zeros(20))
    back = scaler.reverse_transform(scaled)
    assert torch.equal(back[:, 1], torch.full((20,), 0.1))


def test_constant_action_maps_to_zero_and_back_to_the_constant():
    data = make_dataset(constant_column=True)
    scaler = MinMaxActionScaler(data)
    scaled = scaler.transform(tensor(data.actions))
    assert torch.equal(scaled[:, 1], torch.zeros(20))
    assert torch.equal(scaler.reverse_transform(torch.full((1, 2), 0.5))[0, 1], torch.tensor(0.3))


def test_unseen_value_of_a_constant_column_maps_to_zero():
    scaler = MinMaxScaler(minimum=[2.0], maximum=[2.0])
    assert scaler.transform(torch.tensor([[5.0]])).item() == 0.0


@pytest.mark.parametrize("name", list(every_fitted_scaler()))
def test_scaler_from_its_json_transforms_alike(name):
    scaler, x = every_fitted_scaler()[name]
    registry = ACTION_SCALERS if name.startswith("action") else SCALERS
    again = registry.resolve(json.loads(json.dumps(scaler.to_dict())))
    assert type(again) is type(scaler)
    assert torch.equal(again.transform(tensor(x)), scaler.transform(tensor(x)))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_transform_alike_and_carry_no_cached_tensors(copier):
    data = make_dataset()
    scaler, x = StandardScaler(data), tensor(data.observations)
    expected = scaler.transform(x)
    again = copier(scaler)
    assert "_cache" not in vars(again)
    assert torch.equal(again.transform(x), expected)


def test_changed_statistics_act_on_the_next_call():
    scaler = MinMaxScaler(minimum=[0.0], maximum=[1.0])
    x = torch.tensor([[1.0]])
    assert scaler.transform(x).item() == 1.0
    scaler.maximum = [2.0]
    assert scaler.transform(x).item() == 0.5


def test_float64_input_is_scaled_in_float64():
    scaler = MinMaxScaler(minimum=[0.0], maximum=[3.0])
    result = scaler.transform(torch.tensor([[1.0]], dtype=torch.float64))
    assert result.item() == 1 / 3


def test_constructor_keeps_its_arguments_by_identity_so_that_clone_works():
    mean, std = np.zeros(3), [1.0, 1.0, 1.0]
    scaler = StandardScaler(mean=mean, std=std)
    assert scaler.mean is mean
    assert scaler.std is std
    again = clone(scaler)
    assert again.get_params().keys() == {"mean", "std", "eps"}
    assert again is not scaler


def test_fit_keeps_statistics_that_are_given():
    scaler = MinMaxScaler(minimum=[-1.0, -1.0, -1.0]).fit(make_dataset())
    assert scaler.minimum == [-1.0, -1.0, -1.0]
    np.testing.assert_array_equal(scaler.maximum, make_dataset().observations.max(axis=0))
    full = StandardScaler(mean=[0.0] * 3, std=[1.0] * 3)
    assert full.fit(make_dataset()).get_params() == {"mean": [0.0] * 3, "std": [1.0] * 3, "eps": 1e-3}


def test_one_number_serves_all_entries():
    images = make_images()
    scaler = MinMaxScaler(minimum=0, maximum=255).fit(images)
    x = tensor(images.observations)
    torch.testing.assert_close(scaler.transform(x), PixelScaler().transform(x))


@pytest.mark.parametrize("name", ["min_max", "standard"])
def test_statistics_of_one_image_repeat_for_stacked_frames(name):
    images = make_images()
    scaler, x = create_scaler(name).fit(images), tensor(images.observations)
    stacked = torch.cat([x[:4], x[4:]], dim=1)
    expected = torch.cat([scaler.transform(x[:4]), scaler.transform(x[4:])], dim=1)
    assert torch.equal(scaler.transform(stacked), expected)


def box(low, high, dtype=np.float32):
    return gymnasium.spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


def test_min_max_scalers_take_the_bounds_of_an_environment():
    env = SimpleNamespace(observation_space=box([0, -1], [2, 3]), action_space=box([-2], [2]))
    scaler, action_scaler = MinMaxScaler().fit_with_env(env), MinMaxActionScaler().fit_with_env(env)
    assert scaler.transform(torch.tensor([[2.0, -1.0]])).tolist() == [[1, 0]]
    assert action_scaler.reverse_transform(torch.tensor([[-1.0]])).item() == -2.0


def test_infinite_bounds_of_an_environment_are_refused():
    env = SimpleNamespace(observation_space=box([0, -np.inf], [2, 3]))
    with pytest.raises(ValueError, match=r"finite bounds.*observation_space.*call fit with data, or give minimum"):
        MinMaxScaler().fit_with_env(env)


def test_discrete_space_has_no_bounds_for_an_action_scaler():
    env = SimpleNamespace(action_space=gymnasium.spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"needs a box.*action_space is Discrete\(2\)"):
        MinMaxActionScaler().fit_with_env(env)


def test_standard_scaler_asks_for_data_or_statistics_when_it_gets_an_environment():
    env = SimpleNamespace(observation_space=box([0], [1]))
    with pytest.raises(ValueError, match=r"StandardScaler can't be fitted with an environment.*mean and std"):
        StandardScaler().fit_with_env(env)
    given = StandardScaler(mean=[0.0], std=[1.0])
    assert given.fit_with_env(env) is given


def test_pixel_scaler_refuses_an_environment_of_vectors():
    with pytest.raises(ValueError, match="uint8 images"):
        PixelScaler().fit_with_env(SimpleNamespace(observation_space=box([0], [1])))
    images = box(np.zeros((1, 4, 4)), np.full((1, 4, 4), 255), np.uint8)
    PixelScaler().fit_with_env(SimpleNamespace(observation_space=images))


def test_pixel_scaler_refuses_vectors():
    with pytest.raises(ValueError, match=r"uint8 images, observations have the shape \(3,\): use 'min_max'"):
        PixelScaler().fit(make_dataset())
    with pytest.raises(ValueError, match="PixelScaler scales images"):
        PixelScaler().transform(torch.zeros(2, 3))


def test_action_scaler_refuses_discrete_actions():
    with pytest.raises(ValueError, match="scales continuous actions, those of the data are discrete"):
        MinMaxActionScaler().fit(make_images())


@pytest.mark.parametrize("scaler", [MinMaxScaler(), StandardScaler(), MinMaxActionScaler(minimum=[0.0])])
@pytest.mark.parametrize("method", ["transform", "reverse_transform"])
def test_unfitted_scaler_says_what_is_missing(scaler, method):
    missing = " and ".join(scaler.STATISTICS)
    with pytest.raises(RuntimeError, match=f"{type(scaler).__name__} is not fitted: call fit.*{missing}"):
        getattr(scaler, method)(torch.zeros(1, 1))


def test_wrong_statistics_are_refused_with_their_name():
    with pytest.raises(ValueError, match=r"maximum=.* is smaller than minimum"):
        MinMaxScaler(minimum=[1.0], maximum=[0.0]).transform(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"std=.* is negative"):
        StandardScaler(mean=[1.0], std=[-1.0]).transform(torch.zeros(1, 1))
    with pytest.raises(ValueError, match="must be finite"):
        StandardScaler(mean=[np.nan], std=[1.0]).transform(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"mean has the shape \(2,\), observations have \(3,\)"):
        StandardScaler(mean=[0.0, 0.0], std=1.0).fit(make_dataset())


def test_statistics_of_two_lengths_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"MinMaxScaler: minimum has the shape \(2,\), but maximum has the shape \(3,\)"
    ):
        MinMaxScaler(minimum=[0, 0], maximum=[1, 1, 1]).transform(torch.ones(2, 3))


NAN = float("nan")


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (StandardScaler(mean=0.0, std=1.0, eps=-3.0), r"StandardScaler: eps=-3\.0 is negative"),
        (StandardScaler(mean=0.0, std=1.0, eps=NAN), "StandardScaler: eps=nan must be finite"),
        (StandardScaler(mean=0.0, std=1.0, eps="a"), "StandardScaler: eps='a' must be finite"),
        (StandardScaler(mean=0.0, std=1.0, eps=None), "StandardScaler: eps=None must be finite"),
        (StandardScaler(eps=-3.0), r"StandardScaler: eps=-3\.0 is negative"),
        (MinMaxScaler(minimum=0.0, maximum="a"), "MinMaxScaler: maximum='a' must be finite"),
        (MinMaxScaler(minimum=100.0), r"MinMaxScaler: maximum=.* is smaller than minimum=100\.0"),
        (MinMaxActionScaler(minimum=NAN, maximum=1.0), "MinMaxActionScaler: minimum=nan must be finite"),
    ],
)
def test_parameters_that_make_no_map_are_refused_by_fit(scaler, message):
    with pytest.raises(ValueError, match=message):
        scaler.fit(make_dataset())
    with pytest.raises(ValueError, match=message):
        scaler.transform(torch.ones(2, 3))


@pytest.mark.parametrize("scaler", [StandardScaler(mean=0.0, std=1.0), PixelScaler(), ClipRewardScaler()])
@pytest.mark.parametrize("method", ["transform", "reverse_transform"])
def test_array_in_place_of_a_tensor_is_an_error_that_names_the_right_method(scaler, method):
    message = f"transform and reverse_transform of {type(scaler).__name__} take tensors, got ndarray: use .*_numpy"
    with pytest.raises(TypeError, match=message):
        getattr(scaler, method)(np.ones((2, 3), np.float32))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"no scaler is called 'minmax'.*Did you mean 'min_max'\?"):
        create_scaler("minmax")


class Scaled(torch.nn.Module):
    """What an export holds of a scaler."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", list(every_fitted_scaler()))
def test_traced_and_onnx_scaler_take_any_batch_size(name):
    scaler, x = every_fitted_scaler()[name]
    x = tensor(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit and its exporter
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(Scaled(scaler.transform), x[:2], check_trace=False)
        file = io.BytesIO()
        axes = {"x": {0: "batch"}, "y": {0: "batch"}}
        torch.onnx.export(
            Scaled(scaler.transform), (x[:2],), file, dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes=axes,
        )  # fmt: skip
    assert torch.equal(traced(x), scaler.transform(x))
    model = onnxruntime.InferenceSession(file.getvalue())
    np.testing.assert_allclose(model.run(None, {"x": x.numpy()})[0], scaler.transform(x), rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_scaler_follows_its_input_to_another_device():
    data = make_dataset()
    scaler, x = StandardScaler(data), tensor(data.observations)
    assert torch.allclose(scaler.transform(x.cuda()).cpu(), scaler.transform(x))
