"""Several runs updated as one learn what each would have learned alone."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from d3rlpy import algos as A
from d3rlpy.dataset import MDPDataset, PermutationSampler, rows_of
from d3rlpy.hyperparameters import ALGORITHMS, fields_of
from d3rlpy.impl import training_mode
from d3rlpy.joint import Joint, reason_apart
from d3rlpy.kernels import backend, use_backend
from d3rlpy.members import Members, current
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory
from d3rlpy.models.q_functions import C51QFunctionFactory, MeanQFunctionFactory

N_ROWS, BATCH = 120, 16
TOGETHER = [cls for cls in ALGORITHMS.values() if not cls.Impl.alone]
APART = [cls for cls in ALGORITHMS.values() if cls.Impl.alone]


@pytest.fixture(autouse=True)
def plain_kernels():
    before = backend()
    use_backend("plain")
    yield
    use_backend(before)


def dataset(discrete, image=False):
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, N_ROWS) if discrete else rng.uniform(-1, 1, (N_ROWS, 2)).astype("float32")
    observations = rng.normal(size=(N_ROWS, 4)).astype("float32")
    if image:
        observations = rng.integers(0, 256, (N_ROWS, 1, 20, 20), dtype=np.uint8)
    return MDPDataset(observations, actions, rng.normal(size=N_ROWS).astype("float32"), np.arange(N_ROWS) % 10 == 9)


def make(cls, seed, **params):
    """A small one in which everything that happens every few updates happens within ten."""
    declared = fields_of(cls)
    small = {name: VectorEncoderFactory(hidden_units=(12, 12)) for name in declared if name.endswith("encoder_factory")}
    early = {"warmup_steps": 3, "rl_start_step": 3, "target_update_interval": 4}
    early = {name: value for name, value in early.items() if name in declared}
    return cls(random_state=seed, batch_size=BATCH, **{**small, **early, **params})


def prepared(algo, rows, indices, dtype):
    """Its sampler, as a run of ``fit`` makes it; the networks in ``dtype``."""
    algo.build_with_rows(rows, indices)
    algo.impl.to(dtype)
    seed = int(algo.stream_.numpy.integers(2**31))
    window = (algo.batch_size, algo.n_frames, getattr(algo, "n_steps", 1), getattr(algo, "gamma", 1.0))
    return PermutationSampler(rows, indices, *window, seed=seed)


def batch_of(algo, sampler, dtype):
    batch = algo.impl.batch_type.of(sampler.sample(), algo.fitted_scalers_, algo.impl.device)
    each = [getattr(batch, f.name) for f in fields(batch)]
    return type(batch)(*[x.to(dtype) if x.is_floating_point() else x for x in each])


def train_both(cls, n_updates, each=({}, {}), dtype=torch.float64, image=False, **params):
    """The estimators after ``n_updates`` alone and as one, and the last metrics of both."""
    rows, indices = rows_of(dataset(cls.action_space == "discrete", image))
    alone = [make(cls, seed, **params, **own) for seed, own in enumerate(each)]
    joined = [make(cls, seed, **params, **own) for seed, own in enumerate(each)]
    samplers = [prepared(algo, rows, indices, dtype) for algo in alone]
    metrics = []
    for algo, sampler in zip(alone, samplers, strict=True):
        with training_mode(algo.impl), algo.stream_:
            for _ in range(n_updates):
                last = algo.impl.step(batch_of(algo, sampler, dtype))
            metrics.append({name: float(value) for name, value in last.items()})
    samplers = [prepared(algo, rows, indices, dtype) for algo in joined]
    assert reason_apart(joined) is None
    joint = Joint(joined)
    with joint.training() as impl:
        for _ in range(n_updates):
            with current().apart():
                batches = [batch_of(algo, sampler, dtype) for algo, sampler in zip(joined, samplers, strict=True)]
            last = joint.step(impl, batches)
    as_one = [{name: float(value[r]) for name, value in last.items()} for r in range(len(each))]
    return alone, joined, metrics, as_one


def assert_equal(alone, joined, metrics, as_one, tolerance=1e-9):
    for a, b, m, n in zip(alone, joined, metrics, as_one, strict=True):
        theirs = b.impl.state_dict()
        for name, value in a.impl.state_dict().items():
            torch.testing.assert_close(theirs[name], value, rtol=tolerance, atol=tolerance * 1e-3, msg=name)
        assert n == pytest.approx(m, rel=tolerance, abs=tolerance)
        assert b.grad_step_ == a.grad_step_
        for optim, other in zip(a.impl.optimizers().values(), b.impl.optimizers().values(), strict=True):
            assert optim.n_steps == other.n_steps
        assert torch.equal(a.stream_.get_state()["torch"]["cpu"], b.stream_.get_state()["torch"]["cpu"])


@pytest.mark.parametrize("cls", TOGETHER, ids=lambda cls: cls.__name__)
def test_runs_as_one_equal_the_runs_alone(cls):
    assert_equal(*train_both(cls, 9))


def test_after_a_thousand_updates_as_well():
    assert_equal(*train_both(A.TD3PlusBC, 1000))


@pytest.mark.parametrize("cls", [A.TD3PlusBC, A.SAC, A.IQL, A.DQN], ids=lambda cls: cls.__name__)
def test_in_single_precision_losses_agree_after_ten_updates(cls):
    _, _, metrics, as_one = train_both(cls, 10, dtype=torch.float32)
    for m, n in zip(metrics, as_one, strict=True):
        assert n == pytest.approx(m, rel=1e-5, abs=1e-7)


NUMBERS = [
    (cls, name)
    for cls in TOGETHER
    for name in fields_of(cls)
    if isinstance(getattr(cls(), name), float) and name not in ("gamma",)
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_every_number_may_differ(cls, name):
    value = getattr(cls(), name)
    alone, joined, *metrics = train_both(cls, 5, ({}, {name: 0.5 * value if value else 0.5}))
    assert_equal(alone, joined, *metrics)


def test_discounts_and_horizons_may_differ():
    assert_equal(*train_both(A.DQN, 8, ({"gamma": 0.9}, {"n_steps": 3}, {})))


def test_one_run_is_a_run():
    assert_equal(*train_both(A.SAC, 8, ({},)))


ENCODERS = {
    "wide": {"hidden_units": (300,)},
    "deep": {"hidden_units": (8, 8, 8)},
    "linear": {"hidden_units": ()},
    "layer norm": {"hidden_units": (12, 12), "use_layer_norm": True},
    "wide layer norm": {"hidden_units": (300, 300), "use_layer_norm": True},
    "batch norm": {"hidden_units": (12,), "use_batch_norm": True},
    "dropout": {"hidden_units": (12,), "dropout_rate": 0.3},
    "dense": {"hidden_units": (12, 12), "use_dense": True},
    "tanh": {"hidden_units": (12,), "activation": "tanh"},
}


@pytest.mark.parametrize("cls", [A.DQN, A.SAC, A.CQL], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_with_every_kind_of_encoder(cls, encoder):
    factory = VectorEncoderFactory(**ENCODERS[encoder])
    params = {name: factory for name in fields_of(cls) if name.endswith("encoder_factory")}
    assert_equal(*train_both(cls, 6, **params))


PIXELS = PixelEncoderFactory(filters=((4, 4, 2), (4, 3, 1)), feature_size=8)
Q_FUNCTIONS = {
    "qr": "qr",
    "iqn": "iqn",
    "fqf": "fqf",
    "c51": C51QFunctionFactory(v_min=-3, v_max=3),
    "shared encoder": MeanQFunctionFactory(share_encoder=True),
    "bootstrap": MeanQFunctionFactory(bootstrap=True),
}


@pytest.mark.parametrize("cls", [A.DQN, A.SAC, A.BCQ], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("kind", Q_FUNCTIONS)
def test_with_every_kind_of_q_function(cls, kind):
    assert_equal(*train_both(cls, 6, q_func_factory=Q_FUNCTIONS[kind]))


@pytest.mark.parametrize(
    "factory", ["sgd", "rmsprop", "adamw", AdamFactory(clip_grad_norm=0.1, warmup_steps=3, cosine_steps=6)], ids=str
)
def test_with_every_kind_of_optimizer(factory):
    assert_equal(*train_both(A.DQN, 8, ({}, {"learning_rate": 0.01}), optim_factory=factory))


def test_with_images():
    assert_equal(*train_both(A.DQN, 5, image=True, scaler="pixel", encoder_factory=PIXELS))


def test_images_stay_channels_last():
    _, joined, *_ = train_both(A.DQN, 2, image=True, scaler="pixel", encoder_factory=PIXELS)
    weights = [p for algo in joined for p in algo.impl.q_funcs.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_afterwards_each_has_memory_of_its_own():
    _, joined, *_ = train_both(A.DDPG, 2)
    first, second = (next(algo.impl.parameters()) for algo in joined)
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()
    assert first.untyped_storage().nbytes() == first.numel() * first.element_size()


def test_an_error_in_the_middle_leaves_members_that_can_be_used():
    rows, indices = rows_of(dataset(False))
    algos = [make(A.TD3, seed) for seed in range(2)]
    samplers = [prepared(algo, rows, indices, torch.float32) for algo in algos]
    joint = Joint(algos)
    batches = [batch_of(a, s, torch.float32) for a, s in zip(algos, samplers, strict=True)]

    def interrupted():
        with joint.training() as impl:
            joint.step(impl, batches)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert current() is None
    assert [algo.grad_step_ for algo in algos] == [1, 1]
    assert algos[1].predict(np.zeros((2, 4), np.float32)).shape == (2, 2)
    torch.testing.assert_close(torch.ones(2) + 1, torch.full((2,), 2.0))  # no trace is left in torch itself


@pytest.mark.parametrize("cls", APART, ids=lambda cls: cls.__name__)
def test_some_say_why_they_train_alone(cls):
    assert reason_apart([cls(), cls()]) == cls.Impl.alone


@pytest.mark.parametrize(
    ("algos", "reason"),
    [
        ([A.TD3(), A.DDPG()], "different algorithms"),
        ([A.TD3(), A.TD3(batch_size=3)], r"batch_size takes the values \[256, 3\]"),
        ([A.TD3(), A.TD3(critic_encoder_factory=VectorEncoderFactory(hidden_units=(3,)))], "critic_encoder_factory"),
        ([A.TD3(), A.TD3(update_actor_interval=3)], "update_actor_interval"),
        ([A.CRR(), A.CRR(weight_type="binary")], "weight_type"),
        ([A.SAC(), A.SAC(temp_learning_rate=0.0)], "temp_learning_rate is 0 for some and 0.0003 for others"),
    ],
)
def test_what_shapes_or_schedules_an_update_must_be_the_same(algos, reason):
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(reason_apart(algos))


def test_an_update_that_keeps_count_by_itself_is_refused():
    class Counting(A.DQN.Impl):
        n_seen = 0

        def update(self, batch):
            self.n_seen += 1
            return super().update(batch)

    class CountingDQN(A.DQN):
        Impl = Counting

    with pytest.raises(RuntimeError, match=r"update of Counting changes \['n_seen'\].*alone = 'why'"):
        train_both(CountingDQN, 2)


def test_whole_numbers_are_numbers_with_a_point_where_these_are_declared():
    assert reason_apart([A.TD3PlusBC(alpha=1), A.TD3PlusBC(alpha=2.5), A.TD3PlusBC(alpha=np.float32(3))]) is None
    assert_equal(*train_both(A.TD3PlusBC, 5, ({"alpha": 1}, {"alpha": 4})))


def test_members_do_not_nest():
    generators = [torch.Generator(), torch.Generator()]
    with Members(generators), pytest.raises(RuntimeError, match="don't nest"), Members(generators):
        pass
    assert current() is None
