"""The calls that the 2020 documentation and the 2021 paper show, as far as their classes exist.

CORRECTED lists where a call differs from the printed one, and why.
"""

import inspect

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split

import d3rlpy
from d3rlpy.algos import BC, DQN, TD3, Algo, DiscreteBC, DiscreteCQL, DoubleDQN
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.datasets import get_cartpole
from d3rlpy.metrics.scorer import average_value_estimation_scorer, evaluate_on_environment, td_error_scorer

CORRECTED = {
    "MDPDataSet": "MDPDataset; the class never had the other name",
    "np.random.random(10, 4)": "np.random.random((10, 4)); numpy takes one shape",
    "td_error_scorer(dqn, ...) before fit": "after fit; an algorithm without networks has no TD error",
    "evaluate_scorer(dqn) before fit": "after fit, likewise",
    "fit_params=": "params=; scikit-learn 1.6 renamed it",
    "use_gpu=True": "left out; these tests run without a GPU",
    "average_value_estimation_scorer called in a dictionary of scorers": "the function itself is the scorer",
    "algo.predict(...) with 100 observations of 10 entries": "as many entries as the data set has",
    "env.reset() as an observation": "its first part; gymnasium also returns information",
}

QUIET = {"verbose": False, "show_progress": False}


@pytest.fixture(scope="module")
def cartpole():
    return get_cartpole()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return (
        rng.random((1000, 100)),
        rng.random((1000, 4)),
        rng.random(1000),
        rng.integers(2, size=1000),
    )


@pytest.mark.filterwarnings("ignore:the last episode has no end:UserWarning")
class TestDataSetPages:
    @pytest.fixture
    def dataset(self, arrays):
        *others, terminals = arrays
        terminals[-1] = 1
        return MDPDataset(*others, terminals)

    def test_episodes_and_transitions(self, dataset):
        assert isinstance(dataset.episodes, list)
        episode = dataset.episodes[0]
        assert np.allclose(episode[0].observation, dataset.observations[0])
        assert np.allclose(episode[0].action, dataset.actions[0])
        with pytest.warns(FutureWarning, match="next_reward"):
            assert episode[0].next_reward == episode[0].reward
        assert episode[0].next_observation.shape == (100,)
        assert episode[0].terminal in (0.0, 1.0)
        transition, length = episode[0], 1
        while transition.next_transition:
            transition, length = transition.next_transition, length + 1
        assert length == len(episode)
        assert transition.terminal == 1.0

    def test_list_behavior_and_shapes(self, dataset):
        assert len(dataset) == dataset.size() == len(list(dataset))
        assert dataset[0].size() == len(dataset[0])
        assert dataset.get_observation_shape() == dataset[0].get_observation_shape() == (100,)
        assert dataset.get_action_size() == dataset[0].get_action_size() == dataset[0][0].get_action_size() == 4
        assert dataset.is_action_discrete() is False

    def test_statistics_append_extend_clip_and_files(self, dataset, arrays, tmp_path):
        stats = dataset.compute_stats()
        assert stats["return"]["mean"] == pytest.approx(np.mean([e.compute_return() for e in dataset]))
        assert stats["reward"]["max"] == pytest.approx(dataset.rewards.max())
        assert stats["action"]["min"] == pytest.approx(dataset.actions.min(axis=0))
        assert stats["observation"]["std"] == pytest.approx(dataset.observations.std(axis=0), rel=1e-4)
        dataset.dump(tmp_path / "dataset.h5")
        new_dataset = MDPDataset.load(tmp_path / "dataset.h5")
        assert np.array_equal(new_dataset.observations, dataset.observations)
        n = len(dataset)
        dataset.extend(new_dataset)
        assert len(dataset) == 2 * n
        *others, terminals = arrays
        terminals[-1] = 1
        dataset.append(*others, terminals)
        assert len(dataset) == 3 * n
        dataset.clip_reward(low=0.2, high=0.5)
        assert (dataset.rewards.min(), dataset.rewards.max()) == (np.float32(0.2), np.float32(0.5))

    def test_frames_are_stacked_in_a_mini_batch(self):
        frames = np.random.default_rng(0).integers(0, 256, (10, 3, 84, 84), dtype=np.uint8)
        dataset = MDPDataset(frames, np.arange(10) % 2, np.zeros(10), np.arange(10) == 9)
        transitions = dataset.episodes[0].transitions
        assert transitions[0].observation.shape == (3, 84, 84)
        batch = TransitionMiniBatch(transitions, n_frames=4)
        assert batch.observations.shape == (len(transitions), 12, 84, 84)
        assert batch.size() == len(batch.transitions) == 10


