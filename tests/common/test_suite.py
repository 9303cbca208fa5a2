"""What every algorithm of the table must do; the equations of each are tested in tests/algos."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate

from d3rlpy.algos import ALGORITHMS
from d3rlpy.dataset import TransitionMiniBatch
from d3rlpy.hyperparameters import fields_of
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import Optimizer
from d3rlpy.models.q_functions import Q_FUNCTIONS
from tests.helpers import make_dataset, random_batch

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))
SMALL_PIXEL = PixelEncoderFactory(filters=((4, 8, 8),), feature_size=8)
SHORT = {"warmup_steps": 2, "n_actor_updates": 3, "n_critic_updates": 3, "n_gradient_steps": 2}
"""PLAS trains its policy after warming up; AWR makes many gradient steps an update; RLPD's actor waits for the G-th."""
VALUE_BASED = [name for name, cls in ALGORITHMS.items() if hasattr(cls.Impl, "value")]
CONTINUOUS = [name for name, cls in ALGORITHMS.items() if cls.action_space == "continuous"]
MEAN_ONLY = ("ensemble_dqn", "rem")
LEARNERS = [name for name, cls in ALGORITHMS.items() if cls.learns]
each = pytest.mark.parametrize("name", ALGORITHMS)
each_learner = pytest.mark.parametrize("name", LEARNERS)  # all but random policies, which also act anew on each call
each_value_based = pytest.mark.parametrize("name", VALUE_BASED)


def make(name, encoder=SMALL, **params):
    cls = ALGORITHMS[name]
    encoders = {f: encoder for f in fields_of(cls) if f.endswith("encoder_factory")}
    phases = {f: n for f, n in SHORT.items() if f in fields_of(cls)}
    return cls(**{"batch_size": 8, "random_state": 0, **encoders, **phases, **params})


def dataset_for(algo, **options):
    return make_dataset(discrete=algo.action_space == "discrete", **options)


