import json
import warnings

import numpy as np
import pytest
import torch

from d3rlpy.algos import BC, DQN, TD3
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.training.loop import epoch_lengths
from tests.helpers import make_dataset

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))


def small_dqn(**params):
    return DQN(**{"batch_size": 8, "encoder_factory": SMALL, "random_state": 0, **params})


@pytest.fixture
def dataset():
    """Six episodes of ten rows; three end by a timeout, so 57 rows are transitions."""
    return make_dataset(discrete=True)


class TestLength:
    def test_an_epoch_is_a_pass_rounded_up_to_full_batches(self, dataset):
        algo = small_dqn().fit(dataset, n_epochs=2, **QUIET)
        assert algo.grad_step_ == 2 * 8  # ceil(57 / 8)

    def test_every_step_asked_for_is_run_and_the_last_epoch_is_shorter(self, dataset):
        algo = small_dqn()
        steps = []
        for epoch, _ in algo.fitter(dataset, n_steps=25, n_steps_per_epoch=10, **QUIET):
            steps.append((epoch, algo.grad_step_))
        assert steps == [(1, 10), (2, 20), (3, 25)]

    def test_without_a_length_there_are_a_thousand_epochs(self):
        assert epoch_lengths(None, None, None, 7) == [7] * 1000

    @pytest.mark.parametrize(
        ("length", "message"),
        [
            (
                {"n_epochs": 1, "n_steps": 1},
                "n_epochs=1 and n_steps=1 both set the length of training: give one",
            ),
            ({"n_steps": 0}, "n_steps=0 of fit must be a whole number of at least 1"),
            ({"n_steps": -5}, "n_steps=-5 of fit must be"),
            ({"n_epochs": 0}, "n_epochs=0 of fit must be"),
            ({"n_steps": 5, "n_steps_per_epoch": 0}, "n_steps_per_epoch=0 of fit must be"),
            ({"n_steps": 2.5}, "n_steps=2.5 of fit must be"),
            ({"n_steps": 5, "save_interval": 0}, "save_interval=0 of fit must be"),
        ],
    )
    def test_a_length_that_makes_no_sense_is_an_error(self, dataset, length, message):
        with pytest.raises(ValueError, match=message):
            small_dqn().fit(dataset, **length, **QUIET)


class TestSampling:
    def test_each_transition_is_seen_once_a_pass(self, dataset):
        algo = small_dqn(batch_size=19)  # 57 = 3 * 19
        algo.build_with_dataset(dataset)
        seen = []
        step = algo.impl.step
        algo.impl.step = lambda batch: seen.append(batch.observations.clone()) or step(batch)
        algo.fit(dataset, n_epochs=1, **QUIET)
        transitions = np.stack([t.observation for episode in dataset for t in episode])
        assert sorted(torch.cat(seen).tolist()) == sorted(transitions.tolist())

    def test_episodes_and_transitions_train_as_the_data_set_does(self, dataset):
        def weights(data):
            return small_dqn().fit(data, n_steps=5, **QUIET).impl.state_dict()

        expected = weights(dataset)
        for data in (dataset.episodes, [t for e in dataset for t in e]):
            assert all(torch.equal(v, expected[k]) for k, v in weights(data).items())

    def test_without_shuffling_the_rows_come_in_order(self, dataset):
        algo = small_dqn(batch_size=4).build_with_dataset(dataset)
        seen = []
        step = algo.impl.step
        algo.impl.step = lambda batch: seen.append(batch.observations.clone()) or step(batch)
        algo.fit(dataset, n_steps=2, shuffle=False, **QUIET)
        assert np.array_equal(torch.cat(seen).numpy(), dataset.observations[:8])