class TestGettingStarted:
    def test_from_data_to_policy(self, cartpole, tmp_path):
        dataset, env = cartpole
        train_episodes, test_episodes = train_test_split(dataset, test_size=0.2)
        dqn = DQN(use_gpu=False)
        evaluate_scorer = evaluate_on_environment(env, n_trials=1)
        dqn.fit(
            train_episodes[:10],
            eval_episodes=test_episodes[:5],
            n_epochs=1,
            scorers={
                "td_error": td_error_scorer,
                "value_scale": average_value_estimation_scorer,
                "environment": evaluate_scorer,
            },
            **QUIET,
        )
        assert td_error_scorer(dqn, test_episodes) <= 0
        assert evaluate_scorer(dqn) >= 1
        observation = env.reset()[0]
        action = dqn.predict([observation])[0]
        assert dqn.predict_value([observation], [action])[0] == dqn.predict_value([observation], [action])
        dqn.save_model("dqn.pt")
        dqn2 = DQN()
        dqn2.load_model("dqn.pt")
        assert dqn2.predict([observation])[0] == action
        dqn.save_policy("policy.pt")
        with pytest.warns(FutureWarning):
            dqn.save_policy("policy.onnx", as_onnx=True)

    def test_from_json_and_load(self, cartpole):
        dataset, _ = cartpole
        dqn = DQN()
        dqn.fit(dataset.episodes[:5], n_epochs=1, logdir="custom_logs", experiment_name="custom", **QUIET)
        assert dqn.logdir_.parts[0] == "custom_logs"
        assert dqn.logdir_.name.startswith("custom_20")
        again = DQN.from_json(dqn.logdir_ / "params.json")
        again.load_model(dqn.logdir_ / f"model_{dqn.grad_step_}.pt")
        assert type(Algo.from_json(dqn.logdir_ / "params.json")) is DQN

    def test_the_exported_policy_needs_torch_or_onnxruntime_only(self):
        ort = pytest.importorskip("onnxruntime")
        bc = BC().create_impl((6,), 2)
        bc.save_policy("policy.pt")
        bc.save_policy("policy.onnx")
        policy = torch.jit.load("policy.pt")
        assert policy(torch.rand(32, 6)).shape == (32, 2)
        observation = np.random.rand(1, 6).astype(np.float32)
        action = ort.InferenceSession("policy.onnx").run(None, {"input_0": observation})[0]
        assert action == pytest.approx(bc.predict(observation), abs=1e-6)

    def test_parameters_can_be_read_and_set(self):
        algo = DQN()
        params = algo.get_params(deep=True)
        assert DQN(**algo.get_params(deep=False)).get_params() == params
        assert algo.set_params(batch_size=100).batch_size == 100


class TestScikitLearn:
    def test_cross_validate(self, cartpole):
        dataset = cartpole[0].episodes[:15]
        scores = cross_validate(
            DQN(), dataset, scoring={"td_error": td_error_scorer},
            params={"n_steps": 20, "save_metrics": False, **QUIET},
        )  # fmt: skip
        assert (scores["test_td_error"] <= 0).all()

    def test_grid_search(self, cartpole):
        dataset = cartpole[0].episodes[:15]
        search = GridSearchCV(
            estimator=DQN(random_state=0),
            param_grid={"learning_rate": [1e-4, 3e-4, 1e-3]},
            scoring={"td_error": td_error_scorer},
            refit=False,
        )
        search.fit(dataset, n_steps=10, save_metrics=False, **QUIET)
        assert len(search.cv_results_["params"]) == 3

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:A worker stopped:UserWarning")
    def test_two_processes_give_the_numbers_of_one(self, cartpole):
        dataset = cartpole[0].episodes[:10]

        def search(n_jobs):
            found = GridSearchCV(
                DQN(random_state=0),
                {"gamma": [0.9, 0.99]},
                scoring={"td_error": td_error_scorer},
                refit=False,
                cv=2,
                n_jobs=n_jobs,
            )
            found.fit(dataset, n_steps=20, save_metrics=False, **QUIET)
            return found.cv_results_["mean_test_td_error"]

        assert np.array_equal(search(1), search(2))


class TestPaper:
    def test_section_3_offline_training(self, cartpole):
        dataset, env = d3rlpy.datasets.get_dataset("cartpole-replay")
        algo = d3rlpy.algos.DiscreteCQL(learning_rate=3e-4)
        algo.fit(
            dataset.episodes[:20],
            n_steps=20,
            eval_episodes=dataset.episodes[:5],
            scorers={
                "environment": d3rlpy.metrics.evaluate_on_environment(env, n_trials=1),
                "average_value": d3rlpy.metrics.average_value_estimation_scorer,
            },
            **QUIET,
        )
        assert set(algo.eval_results_) == {"environment", "average_value"}

    def test_section_4_scalers_q_functions_and_n_steps(self):
        dataset, _ = d3rlpy.datasets.get_pendulum()
        td3 = d3rlpy.algos.TD3(
            scaler="standard",
            action_scaler="min_max",
            reward_scaler="standard",
            q_func_factory="qr",
            n_steps=3,
        )
        td3.fit(dataset.episodes[:10], n_steps=5, save_metrics=False, **QUIET)
        td3.save_policy("policy.pt")
        td3.save_policy("policy.onnx")

    def test_appendix_a_metadata(self):
        params = TD3().create_impl((17,), 6).saved_params()
        assert params["algorithm"] == "TD3"
        assert params["observation_shape"] == [17]
        assert params["action_size"] == 6
        assert params["action_scaler"] is None
        assert params["actor_encoder_factory"] == "default"
        assert params["actor_optim_factory"]["params"]["betas"] == [0.9, 0.999]


@pytest.mark.parametrize("cls", [BC, DQN, DoubleDQN, DiscreteBC, DiscreteCQL, TD3])
def test_every_method_of_the_2020_documentation_exists(cls):
    methods = {
        "create_impl", "fit", "from_json", "get_params", "load_model", "predict", "sample_action", "save_model",
        "save_policy", "set_params", "update",
    }  # fmt: skip
    assert {m for m in methods if not callable(getattr(cls, m, None))} == set()
    documented = {
        "n_epochs", "save_metrics", "experiment_name", "with_timestamp", "logdir", "verbose", "show_progress",
        "tensorboard", "eval_episodes", "save_interval", "scorers",
    }  # fmt: skip
    assert documented <= set(inspect.signature(cls.fit).parameters)
