"""Updates that are recorded and repeated do what updates one by one do; here a replay calls the same code again."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from d3rlpy import algos as A
from d3rlpy.columns import DeviceColumns, DeviceSampler
from d3rlpy.dataset import MDPDataset, PermutationSampler, rows_of
from d3rlpy.hyperparameters import ALGORITHMS, fields_of
from d3rlpy.impl import Batch, training_mode
from d3rlpy.logger import Meter
from d3rlpy.model_selection import ManyRuns
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory
from d3rlpy.training import engine as engine_module
from d3rlpy.training import feeds, loop
from d3rlpy.training.engine import Engine, PlainRecorder, reason_uncaptured
from d3rlpy.training.feeds import DeviceFeed, HostFeed
from tests.capture import SimulatedGraph

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
N_ROWS, BATCH = 150, 8


def dataset(discrete):
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, N_ROWS) if discrete else rng.uniform(-1, 1, (N_ROWS, 2)).astype("float32")
    observations, rewards = rng.normal(size=(N_ROWS, 4)), rng.normal(size=N_ROWS)
    ends = np.arange(N_ROWS) % 10 == 9
    return MDPDataset(observations.astype("float32"), actions, rewards.astype("float32"), ends)


def make(cls, **params):
    declared = fields_of(cls)
    small = {name: VectorEncoderFactory(hidden_units=(8,)) for name in declared if name.endswith("encoder_factory")}
    often = {"warmup_steps": 13, "rl_start_step": 13, "target_update_interval": 6, "update_actor_interval": 3}
    often = {name: value for name, value in often.items() if name in declared}
    return cls(random_state=0, batch_size=BATCH, **{**small, **often, **params})


class Run:
    """What a feed needs of a run."""

    def __init__(self, algo, data):
        self.algo, self.shuffle = algo, True
        self.rows, self.indices = rows_of(data)
        algo.build_with_rows(self.rows, self.indices)

    def window(self):
        return self.algo.batch_size, 1, getattr(self.algo, "n_steps", 1), getattr(self.algo, "gamma", 1.0)


def engine_of(algo, recorder):
    run = Run(algo, dataset(algo.action_space == "discrete"))
    columns = DeviceColumns(run.rows, torch.device("cpu"))
    sampler = DeviceSampler(columns, run.rows, run.indices, *run.window(), seed=3, most_ahead=8)
    found = Engine(algo.impl, DeviceFeed(run, sampler), recorder)
    for optim in found.optims:
        optim.keep_rate_on_device()
    return found


def trained(cls, recorder, n_updates, fused, **params):
    algo = make(cls, **params)
    engine, meter = engine_of(algo, recorder), Meter()
    with training_mode(algo.impl), algo.stream_:
        engine.run(n_updates, meter, fused)
    return algo, engine, meter.means()


def assert_equal(one, other):
    for name, value in one.impl.state_dict().items():
        assert torch.equal(other.impl.state_dict()[name], value), name
    assert one.grad_step_ == other.grad_step_
    for a, b in zip(one.impl.optimizers().values(), other.impl.optimizers().values(), strict=True):
        assert a.n_steps == b.n_steps
        mine, theirs = a.state_dict(), b.state_dict()
        for key, state in mine["optim"]["state"].items():
            for name, value in state.items():
                assert torch.equal(theirs["optim"]["state"][key][name], value)


CAPTURED = [cls for cls in ALGORITHMS.values() if not cls.Impl.alone and cls.Impl.batch_type is Batch]


@pytest.mark.parametrize("recorder", [PlainRecorder, SimulatedGraph])
@pytest.mark.parametrize("cls", CAPTURED, ids=lambda cls: cls.__name__)
def test_recorded_updates_in_launches_of_several_equal_updates_one_by_one(cls, recorder):
    alone, _, means = trained(cls, None, 90, 1)
    repeated, engine, other_means = trained(cls, recorder(), 90, 4)
    assert engine.recordings
    assert_equal(alone, repeated)
    assert other_means == pytest.approx(means, rel=1e-5)


SCHEDULED = AdamFactory(warmup_steps=7, cosine_steps=150, clip_grad_norm=0.5)


def test_schedules_go_on_inside_a_recording():
    alone, _, _ = trained(A.DQN, None, 200, 1, optim_factory=SCHEDULED)
    repeated, engine, _ = trained(A.DQN, PlainRecorder(), 200, 8, optim_factory=SCHEDULED)
    assert len(engine.recordings) > 1
    assert_equal(alone, repeated)


@pytest.mark.parametrize(
    "factory", [AdamFactory(), SCHEDULED, AdamFactory(warmup_steps=5), AdamFactory(cosine_steps=9)]
)
def test_the_rate_on_the_device_is_that_of_the_host(factory):
    rate = torch.tensor(0.3)
    for n in range(60):
        found = float(factory.scheduled_rate(rate, torch.tensor(float(n))))
        assert found == pytest.approx(0.3 * factory.multiplier(n), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", [PlainRecorder, SimulatedGraph])
def test_a_change_of_a_hyper_parameter_acts_on_the_next_update(kind):
    results = []
    for recorder in (None, kind()):
        algo = make(A.TD3PlusBC)
        engine, meter = engine_of(algo, recorder), Meter()
        with training_mode(algo.impl), algo.stream_:
            engine.run(32, meter)
            algo.set_params(alpha=0.1, actor_learning_rate=0.01, update_actor_interval=2)
            engine.run(41, meter)
        results.append(algo)
    assert_equal(*results)


@pytest.mark.parametrize("kind", [PlainRecorder, SimulatedGraph])
def test_a_model_that_is_loaded_in_between_is_not_overwritten_by_old_recordings(tmp_path, kind):
    results = []
    for recorder in (None, kind()):
        algo = make(A.SAC)
        engine, meter = engine_of(algo, recorder), Meter()
        with training_mode(algo.impl), algo.stream_:
            engine.run(16, meter)
            algo.save_model(tmp_path / "m.pt")
            engine.run(24, meter)
            algo.load_model(tmp_path / "m.pt")
            engine.run(40, meter)
            assert engine.recorder is recorder  # captured again, not given up
            algo.reset_optimizer_states()
            engine.run(40, meter)
        results.append(algo)
    assert_equal(*results)


def test_whether_a_number_is_overlooked_would_be_seen():
    """An update that asks about its number behind the engine's back gives itself away on a CPU."""

    class Sly(A.DQN.Impl):
        def update(self, batch):
            metrics = super().update(batch)
            if self.grad_step % 3 == 0:
                with torch.no_grad():
                    self.q_funcs.flat_weights[0].mul_(1.5)
            return metrics

    class SlyDQN(A.DQN):
        Impl = Sly

    alone, _, _ = trained(SlyDQN, None, 40, 1)
    repeated, _, _ = trained(SlyDQN, PlainRecorder(), 40, 1)
    with pytest.raises(AssertionError):
        assert_equal(alone, repeated)


