"""The calls that the 2020 documentation and the 2021 paper show, as far as their classes exist.

CORRECTED lists where a call differs from the printed one, and why.
"""

import inspect
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split

import d3rlpy
from d3rlpy.algos import ALGORITHMS, BC, DQN, SAC, TD3, Algo, DiscreteBC, DiscreteCQL, DoubleDQN
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.datasets import get_cartpole
from d3rlpy.metrics.scorer import average_value_estimation_scorer, evaluate_on_environment, td_error_scorer
from d3rlpy.online.buffers import ReplayBuffer
from d3rlpy.online.explorers import LinearDecayEpsilonGreedy, NormalNoise
from d3rlpy.online.iterators import train

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
    "gym.make('CartPole-v0')": "gymnasium.make('CartPole-v1'); gym is no longer maintained, nor is that version",
    "gym.make('Hopper-v2')": "Pendulum-v1, which needs no simulator of its own",
    "d3rlpy.online.buffer": "d3rlpy.online.buffers, as everywhere else in the documents",
    "n_epochs=, n_updates_per_epoch=, tensorboard= of fit_online": "accepted with a FutureWarning",
    "ReplayBuffer.observation_shape, action_size": "get_observation_shape() and get_action_size(), as of a data set",
    "ReplayBuffer.transitions, prev_observation, ...": "episodes or to_mdp_dataset(); a buffer holds columns",
    "append(..., reward, terminal) with the reward of arriving": "the reward that the action caused, as in a data set",
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


OF_2020 = "ignore:.*2020 documentation:FutureWarning"
SMALL = {"batch_size": 8, "random_state": 0}