def weights(algo):
    return {k: v.clone() for k, v in algo.impl.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@each
def test_clone_copies_parameters_and_nothing_that_was_learned(name):
    algo = make(name)
    algo.fit(dataset_for(algo), n_steps=1, **QUIET)
    twin = clone(algo)
    assert twin.impl is None
    assert twin.get_params() == algo.get_params()


@each_learner
def test_one_seed_gives_one_result_and_another_seed_another(name):
    results = []
    for seed in (0, 0, 1):
        algo = make(name, random_state=seed)
        results.append(weights(algo.fit(dataset_for(algo), n_steps=5, **QUIET)))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


@each
def test_training_leaves_global_randomness_alone(name):
    algo = make(name)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    assert torch.equal(torch.rand(1), expected)


@each
def test_fit_changes_every_trained_network_and_counts_its_updates(name):
    algo = make(name)
    algo.build_with_dataset(dataset_for(algo))
    before = weights(algo)
    algo.fit(dataset_for(algo), n_steps=4, **QUIET)
    trained = [k for k, _ in algo.impl.named_parameters() if not k.startswith("targ_")]
    assert [k for k in trained if torch.equal(before[k], algo.impl.state_dict()[k])] == []
    assert algo.grad_step_ == 4


@each_learner
def test_a_second_fit_continues(name):
    algo = make(name)
    algo.fit(dataset_for(algo), n_steps=3, **QUIET)
    before = weights(algo)
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    assert algo.grad_step_ == 5
    assert not same(before, weights(algo))


@each
def test_json_and_model_file_rebuild_the_object(name, tmp_path):
    algo = make(name, scaler="standard")
    dataset = dataset_for(algo)
    algo.fit(dataset, n_steps=3, logdir=tmp_path, verbose=False, show_progress=False)
    twin = type(algo).from_json(algo.logdir_ / "params.json")
    twin.load_model(algo.logdir_ / "model_3.pt")
    assert twin.saved_params() == algo.saved_params()
    assert same(weights(twin), weights(algo))
    assert twin.grad_step_ == 3
    assert np.array_equal(twin.predict(dataset.observations), algo.predict(dataset.observations))


@each
def test_a_loaded_model_trains_on_as_the_saved_one(name, tmp_path):
    algo = make(name)
    dataset = dataset_for(algo)
    algo.fit(dataset, n_steps=3, **QUIET).save_model(tmp_path / "model.pt")
    twin = make(name)
    twin.load_model(tmp_path / "model.pt")  # twin has not been built
    assert same(weights(twin.fit(dataset, n_steps=3, **QUIET)), weights(algo.fit(dataset, n_steps=3, **QUIET)))


@each
def test_a_fitted_object_can_be_pickled(name):
    algo = make(name)
    dataset = dataset_for(algo)
    twin = pickle.loads(pickle.dumps(algo.fit(dataset, n_steps=2, **QUIET)))
    assert same(weights(twin.fit(dataset, n_steps=2, **QUIET)), weights(algo.fit(dataset, n_steps=2, **QUIET)))


@each_learner
@pytest.mark.parametrize("n_frames", [1, 4])
def test_images_are_learned_from_and_exported(name, n_frames, tmp_path):
    algo = make(name, SMALL_PIXEL, scaler="pixel", n_frames=n_frames)
    dataset = dataset_for(algo, pixel=True, n_episodes=2, length=6)
    algo.fit(dataset, n_steps=2, **QUIET)
    assert algo.observation_shape == (n_frames, 84, 84)
    algo.save_policy(tmp_path / "policy.onnx")
    algo.save_policy(tmp_path / "policy.pt")
    x = np.repeat(dataset.observations[:3], n_frames, axis=1)
    got = torch.jit.load(tmp_path / "policy.pt")(torch.from_numpy(x)).numpy()
    assert np.allclose(got, algo.predict(x), atol=1e-5)


@each_learner
def test_the_exported_policy_acts_on_raw_observations_in_the_scale_of_the_data(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    scalers = {"action_scaler": "min_max"} if name in CONTINUOUS else {}
    algo = make(name, scaler="min_max", **scalers)
    dataset = dataset_for(algo)
    algo.fit(dataset, n_steps=2, **QUIET)
    algo.save_policy(tmp_path / "policy.pt")
    algo.save_policy(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    policy = torch.jit.load(tmp_path / "policy.pt")
    for n in (1, 7):
        x = dataset.observations[:n]
        assert np.allclose(policy(torch.from_numpy(x)).numpy(), algo.predict(x), atol=1e-5)
        assert np.allclose(session.run(None, {"input_0": x})[0], algo.predict(x), atol=1e-5)


@each_value_based
@pytest.mark.parametrize("q_func", list(Q_FUNCTIONS.classes))
@pytest.mark.parametrize("n_steps", [1, 3])
def test_every_q_function_trains_with_n_steps(name, q_func, n_steps):
    algo = make(name, q_func_factory=q_func, n_steps=n_steps, n_critics=2)
    dataset = dataset_for(algo)
    if q_func != "mean" and name in MEAN_ONLY:
        with pytest.raises(ValueError, match="q_func_factory.* must be 'mean'"):
            algo.fit(dataset, n_steps=3, **QUIET)
        return
    algo.fit(dataset, n_steps=3, **QUIET)
    assert np.isfinite([v for _, metrics in algo.history_ for v in metrics.values()]).all()
    actions = algo.predict(dataset.observations)
    mean, std = algo.predict_value(dataset.observations, actions, with_std=True)
    assert mean.shape == std.shape == (len(actions),)
    assert (std > 0).all()
    each_critic = algo.impl.value(algo._observations(dataset.observations), torch.from_numpy(actions)).detach().numpy()
    assert np.allclose(mean, each_critic.mean(axis=0), atol=1e-5)
    assert np.allclose(std, each_critic.std(axis=0), atol=1e-5)


@each_value_based
@pytest.mark.parametrize("scaler", ["min_max", "standard", "clip", "multiply", "return", "shift"])
def test_every_reward_scaler_acts_before_the_sum(name, scaler):
    from d3rlpy.preprocessing import create_reward_scaler

    params = {"clip": {"low": -0.5, "high": 0.5}, "multiply": {"multiplier": 3.0}, "shift": {"shift": -1.0}}
    algo = make(name, n_steps=2, reward_scaler=create_reward_scaler(scaler, **params.get(scaler, {})))
    dataset = dataset_for(algo)
    seen = []
    algo.build_with_dataset(dataset)
    step = algo.impl.step
    algo.impl.step = lambda batch: seen.append(batch.rewards.clone()) or step(batch)
    algo.fit(dataset, n_steps=8, shuffle=False, **QUIET)
    scaled = algo.fitted_scalers_.reward.transform_numpy(dataset.rewards)
    expected = []
    for episode in range(6):
        rewards = scaled[10 * episode : 10 * episode + 10]
        n = 10 if episode < 3 else 9  # the last row of a timed-out episode has no known successor
        expected += [sum(algo.gamma**k * rewards[t + k] for k in range(min(2, n - t))) for t in range(n)]
    assert np.allclose(torch.cat(seen)[: len(expected)].squeeze(1).numpy(), expected, atol=1e-5)


@each_learner
@pytest.mark.parametrize("scaler", ["min_max", "standard"])
def test_every_observation_scaler_stands_between_data_and_networks(name, scaler):
    algo = make(name, scaler=scaler)
    dataset = dataset_for(algo)
    algo.fit(dataset, n_steps=1, **QUIET)
    fitted = algo.fitted_scalers_.observation
    with torch.no_grad():
        scaled = fitted.transform(torch.from_numpy(dataset.observations))
        expected = algo.impl.best_action(scaled).numpy()
    assert np.allclose(algo.predict(dataset.observations), expected, atol=1e-6)


@each
def test_an_update_by_hand_reports_the_same_metrics_as_fit(name):
    algo, twin = make(name), make(name)
    dataset = dataset_for(algo)
    algo.fit(dataset, n_steps=1, **QUIET)
    twin.build_with_dataset(dataset)
    transitions = [t for episode in dataset for t in episode]
    batch = TransitionMiniBatch(transitions[:8], gamma=getattr(twin, "gamma", 0.99))
    metrics = twin.update(batch)
    assert set(metrics) == {k for k in algo.history_[0][1] if not k.startswith("time_")}
    assert all(np.isfinite(v) for v in metrics.values())


@each
def test_each_gradient_step_changes_what_its_optimizer_holds_and_leaves_no_gradient(name, monkeypatch):
    impl = make(name).create_impl((3,), 2).impl
    minimize, stepped = Optimizer.minimize, []

    def watched(optim, loss):
        before = {n: p.clone() for n, p in impl.named_parameters()}
        minimize(optim, loss)
        own = {id(p) for p in optim.params}
        changed = {n for n, p in impl.named_parameters() if not torch.equal(p, before[n])}
        assert changed == {n for n, p in impl.named_parameters() if id(p) in own}
        assert all(p.grad is None for p in impl.parameters())
        stepped.append(optim)

    monkeypatch.setattr(Optimizer, "minimize", watched)
    for seed in range(4):
        impl.step(random_batch(discrete=impl.hp.action_space == "discrete", seed=seed))
    assert {id(o) for o in stepped} == {id(o) for o in impl.optimizers().values()}


@each
def test_target_networks_follow_buffers_and_stay_in_evaluation_mode(name):
    algo = make(name, VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True, dropout_rate=0.1))
    if "target_update_interval" in fields_of(type(algo)):
        algo.set_params(target_update_interval=2)
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    algo.impl.train()
    for child, module in algo.impl.named_children():
        if child.startswith("targ_"):
            assert not any(m.training for m in module.modules())
            online = dict(getattr(algo.impl, child.removeprefix("targ_")).named_buffers())
            assert online
            assert all(torch.equal(b, online[k]) for k, b in module.named_buffers())
        else:
            assert all(m.training for m in module.modules())


@each_learner
def test_predict_is_deterministic_also_in_a_callback_of_training_with_dropout(name):
    algo = make(name, VectorEncoderFactory(hidden_units=(8,), dropout_rate=0.5))
    dataset = dataset_for(algo)
    pairs = []

    def predict_twice(algo, epoch, total_step):
        pairs.append([algo.predict(dataset.observations) for _ in range(2)])
        assert algo.impl.training

    algo.fit(dataset, n_steps=2, callback=predict_twice, **QUIET)
    assert len(pairs) == 2
    assert all(np.array_equal(a, b) for a, b in pairs)


@each
def test_sampled_actions_follow_the_seed_of_the_estimator(name):
    a, b = (make(name, scaler=None).create_impl((3,), 2) for _ in range(2))
    x = np.random.default_rng(0).normal(size=(20, 3))
    assert np.array_equal(a.sample_action(x), b.sample_action(x))
    assert a.sample_action(x).shape == a.predict(x).shape


@each
@pytest.mark.parametrize("factory", ["adam", "sgd", "rmsprop", "adamw"])
def test_every_optimizer_can_be_chosen_by_name(name, factory):
    cls = ALGORITHMS[name]
    algo = make(name, **{f: factory for f in fields_of(cls) if f.endswith("optim_factory")})
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    assert np.isfinite(list(algo.history_[0][1].values())).all()


@each
def test_learning_rates_set_on_a_built_object_act_on_the_next_update(name):
    algo = make(name)
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    before = weights(algo)
    rates = [f for f in fields_of(type(algo)) if f.endswith("learning_rate")]
    algo.set_params(**dict.fromkeys(rates, 0.0))
    algo.fit(dataset_for(algo), n_steps=2, **QUIET)
    online = {k for k in before if not k.startswith("targ_")}
    assert all(torch.equal(before[k], weights(algo)[k]) for k in online)


@each_learner
def test_scikit_learn_searches_and_validates_with_equal_numbers_twice(name):
    from d3rlpy.metrics.scorer import get_scorer

    algo = make(name)
    dataset = dataset_for(algo)
    short = "discrete_action_match" if algo.action_space == "discrete" else "continuous_action_diff"
    scoring, params = {short: get_scorer(short)}, {"n_steps": 4, **QUIET}
    runs = [cross_validate(algo, dataset, scoring=scoring, params=params, cv=3)[f"test_{short}"] for _ in range(2)]
    assert np.array_equal(*runs)
    rates = next(f for f in fields_of(type(algo)) if f.endswith("learning_rate"))
    search = GridSearchCV(algo, {rates: [1e-4, 1e-1]}, scoring=scoring, refit=False, cv=2)
    search.fit(dataset.episodes, **params)
    assert len(search.cv_results_[f"mean_test_{short}"]) == 2
    assert np.isfinite(search.cv_results_[f"mean_test_{short}"]).all()