def test_an_update_that_keeps_count_by_itself_is_launched_one_by_one():
    class Counting(A.DQN.Impl):
        n_seen = 0

        def update(self, batch):
            self.n_seen += 1
            return super().update(batch) | {"seen": torch.tensor(float(self.n_seen))}

    class CountingDQN(A.DQN):
        Impl = Counting

    with pytest.warns(UserWarning, match=r"updates of Counting can't be captured.*\['n_seen'\]"):
        _, _, means = trained(CountingDQN, SimulatedGraph(), 40, 8)
    assert means["seen"] == 20.5


def test_an_update_that_looks_at_a_value_goes_on_one_by_one():
    class Looking(A.DQN.Impl):
        def update(self, batch):
            metrics = super().update(batch)
            return metrics | {"looked": torch.tensor(metrics["loss"].item())}

    class LookingDQN(A.DQN):
        Impl = Looking

    alone, _, _ = trained(LookingDQN, None, 40, 1)
    with pytest.warns(UserWarning, match="updates of Looking can't be captured.*_local_scalar_dense"):
        repeated, _, _ = trained(LookingDQN, SimulatedGraph(), 40, 1)
    assert_equal(alone, repeated)


class Interrupted(SimulatedGraph):
    def record(self, work):
        replay = super().record(work)

        def interrupted():
            replay()
            raise KeyboardInterrupt

        return interrupted


def test_an_interruption_while_the_device_works_leaves_the_counters_as_they_were():
    algo = make(A.TD3)
    engine = engine_of(algo, Interrupted())
    with training_mode(algo.impl), algo.stream_, pytest.raises(KeyboardInterrupt):
        engine.run(40, Meter(), 1)
    assert algo.grad_step_ == algo.impl.critic_optim.n_steps > 2


class Refusing(PlainRecorder):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_goes_on_one_by_one_after_one_warning():
    alone, _, _ = trained(A.DQN, None, 40, 1)
    with pytest.warns(UserWarning, match="updates of DQN can't be captured.*not permitted") as warned:
        repeated, _, _ = trained(A.DQN, Refusing(), 40, 1)
    assert len(warned) == 1
    assert_equal(alone, repeated)