class TestLogs:
    def test_a_run_leaves_parameters_metrics_and_checkpoints(self, dataset, tmp_path):
        algo = small_dqn()
        algo.fit(
            dataset, n_steps=6, n_steps_per_epoch=2, save_interval=2, logdir=tmp_path / "logs", experiment_name="mine",
            with_timestamp=False, verbose=False, show_progress=False, eval_episodes=dataset, scorers={"td": "td_error"},
        )  # fmt: skip
        folder = tmp_path / "logs" / "mine"
        assert algo.logdir_ == folder
        assert sorted(p.name for p in folder.iterdir()) == sorted(
            ["params.json", "loss.csv", "td.csv", "time_algorithm_update.csv", "time_sample_batch.csv", "time_step.csv",
             "model_4.pt",
                "model_6.pt"]
        )  # fmt: skip
        lines = [line.split(",") for line in (folder / "loss.csv").read_text().splitlines()]
        assert [(int(e), int(s)) for e, s, _ in lines] == [(1, 2), (2, 4), (3, 6)]
        assert [float(v) for *_, v in lines] == [m["loss"] for _, m in algo.history_]
        assert json.loads((folder / "params.json").read_text()) == algo.saved_params()
        assert json.loads((folder / "params.json").read_text())["algorithm"] == "DQN"

    def test_the_logged_loss_is_the_mean_over_the_epoch(self, dataset):
        whole = small_dqn().fit(dataset, n_steps=4, **QUIET)
        steps = small_dqn().fit(dataset, n_steps=4, n_steps_per_epoch=1, **QUIET)
        assert whole.history_[0][1]["loss"] == pytest.approx(np.mean([m["loss"] for _, m in steps.history_]))

    def test_a_quiet_run_prints_nothing_and_writes_nothing(self, dataset, tmp_path, capfd):
        algo = small_dqn().fit(dataset, n_steps=2, **QUIET)
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == []
        assert algo.logdir_ is None

    def test_a_loud_run_prints_a_line_an_epoch(self, dataset, capfd):
        small_dqn().fit(dataset, n_steps=2, save_metrics=False, show_progress=False)
        out = capfd.readouterr().out
        assert out.startswith("epoch=1 step=2 loss=")
        assert "time_" not in out

    def test_tensorboard_gets_the_metrics_on_request(self, dataset, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        algo = small_dqn()
        algo.fit(dataset, n_steps=2, tensorboard_dir=tmp_path / "board", **QUIET)
        (folder,) = (tmp_path / "board").iterdir()
        events = EventAccumulator(str(folder)).Reload().Scalars("metrics/loss")
        assert [(e.step, e.value) for e in events] == [(2, pytest.approx(algo.history_[0][1]["loss"]))]

    def test_the_old_tensorboard_flag_is_translated(self, dataset, tmp_path):
        with pytest.warns(FutureWarning, match="tensorboard_dir='runs'"):
            small_dqn().fit(dataset, n_steps=1, tensorboard=True, **QUIET)
        assert (tmp_path / "runs").exists()

    def test_two_runs_in_one_second_have_folders_of_their_own(self, dataset, tmp_path):
        folders = {
            small_dqn().fit(dataset, n_steps=1, logdir=tmp_path, verbose=False, show_progress=False).logdir_
            for _ in range(3)
        }
        assert len(folders) == 3

    def test_a_folder_that_exists_is_not_written_into(self, dataset, tmp_path):
        (tmp_path / "mine").mkdir()
        with pytest.raises(FileExistsError, match="choose another experiment_name"):
            small_dqn().fit(
                dataset,
                n_steps=1,
                logdir=tmp_path,
                experiment_name="mine",
                with_timestamp=False,
                verbose=False,
            )

    def test_a_log_folder_that_cannot_be_made_is_an_error_before_training(self, dataset, tmp_path):
        (tmp_path / "file").write_text("")
        algo = small_dqn()
        with pytest.raises(OSError, match="logdir='.*' can't be made .*choose another, or pass save_metrics=False"):
            algo.fit(dataset, n_steps=1, logdir=tmp_path / "file" / "logs")
        assert algo.grad_step_ == 0


class TestScorers:
    def test_logs_show_natural_values_and_results_collect_them(self, dataset):
        from d3rlpy.metrics.scorer import td_error_scorer

        algo = small_dqn()
        algo.fit(
            dataset,
            n_steps=4,
            n_steps_per_epoch=2,
            eval_episodes=dataset,
            scorers={"td": td_error_scorer},
            **QUIET,
        )
        assert len(algo.eval_results_["td"]) == 2
        assert algo.eval_results_["td"][-1] == pytest.approx(-td_error_scorer(algo, dataset.episodes))
        assert algo.eval_results_["td"][-1] > 0
        assert algo.history_[-1][1]["td"] == algo.eval_results_["td"][-1]

    def test_scorers_can_be_a_list_of_names_and_functions(self, dataset):
        from d3rlpy.metrics.scorer import discrete_action_match_scorer

        algo = small_dqn()
        scorers = ["td_error", discrete_action_match_scorer]
        algo.fit(dataset, n_steps=1, eval_episodes=dataset, scorers=scorers, **QUIET)
        assert set(algo.eval_results_) == {"td_error", "discrete_action_match"}

    def test_a_scorer_without_its_episodes_is_an_error_before_training(self, dataset):
        with pytest.raises(ValueError, match="the scorer 'td_error' needs episodes: pass eval_episodes="):
            small_dqn().fit(dataset, n_steps=1, scorers=["td_error"], **QUIET)

    def test_an_unknown_scorer_is_an_error_before_training(self, dataset):
        with pytest.raises(ValueError, match="td_eror"):
            small_dqn().fit(dataset, n_steps=1, scorers=["td_eror"], eval_episodes=dataset, **QUIET)


class TestCallbacks:
    def test_callbacks_see_every_step(self, dataset):
        calls, more = [], []
        algo = small_dqn()
        algo.fit(
            dataset, n_steps=3, n_steps_per_epoch=2, callback=[lambda *a: calls.append(a), lambda *a: more.append(a)],
            **QUIET,
        )  # fmt: skip
        assert calls == more == [(algo, 1, 1), (algo, 1, 2), (algo, 2, 3)]

    def test_an_error_in_a_callback_leaves_an_object_that_predicts(self, dataset):
        algo = small_dqn(encoder_factory=VectorEncoderFactory(hidden_units=(8,), dropout_rate=0.5))

        def fail(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            algo.fit(dataset, n_steps=3, callback=fail, **QUIET)
        assert not algo.impl.training
        assert np.array_equal(algo.predict(dataset.observations), algo.predict(dataset.observations))

    def test_an_abandoned_fitter_leaves_the_steps_made(self, dataset):
        algo = small_dqn()
        for _ in algo.fitter(dataset, n_steps=10, n_steps_per_epoch=2, **QUIET):
            break
        assert algo.grad_step_ == 2

    def test_fitter_says_what_is_wrong_when_it_is_called(self, dataset):
        with pytest.raises(ValueError, match="n_steps=0"):
            small_dqn().fitter(dataset, n_steps=0)


class TestDataThatDoesNotFit:
    def test_float_actions_for_a_discrete_algorithm(self):
        with pytest.raises(ValueError, match="DQN learns discrete actions, but the actions of the data set are floats"):
            small_dqn().fit(make_dataset(discrete=False), n_steps=1, **QUIET)

    def test_integer_actions_for_a_continuous_algorithm(self):
        with pytest.raises(ValueError, match="TD3 learns continuous actions, but the actions of the data set are int"):
            TD3().fit(make_dataset(discrete=True), n_steps=1, **QUIET)

    @pytest.mark.parametrize("data", [[], None, 3, [1, 2]])
    def test_something_that_is_no_data(self, data):
        with pytest.raises((ValueError, TypeError)):
            small_dqn().fit(data, n_steps=1, **QUIET)

    def test_other_shapes_than_the_networks_were_built_for(self, dataset):
        with pytest.raises(ValueError, match=r"built for observations of shape \(5,\), the data set has \(3,\)"):
            small_dqn().create_impl((5,), 2).fit(dataset, n_steps=1, **QUIET)
        with pytest.raises(ValueError, match="built for action_size=1, the data set has 2"):
            small_dqn().create_impl((3,), 1).fit(dataset, n_steps=1, **QUIET)

    def test_frames_of_vectors(self, dataset):
        with pytest.raises(ValueError, match="n_frames=4 stacks images, but observations have the shape"):
            small_dqn(n_frames=4).fit(dataset, n_steps=1, **QUIET)

    def test_a_pixel_scaler_for_vectors(self, dataset):
        with pytest.raises(ValueError, match="PixelScaler scales uint8 images, observations have the shape"):
            small_dqn(scaler="pixel").fit(dataset, n_steps=1, **QUIET)

    def test_actions_beyond_the_range_of_the_policy_are_a_warning(self):
        rng = np.random.default_rng(0)
        n = 20
        data = MDPDataset(
            rng.normal(size=(n, 3)), rng.uniform(-2, 2, (n, 1)).astype(np.float32), np.zeros(n), np.ones(n)
        )
        algo = BC(encoder_factory=SMALL, random_state=0)
        with pytest.warns(
            UserWarning, match=r"actions of the data set lie in \[.*\], but BC acts in \[-1, 1\]: pass ac"
        ):
            algo.fit(data, n_steps=1, **QUIET)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            BC(encoder_factory=SMALL, action_scaler="min_max").fit(data, n_steps=1, **QUIET)

    def test_divergence_is_a_warning(self, dataset):
        algo = small_dqn(learning_rate=1e30)
        with pytest.warns(UserWarning, match="loss is not a number after .* updates: training has diverged"):
            algo.fit(dataset, n_steps=30, **QUIET)


class TestUpdate:
    def test_a_batch_of_another_gamma_is_an_error(self, dataset):
        algo = small_dqn(gamma=0.9).build_with_dataset(dataset)
        with pytest.raises(ValueError, match=r"the mini-batch has gamma=0.99, DQN has gamma=0.9"):
            algo.update(TransitionMiniBatch(dataset.episodes[0].transitions))

    def test_the_old_arguments_are_accepted(self, dataset):
        algo = small_dqn().build_with_dataset(dataset)
        with pytest.warns(FutureWarning, match=r"write update\(batch\)"):
            metrics = algo.update(1, 1, TransitionMiniBatch(dataset.episodes[0].transitions))
        assert metrics["loss"] > 0

    def test_a_reward_scaler_acts_on_an_update_by_hand_before_the_sum(self, dataset):
        from d3rlpy.preprocessing import ClipRewardScaler

        algo = small_dqn(reward_scaler=ClipRewardScaler(low=-0.1, high=0.1), n_steps=3, gamma=0.5)
        algo.build_with_dataset(dataset)
        seen = []
        step = algo.impl.step
        algo.impl.step = lambda batch: seen.append(batch.rewards) or step(batch)
        transitions = dataset.episodes[0].transitions
        algo.update(TransitionMiniBatch(transitions, n_steps=3, gamma=0.5))
        clipped = np.clip(dataset.rewards[:10], -0.1, 0.1)
        expected = [sum(0.5**k * clipped[t + k] for k in range(min(3, 10 - t))) for t in range(10)]
        assert seen[0].squeeze(1).numpy() == pytest.approx(expected, abs=1e-6)


def test_batches_of_fit_equal_a_loop_over_the_rows():
    """Scaling of all columns, n-step sums, discounts, terminals and timeouts, from arrays to the tensors of a loss."""
    from d3rlpy.preprocessing import MultiplyRewardScaler

    data = make_dataset(discrete=False)  # episodes of 10 rows; the last three end by timeouts
    algo = TD3(
        actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, batch_size=19, gamma=0.9, n_steps=3,
        scaler="standard", action_scaler="min_max", reward_scaler=MultiplyRewardScaler(multiplier=2.0), random_state=0,
    ).build_with_dataset(data)  # fmt: skip
    batches = []
    step = algo.impl.step
    fields = ("observations", "actions", "rewards", "next_observations", "discounts")
    algo.impl.step = lambda b: batches.append([getattr(b, f).clone() for f in fields]) or step(b)
    algo.fit(data, n_epochs=1, shuffle=False, **QUIET)
    got = [torch.cat(column).numpy() for column in zip(*batches, strict=True)]

    starts = [10 * e + t for e in range(6) for t in range(10 if e < 3 else 9)]
    seen = data.observations[starts]
    low, high = data.actions[starts].min(axis=0), data.actions[starts].max(axis=0)
    expected = [[], [], [], [], []]
    for row in starts:
        episode, ends_by_terminal = row // 10, row // 10 < 3
        last = 10 * episode + (9 if ends_by_terminal else 8)
        visited = list(range(row, min(row + 3, last + 1)))
        terminal = ends_by_terminal and visited[-1] == last
        following = np.zeros(3) if terminal else data.observations[visited[-1] + 1]
        expected[0].append((data.observations[row] - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-3))
        expected[1].append(2 * (data.actions[row] - low) / (high - low) - 1)
        expected[2].append([sum(0.9**k * 2 * data.rewards[r] for k, r in enumerate(visited))])
        expected[3].append((following - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-3))
        expected[4].append([0.0 if terminal else 0.9 ** len(visited)])
    for name, ours, theirs in zip(fields, got, expected, strict=True):
        assert ours == pytest.approx(np.array(theirs), abs=2e-5), name


class TestChangesWhileTraining:
    def test_gamma_horizon_and_batch_size_set_between_epochs_act_on_the_next_one(self, dataset):
        algo = small_dqn().build_with_dataset(dataset)
        seen = []
        step = algo.impl.step
        algo.impl.step = lambda batch: seen.append((len(batch.rewards), batch.discounts.max().item())) or step(batch)
        for epoch, _ in algo.fitter(dataset, n_steps=2, n_steps_per_epoch=1, **QUIET):
            if epoch == 1:
                algo.set_params(gamma=0.5, n_steps=2, batch_size=4)
        assert seen == [(8, pytest.approx(0.99)), (4, pytest.approx(0.25))]

    def test_an_update_and_an_export_in_a_callback_leave_the_networks_in_training_mode(self, dataset, tmp_path):
        encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True)
        algo = small_dqn(encoder_factory=encoder)
        batch = TransitionMiniBatch(dataset.episodes[0].transitions)

        def meddle(algo, epoch, step):
            algo.save_policy(tmp_path / "policy.pt")
            algo.update(batch)
            assert algo.impl.training

        algo.fit(dataset, n_steps=3, callback=meddle, **QUIET)
        counts = [b.item() for n, b in algo.impl.q_funcs.named_buffers() if n.endswith("num_batches_tracked")]
        assert counts == [6]

    def test_a_copy_made_in_a_callback_has_a_stream_of_its_own(self, dataset):
        import copy

        algo, copies = small_dqn(), []
        algo.fit(dataset, n_steps=2, callback=lambda a, *_: copies.append(copy.deepcopy(a)), **QUIET)
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        copies[0].fit(dataset, n_steps=1, **QUIET)
        assert torch.equal(torch.rand(1), expected)

    def test_gradients_are_on_whatever_surrounds_fit(self, dataset):
        with torch.no_grad():
            first = small_dqn().fit(dataset, n_steps=2, **QUIET)
        with torch.inference_mode():
            second = small_dqn().fit(dataset, n_steps=2, **QUIET)
        states = [a.impl.state_dict() for a in (first, second, small_dqn().fit(dataset, n_steps=2, **QUIET))]
        assert all(torch.equal(states[0][k], s[k]) for s in states for k in states[0])

    def test_another_default_dtype_is_no_concern(self, dataset):
        torch.set_default_dtype(torch.float64)
        try:
            algo = small_dqn(scaler="standard").fit(dataset, n_steps=2, **QUIET)
            assert algo.predict(dataset.observations).dtype == np.int64
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(p.dtype is torch.float32 for p in algo.impl.parameters())


class TestSmallPrint:
    def test_whole_floats_are_numbers_of_updates(self, dataset):
        assert small_dqn(batch_size=8.0).fit(dataset, n_steps=1e1, n_steps_per_epoch=5.0, **QUIET).grad_step_ == 10

    def test_an_iterator_is_read_once(self, dataset):
        algo = small_dqn()
        algo.fit((e for e in dataset), n_steps=2, eval_episodes=iter(dataset), scorers="td_error", **QUIET)
        assert len(algo.eval_results_["td_error"]) == 1

    def test_n_steps_per_epoch_without_n_steps_is_an_error(self, dataset):
        with pytest.raises(ValueError, match="n_steps_per_epoch=5 needs n_steps"):
            small_dqn().fit(dataset, n_epochs=1, n_steps_per_epoch=5, **QUIET)

    def test_the_last_epoch_always_leaves_a_model(self, dataset, tmp_path):
        algo = small_dqn()
        algo.fit(dataset, n_epochs=2, save_interval=5, logdir=tmp_path, verbose=False, show_progress=False)
        assert [p.name for p in algo.logdir_.glob("*.pt")] == ["model_16.pt"]

    def test_eval_episodes_without_scorers_are_a_warning(self, dataset):
        with pytest.warns(UserWarning, match="eval_episodes has no effect without scorers"):
            small_dqn().fit(dataset, n_steps=1, eval_episodes=dataset, **QUIET)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"scorers": {"eval/x": "td_error"}}, ValueError, "'eval/x' can't name a scorer"),
            ({"scorers": {"loss": "td_error"}}, ValueError, "'loss' can't name a scorer"),
            ({"scorers": ["td_error", "td_error"]}, ValueError, "have a name twice: give a dictionary"),
            ({"callback": 3}, TypeError, "callback=3 must be a function"),
            ({"callback": [3]}, TypeError, r"callback=\[3\] must be a function"),
            ({"nepochs": 3}, TypeError, r"DQN.fit has no argument 'nepochs'. Did you mean 'n_epochs'\?"),
        ],
    )
    def test_an_argument_that_cannot_work_is_an_error_before_training(self, dataset, options, error, message):
        algo = small_dqn()
        with pytest.raises(error, match=message):
            algo.fit(dataset, **{"n_steps": 1, "eval_episodes": dataset, **QUIET, **options})
        assert algo.grad_step_ == 0

    def test_what_is_missing_or_too_much_is_said_of_fit(self, dataset):
        with pytest.raises(TypeError, match="DQN.fit: missing a required argument: 'dataset'"):
            small_dqn().fit()
        with pytest.raises(TypeError, match="DQN.fit: too many positional arguments"):
            small_dqn().fit(dataset, 3)

    @pytest.mark.parametrize("name", ["../escaped", "a/b", "/absolute", "."])
    def test_an_experiment_is_a_plain_name(self, dataset, tmp_path, name):
        with pytest.raises(ValueError, match=f"experiment_name='{name}' must be the plain name of a folder"):
            small_dqn().fit(dataset, n_steps=1, logdir=tmp_path / "logs", experiment_name=name, verbose=False)
        assert list(tmp_path.iterdir()) == []

    def test_an_error_before_training_leaves_no_folder_and_nothing_built(self, dataset, tmp_path):
        algo = small_dqn(scaler="pixel")
        with pytest.raises(ValueError, match="PixelScaler"):
            algo.fit(dataset, n_steps=1, logdir=tmp_path / "logs")
        assert algo.impl is None
        assert list(tmp_path.iterdir()) == []
        algo.set_params(scaler="standard").fit(dataset, n_steps=1, **QUIET)

    def test_a_folder_appears_when_the_first_epoch_is_asked_for(self, dataset, tmp_path):
        epochs = small_dqn().fitter(dataset, n_steps=1, logdir=tmp_path / "logs", verbose=False, show_progress=False)
        assert list(tmp_path.iterdir()) == []
        next(epochs)
        assert (tmp_path / "logs").exists()

    def test_warnings_point_at_the_line_that_can_be_changed(self, dataset):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DQN(share_encoder=False)
            small_dqn().fit(dataset, n_steps=1, eval_episodes=dataset, **QUIET)
            small_dqn(learning_rate=1e30).fit(dataset, n_steps=30, **QUIET)
        assert [w.filename for w in caught] == [__file__] * 3