class TestOnlineTraining:
    """Section 3.11."""

    @pytest.fixture
    def env(self):
        return gymnasium.make("CartPole-v1")

    def test_the_example(self, env):
        eval_env = gymnasium.make("CartPole-v1")
        dqn = DQN(batch_size=32, learning_rate=2.5e-4, target_update_interval=100)
        buffer = ReplayBuffer(maxlen=1000000, env=env)
        explorer = LinearDecayEpsilonGreedy(start_epsilon=1.0, end_epsilon=0.1, duration=10000)
        with pytest.warns(FutureWarning, match="write n_steps=150, n_steps_per_epoch=50, update_interval=50"):
            dqn.fit_online(
                env,
                buffer,
                explorer=explorer,  # you don't need this with probabilistic policy algorithms
                eval_env=eval_env,
                n_epochs=3,
                n_steps_per_epoch=50,
                n_updates_per_epoch=5,
                **QUIET,
            )
        assert [epoch for epoch, _ in dqn.history_] == [1, 2, 3]
        assert dqn.grad_step_ == 15
        assert len(dqn.eval_results_["evaluation"]) == 3
        assert buffer.size() == len(buffer) >= 149  # of the last step, the successor may not be known

    @pytest.mark.filterwarnings(OF_2020)
    def test_every_argument_of_fit_online_does_what_it_says(self, env, tmp_path):
        dqn = DQN(**SMALL)
        dqn.fit_online(
            env,
            ReplayBuffer(100, env),
            explorer=LinearDecayEpsilonGreedy(),
            n_epochs=4,
            n_steps_per_epoch=10,
            n_updates_per_epoch=3,
            update_start_step=20,
            eval_env=gymnasium.make("CartPole-v1"),
            eval_epsilon=0.05,
            eval_interval=2,
            experiment_name="first",
            with_timestamp=False,
            logdir=tmp_path / "logs",
            verbose=False,
            show_progress=False,
            tensorboard=True,
            save_interval=2,
        )
        assert dqn.grad_step_ == 2 * 3
        assert ["evaluation" in metrics for _, metrics in dqn.history_] == [False, True, False, True]
        files = {path.name for path in (tmp_path / "logs" / "first").iterdir()}
        assert {"params.json", "model_20.pt", "model_40.pt", "evaluation.csv"} <= files
        assert not {"model_10.pt", "model_30.pt"} & files
        assert any(Path("runs").rglob("events.out.tfevents.*"))

    @pytest.mark.filterwarnings(OF_2020)
    def test_train(self, env, tmp_path):
        dqn = DQN(**SMALL)
        train(
            env, dqn, ReplayBuffer(100, env), explorer=LinearDecayEpsilonGreedy(), n_epochs=2, n_steps_per_epoch=10,
            n_updates_per_epoch=3, update_start_step=0, eval_env=None, eval_epsilon=0.05, eval_interval=1,
            save_metrics=False, experiment_name=None, with_timestamp=True, logdir=tmp_path, verbose=False,
            show_progress=False, tensorboard=False, save_interval=1,
        )  # fmt: skip
        assert dqn.grad_step_ == 6
        assert list(tmp_path.iterdir()) == []

    def test_the_replay_buffer(self, env, cartpole):
        episodes = cartpole[0].episodes[:3]
        buffer = ReplayBuffer(maxlen=1000, env=env, episodes=episodes)
        assert buffer.size() == len(buffer) == sum(len(episode) for episode in episodes)
        buffer.append_episode(episodes[0])
        assert buffer.size() == sum(len(episode) for episode in episodes) + len(episodes[0])
        buffer = ReplayBuffer(1000, env)
        observation = env.reset(seed=0)[0]
        for t in range(5):
            buffer.append(observation=observation, action=t % 2, reward=1.0, terminal=t == 4)
        batch = buffer.sample(batch_size=4, n_frames=1)
        assert batch.size() == 4
        assert batch.observations.shape == (4, 4)
        assert (buffer.get_observation_shape(), buffer.get_action_size()) == ((4,), 2)

    def test_the_replay_buffer_stacks_frames(self):
        buffer = ReplayBuffer(100, observation_shape=(3, 84, 84), action_size=2, discrete_action=True)
        for t in range(40):
            buffer.append(np.full((3, 84, 84), t, np.uint8), 0, 0.0, float(t == 39))
        batch = buffer.sample(batch_size=32, n_frames=4)
        assert batch.observations.shape == (32, 12, 84, 84)

    def test_the_explorers(self, env):
        explorer = LinearDecayEpsilonGreedy(start_epsilon=1.0, end_epsilon=0.1, duration=1000000)
        assert (explorer.start_epsilon, explorer.end_epsilon, explorer.duration) == (1.0, 0.1, 1000000)
        assert explorer.compute_epsilon(500000) == pytest.approx(0.55)
        x = np.stack([env.reset(seed=seed)[0] for seed in range(3)])
        assert explorer.sample(DQN(**SMALL).build_with_env(env), x, 10).shape == (3,)
        noise = NormalNoise(mean=0.0, std=0.1)
        assert (noise.mean, noise.std) == (0.0, 0.1)
        assert noise.sample(TD3(**SMALL).create_impl((4,), 2), x, 10).shape == (3, 2)


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

    def test_section_3_the_transition_to_online_training(self):
        dataset, env = d3rlpy.datasets.get_pendulum()
        sac = d3rlpy.algos.SAC(actor_learning_rate=3e-4, action_scaler="min_max", **SMALL)
        sac.fit(dataset.episodes[:5], n_steps=2, save_metrics=False, **QUIET)
        sac.fit_online(env, n_steps=20, eval_env=gymnasium.make("Pendulum-v1"), save_metrics=False, **QUIET)
        assert sac.grad_step_ > 10
        assert len(sac.eval_results_["evaluation"]) == 1

    def test_section_4_collection(self):
        env = gymnasium.make("Pendulum-v1")
        sac = SAC(action_scaler="min_max", **SMALL)
        buffer = d3rlpy.online.buffers.ReplayBuffer(1000000, env=env)
        sac.collect(env, buffer, n_steps=30, **QUIET)
        sac.fit_online(env, buffer, n_steps=20, save_metrics=False, **QUIET)
        dataset = buffer.to_mdp_dataset()
        assert len(dataset.rewards) == 50

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


@pytest.mark.parametrize("name", [name for name, cls in ALGORITHMS.items() if cls.learns_from_rewards])
def test_every_argument_of_fit_online_of_the_2020_documentation_exists(name):
    documented = {
        "env", "buffer", "explorer", "n_epochs", "n_steps_per_epoch", "n_updates_per_epoch", "update_start_step",
        "eval_env", "eval_epsilon", "eval_interval", "save_metrics", "experiment_name", "with_timestamp", "logdir",
        "verbose", "show_progress", "tensorboard", "save_interval",
    }  # fmt: skip
    parameters = inspect.signature(ALGORITHMS[name].fit_online).parameters
    assert documented <= set(parameters)
    assert list(parameters)[1:4] == ["env", "buffer", "explorer"]
    assert documented | {"algo"} == set(inspect.signature(train).parameters)