@pytest.mark.parametrize(
    ("algo", "reason"),
    [
        (A.RLPD(), "drawn in each update"),
        (A.AWR(), "whole episodes"),
        (A.CalQL(), "sums that the host computes"),
        (A.DQN(optim_factory="rmsprop"), "RMSprop has no step that can be captured"),
        (A.DQN(), None),
    ],
    ids=lambda v: type(v).__name__,
)
def test_reasons_why_not(algo, reason):
    discrete = algo.action_space == "discrete"
    algo.create_impl((4,), 3 if discrete else 2)
    found = reason_uncaptured(algo.impl)
    assert found == reason if reason is None else reason in found


def test_a_schedule_of_ones_own_is_a_reason():
    class Steps(AdamFactory):
        def multiplier(self, n_steps):
            return 0.5 ** (n_steps // 10)

    algo = A.DQN(optim_factory=Steps()).create_impl((4,), 3)
    assert "a schedule of its own" in reason_uncaptured(algo.impl)


@pytest.fixture
def recorded(monkeypatch):
    """Runs of ``fit`` that record, on a CPU."""
    monkeypatch.setattr(engine_module, "recorder_for", lambda device: PlainRecorder())


def fitted(**arguments):
    algo = make(A.TD3PlusBC, reward_scaler="standard", action_scaler="min_max", n_steps=3)
    return algo.fit(dataset(False), n_steps=50, n_steps_per_epoch=20, **QUIET, **arguments)


@pytest.mark.usefixtures("recorded")
def test_fit_records_and_callbacks_are_called_after_each_update():
    seen = []
    called = fitted(callback=lambda algo, epoch, total_step: seen.append((epoch, total_step)))
    quiet = fitted()
    assert seen == [(1 + (k - 1) // 20, k) for k in range(1, 51)]
    assert [epoch for epoch, _ in quiet.history_] == [1, 2, 3]
    assert {"critic_loss", "actor_loss", "time_step"} <= quiet.history_[-1][1].keys()
    assert_equal(called, quiet)


def test_batches_by_way_of_the_host_are_those_of_an_ordinary_run(recorded, monkeypatch):
    monkeypatch.setattr(feeds, "fits", lambda rows, device: False)
    by_host = fitted()
    monkeypatch.setattr(engine_module, "recorder_for", lambda device: None)
    ordinary = fitted()
    for name, value in ordinary.impl.state_dict().items():
        torch.testing.assert_close(by_host.impl.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert by_host.history_[-1][1]["critic_loss"] == pytest.approx(ordinary.history_[-1][1]["critic_loss"], rel=1e-4)


def test_data_that_does_not_fit_after_all_comes_from_the_host(recorded, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(feeds, "DeviceColumns", full)
    with pytest.warns(UserWarning, match="doesn't fit on cpu: mini-batches are gathered by the host"):
        algo = fitted()
    assert algo.grad_step_ == 50


def test_one_parameter_turns_it_off(recorded, monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr(engine_module.Engine, "__init__", never)
    make(A.TD3PlusBC, cuda_graph=False).fit(dataset(False), n_steps=3, **QUIET)


def test_without_capture_batches_still_come_from_the_device(recorded, monkeypatch):
    captured = fitted()
    monkeypatch.setattr(engine_module, "recorder_for", lambda device: None)
    monkeypatch.setattr(loop, "from_device", lambda impl: True)
    single = fitted()
    for name, value in captured.impl.state_dict().items():
        torch.testing.assert_close(single.impl.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    runs = ManyRuns(make(A.TD3PlusBC), seeds=2).fit(dataset(False), n_steps=20, **QUIET)
    for estimator in runs.estimators_:
        alone = make(A.TD3PlusBC).set_params(random_state=estimator.random_state)
        alone.fit(dataset(False), n_steps=20, **QUIET)
        for name, value in alone.impl.state_dict().items():
            torch.testing.assert_close(estimator.impl.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_only_plain_batches_come_from_a_gpu(monkeypatch):
    def impl(cls):
        found = cls().create_impl((4,), 2).impl
        found.device = torch.device("cuda", 0)
        return found

    assert [feeds.from_device(impl(cls)) for cls in (A.TD3PlusBC, A.RLPD, A.AWR, A.CalQL)] == [True, True, False, False]
    assert not feeds.from_device(A.TD3PlusBC().create_impl((4,), 2).impl)


@pytest.mark.parametrize("callback", [None, lambda algo, epoch, total_step: None])
@pytest.mark.parametrize("cls", [A.TD3PlusBC, A.SAC, A.DQN, A.IQL], ids=lambda cls: cls.__name__)
def test_several_runs_are_recorded_as_one(cls, callback, recorded, monkeypatch):
    counted = []
    monkeypatch.setattr(Engine, "recorded", lambda *args, f=Engine.recorded: counted.append(1) or f(*args))
    params = [{"gamma": 0.9}, {"gamma": 0.8}] if cls is A.DQN else [{"tau": 0.1}, {"actor_learning_rate": 0.01}]
    data = dataset(cls.action_space == "discrete")
    arguments = {"n_steps": 80, "n_steps_per_epoch": 70, "callback": callback, **QUIET}
    runs = ManyRuns(make(cls), params, seeds=2).fit(data, **arguments)
    assert counted
    for k, found in enumerate(runs.estimators_):
        alone = make(cls, **params[k // 2]).set_params(random_state=k % 2).fit(data, **arguments)
        for name, value in alone.impl.state_dict().items():
            torch.testing.assert_close(found.impl.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)
        assert found.grad_step_ == 80
        assert found.history_[-1][1].keys() == alone.history_[-1][1].keys()


@pytest.mark.usefixtures("recorded")
def test_recorded_runs_follow_a_callback_that_changes_them():
    def callback(algo, epoch, total_step):
        if total_step == 20:
            algo.set_params(alpha=0.1 * (1 + algo.random_state), actor_learning_rate=0.01)

    runs = ManyRuns(make(A.TD3PlusBC), seeds=2).fit(dataset(False), n_steps=60, callback=callback, **QUIET)
    for seed, found in enumerate(runs.estimators_):
        algo = make(A.TD3PlusBC).set_params(random_state=seed)
        alone = algo.fit(dataset(False), n_steps=60, callback=callback, **QUIET)
        for name, value in alone.impl.state_dict().items():
            torch.testing.assert_close(found.impl.state_dict()[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.usefixtures("recorded")
def test_an_algorithm_that_cannot_says_so_once():
    with pytest.warns(UserWarning, match="updates of RLPD are launched one by one: which critics"):
        make(A.RLPD, n_critics=3).fit(dataset(False), n_steps=3, **QUIET)


def test_places_of_host_batches_stay_the_same():
    algo = make(A.DQN)
    run = Run(algo, dataset(True))
    feed = HostFeed(run.algo, PermutationSampler(run.rows, run.indices, *run.window(), seed=0).sample)
    other = PermutationSampler(run.rows, run.indices, *run.window(), seed=0)
    places = []
    for _ in range(4):
        feed.stage(2)
        for i in range(2):
            wanted = other.sample()
            batch = feed.batch(i)
            np.testing.assert_array_equal(batch.observations.numpy(), wanted.observations)
            np.testing.assert_array_equal(batch.discounts.numpy(), wanted.discounts)
        places.append([feed.batch(i).observations.data_ptr() for i in range(2)])
    assert places == [places[0]] * 4


@pytest.mark.parametrize("save_metrics", [True, False])
def test_a_gpu_that_fails_names_the_last_checkpoint(tmp_path, save_metrics):
    def fail(algo, epoch, total_step):
        if total_step == 5:
            raise RuntimeError("CUDA error: unspecified launch failure")

    algo, arguments = make(A.DQN), QUIET | {"save_metrics": save_metrics}
    rest = r"the last checkpoint is .*model_4\.pt" if save_metrics else "nothing was saved"
    with pytest.raises(RuntimeError, match=f"the GPU failed in training.*{rest}.*unspecified launch failure"):
        algo.fit(dataset(True), n_steps=8, n_steps_per_epoch=2, callback=fail, logdir=tmp_path, **arguments)


def test_other_errors_come_through_as_they_are():
    def fail(algo, epoch, total_step):
        raise RuntimeError("of the callback")

    with pytest.raises(RuntimeError, match="^of the callback$"):
        make(A.DQN).fit(dataset(True), n_steps=8, callback=fail, **QUIET)


def test_the_page_lists_what_is_launched_one_by_one_and_why():
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text().split("## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", page, flags=re.MULTILINE)
    listed = {name: reason for names, reason in rows for name in re.findall(r"`(\w+)`", names)}
    found = {}
    for cls in ALGORITHMS.values():
        algo = cls().create_impl((4,), 3 if cls.action_space == "discrete" else 2)
        if reason := reason_uncaptured(algo.impl):
            found[cls.__name__] = reason
    assert found == listed