class TestProfile:
    def test_the_parts_add_up_to_the_update_and_the_object_stays_as_it_was(self, dataset):
        algo = small_dqn()
        found = algo.profile(dataset, seconds=0.2)
        assert algo.impl is None
        assert list(found.seconds) == ["sampling", "transfer", "forward", "backward", "optimizer", "logging"]
        assert all(s > 0 for s in found.seconds.values())
        assert found.updates_per_second == pytest.approx(1 / sum(found.seconds.values()))
        assert f"{found.updates_per_second:.0f} updates/s" in str(found)

    def test_it_times_what_takes_long(self, dataset):
        import time

        from d3rlpy.models.optimizers import Optimizer

        class Slow(Optimizer):
            def apply(self, grads):
                time.sleep(0.005)
                super().apply(grads)

        algo = small_dqn().build_with_dataset(dataset)
        algo.impl.optim.__class__ = Slow
        found = algo.profile(dataset, seconds=0.3)
        assert found.seconds["optimizer"] > 0.005
        assert max(found.seconds, key=found.seconds.get) == "optimizer"
        assert found.advice.startswith("The optimizer takes longest")

    def test_a_trained_object_is_not_trained_on(self, dataset):
        algo = small_dqn().fit(dataset, n_steps=2, **QUIET)
        before = {k: v.clone() for k, v in algo.impl.state_dict().items()}
        algo.profile(dataset, seconds=0.1)
        assert all(torch.equal(v, before[k]) for k, v in algo.impl.state_dict().items())
        assert algo.grad_step_ == 2
