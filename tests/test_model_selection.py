"""Several runs trained together: each is what it would be alone, and the table says what they have in common."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.base import clone

from d3rlpy import algos as A
from d3rlpy.context import parallel
from d3rlpy.dataset import MDPDataset
from d3rlpy.hyperparameters import ALGORITHMS, fields_of
from d3rlpy.metrics.scorer import td_error_scorer
from d3rlpy.model_selection import GridSearch, ManyRuns, half_width
from d3rlpy.models.encoders import VectorEncoderFactory

SMALL = VectorEncoderFactory(hidden_units=(8,))
QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}


def small(cls=A.TD3PlusBC, **params):
    encoders = {name: SMALL for name in fields_of(cls) if name.endswith("encoder_factory")}
    return cls(batch_size=8, **{**encoders, **params})


def dataset(n=100):
    rng = np.random.default_rng(0)
    return MDPDataset(
        rng.normal(size=(n, 3)).astype("float32"),
        rng.uniform(-1, 1, (n, 2)).astype("float32"),
        rng.normal(size=n).astype("float32"),
        np.arange(n) % 10 == 9,
    )


def states(algo):
    return {name: value.numpy() for name, value in algo.impl.state_dict().items()}


def assert_same_run(one, other, tolerance=1e-4):
    for name, value in states(one).items():
        np.testing.assert_allclose(states(other)[name], value, rtol=tolerance, atol=1e-5, err_msg=name)
    assert [epoch for epoch, _ in one.history_] == [epoch for epoch, _ in other.history_]
    for (_, mine), (_, theirs) in zip(one.history_, other.history_, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            if not name.startswith("time_"):
                assert theirs[name] == pytest.approx(mine[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    "estimator",
    [
        small(),
        small(A.IQL, reward_scaler="standard", action_scaler="min_max", scaler="min_max"),
        small(A.AWR, batch_size_per_update=4, n_actor_updates=2, n_critic_updates=2),  # one after the other
        small(A.RLPD, n_critics=3),
    ],
    ids=lambda e: type(e).__name__,
)
def test_each_run_is_what_fit_makes_of_it_alone(estimator):
    data = dataset()
    fit = {"n_steps": 14, "n_steps_per_epoch": 5, "scorers": ["td_error"], "eval_episodes": data, **QUIET}
    if isinstance(estimator, A.AWR):
        fit |= {"scorers": ["continuous_action_diff"]}
    runs = ManyRuns(estimator, seeds=[3, 8]).fit(data, **fit)
    for seed, found in zip([3, 8], runs.estimators_, strict=True):
        alone = clone(estimator).set_params(random_state=seed).fit(data, **fit)
        assert found.random_state == seed
        assert_same_run(alone, found)
        assert found.eval_results_.keys() == alone.eval_results_.keys()


def test_settings_differ_in_numbers_and_in_what_is_no_number():
    params = [{"alpha": 1.0}, {"alpha": 3.0, "gamma": 0.9}, {"update_actor_interval": 1}]
    runs = ManyRuns(small(), params, seeds=2).fit(dataset(), n_steps=6, **QUIET)
    assert len(runs.estimators_) == 6
    for k, found in enumerate(runs.estimators_):
        alone = small(**params[k // 2], random_state=k % 2).fit(dataset(), n_steps=6, **QUIET)
        assert_same_run(alone, found)
    assert runs.cv_results_["param_alpha"] == [1.0, 3.0, None]


def test_the_table_holds_means_and_intervals_over_seeds():
    data = dataset()
    runs = ManyRuns(small(), [{"alpha": 1.0}, {"alpha": 3.0}], seeds=3)
    runs.fit(data, n_steps=4, scorers=["td_error"], eval_episodes=data, **QUIET)
    table = runs.cv_results_
    assert table["params"] == [{"alpha": 1.0}, {"alpha": 3.0}]
    values = np.array([algo.eval_results_["td_error"][-1] for algo in runs.estimators_]).reshape(2, 3)
    np.testing.assert_allclose(table["mean_td_error"], values.mean(axis=1))
    np.testing.assert_allclose(table["std_td_error"], values.std(axis=1))
    np.testing.assert_allclose(table["seed2_td_error"], values[:, 2])
    low, high = student_t.interval(0.95, 2, values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(table["low_td_error"], low)
    np.testing.assert_allclose(table["high_td_error"], high)
    assert not any("time_" in name for name in table)


def test_the_interval_of_known_numbers():
    np.testing.assert_allclose(half_width(np.array([[1.0, 2.0, 3.0]])), 4.302653 / np.sqrt(3), rtol=1e-6)
    assert np.isnan(half_width(np.array([[1.0]]))).all()


def test_a_search_takes_the_best_mean_and_the_run_in_the_middle():
    def worth(algo, episodes):
        return 10.0 * algo.alpha + [0.0, 5.0, -3.0][algo.random_state]

    search = GridSearch(small(), {"alpha": [1.0, 4.0, 2.0]}, seeds=3)
    search.fit(dataset(), n_steps=2, scorers={"worth": worth}, eval_episodes=dataset(), **QUIET)
    assert search.best_params_ == {"alpha": 4.0}
    assert search.best_score_ == pytest.approx(40 + 2 / 3)
    assert list(search.cv_results_["rank_worth"]) == [3, 1, 2]
    assert (search.best_estimator_.alpha, search.best_estimator_.random_state) == (4.0, 0)


@pytest.mark.parametrize(("negated", "chosen"), [(False, 0), (True, 1)])
def test_of_two_in_the_middle_the_worse_is_taken(negated, chosen):
    def worth(algo, episodes):
        return (-1.0 if negated else 1.0) * [1.0, 2.0][algo.random_state]  # an error is returned negated

    worth.negated = negated
    search = GridSearch(small(), {"alpha": [1.0]}, seeds=2)
    search.fit(dataset(), n_steps=2, scorers={"worth": worth}, eval_episodes=dataset(), **QUIET)
    assert search.best_estimator_.random_state == chosen


def test_of_an_error_the_smaller_is_better_and_not_a_number_is_worst():
    def error(algo, episodes):
        return float("nan") if algo.alpha == 1.0 else -algo.alpha

    error.negated = True  # returned negated: the natural value is alpha
    search = GridSearch(small(), {"alpha": [1.0, 4.0, 2.0]}, seeds=1, refit="error")
    search.fit(dataset(), n_steps=2, scorers={"error": error, "td_error": "td_error"}, eval_episodes=dataset(), **QUIET)
    assert search.best_params_ == {"alpha": 2.0}
    assert list(search.cv_results_["rank_error"]) == [3, 2, 1]


@pytest.mark.parametrize(
    ("scorers", "refit", "complaint"),
    [
        (None, None, "pass scorers="),
        (["td_error", "average_value_estimation"], None, "refit must say which"),
        (["td_error"], "td_eror", "none of the scorers.*td_error"),
    ],
)
def test_a_search_must_know_what_decides(scorers, refit, complaint):
    search = GridSearch(small(), {"alpha": [1.0]}, seeds=1, refit=refit)
    with pytest.raises(ValueError, match=complaint):
        search.fit(dataset(), n_steps=1, scorers=scorers, eval_episodes=dataset(), **QUIET)


def test_each_run_has_a_folder(tmp_path, capsys):
    runs = ManyRuns(small(), seeds=2)
    runs.fit(dataset(), n_steps=4, n_steps_per_epoch=2, logdir=tmp_path, with_timestamp=False, show_progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["TD3PlusBC_0", "TD3PlusBC_1"]
    for k, algo in enumerate(runs.estimators_):
        assert algo.logdir_ == tmp_path / f"TD3PlusBC_{k}"
        assert json.loads((algo.logdir_ / "params.json").read_text())["random_state"] == k
        assert len((algo.logdir_ / "critic_loss.csv").read_text().splitlines()) == 2
        again = A.TD3PlusBC.from_json(algo.logdir_ / "params.json")
        again.load_model(algo.logdir_ / "model_4.pt")
        x = dataset().observations[:3]
        np.testing.assert_array_equal(again.predict(x), algo.predict(x))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch=1 step=2 runs=2 critic_loss=")


def test_callbacks_see_each_run_as_it_is_and_may_change_it(tmp_path):
    data, seen = dataset(), []

    def callback(algo, epoch, total_step):
        seen.append((algo.random_state, epoch, total_step, algo.predict(data.observations[:2]).shape))
        algo.set_params(alpha=1.0 / total_step)
        if total_step == 3:
            algo.save_model(tmp_path / f"{algo.random_state}.pt")

    runs = ManyRuns(small(), seeds=2).fit(data, n_steps=5, callback=callback, **QUIET)
    assert [entry[:3] for entry in seen] == [(seed, 1, k) for k in range(1, 6) for seed in (0, 1)]
    for seed, found in enumerate(runs.estimators_):
        alone = small(random_state=seed).fit(data, n_steps=5, callback=callback, **QUIET)
        assert_same_run(alone, found)
        half = small(random_state=seed)
        half.load_model(tmp_path / f"{seed}.pt")
        assert half.grad_step_ == 3
    assert (tmp_path / "0.pt").stat().st_size < 60_000  # of one run, not of all


def test_a_callback_may_not_make_runs_differ_in_their_schedule():
    def callback(algo, epoch, total_step):
        if algo.random_state == 1:
            algo.set_params(update_actor_interval=5)

    with pytest.raises(ValueError, match=r"update_actor_interval takes the values \[2, 5\]"):
        ManyRuns(small(), seeds=2).fit(dataset(), n_steps=5, callback=callback, **QUIET)


def test_everything_wrong_is_said_before_the_first_update(tmp_path):
    (tmp_path / "TD3PlusBC_3").mkdir()
    seen = []
    runs = ManyRuns(small(), [{"batch_size": 8}, {"batch_size": 4}], seeds=2)
    arguments = {"n_steps": 2, "callback": lambda algo, epoch, step: seen.append(step), "verbose": False}
    wrong = ManyRuns(small(), [{}, {"critic_encoder_factory": "pixel"}], seeds=2)
    with pytest.raises(ValueError, match="pixel"):
        wrong.fit(dataset(), save_metrics=False, show_progress=False, **arguments)
    assert not seen
    with pytest.raises(FileExistsError, match="TD3PlusBC_3 exists"):
        runs.fit(dataset(), logdir=tmp_path, with_timestamp=False, show_progress=False, **arguments)
    assert not seen


def test_an_error_on_the_way_loses_nothing_that_was_trained():
    def fail(algo, epoch, step):
        if algo.batch_size == 4:
            raise ZeroDivisionError

    runs = ManyRuns(small(), [{"batch_size": 8}, {"batch_size": 4}], seeds=2)
    with pytest.raises(ZeroDivisionError):
        runs.fit(dataset(), n_steps=2, callback=fail, **QUIET)
    assert [algo.grad_step_ for algo in runs.estimators_] == [2, 2, 1, 1]


def test_an_earlier_fit_leaves_no_results_beside_an_error():
    runs = ManyRuns(small(), seeds=1).fit(dataset(), n_steps=1, **QUIET)
    with pytest.raises(ValueError, match="n_steps=0"):
        runs.fit(dataset(), n_steps=0, **QUIET)
    assert not hasattr(runs, "cv_results_")


def test_iterators_are_read_once():
    data = dataset()
    runs = ManyRuns(small(), seeds=2)
    runs.fit(iter(data.episodes), n_steps=2, scorers=["td_error"], eval_episodes=iter(data.episodes), **QUIET)
    assert np.isfinite(runs.cv_results_["mean_td_error"]).all()


def test_a_metric_that_only_some_settings_have_is_in_the_table():
    settings = [{"update_actor_interval": 5}, {"update_actor_interval": 1}]
    table = ManyRuns(small(), settings, seeds=1).fit(dataset(), n_steps=4, **QUIET).cv_results_
    assert np.isnan(table["mean_actor_loss"]).tolist() == [True, False]


def test_runs_stay_together_inside_parallel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with parallel():
        clones = [ManyRuns(small(use_gpu=True))._clone({}, seed).use_gpu for seed in range(3)]
    assert clones == [True, True, True]


def test_a_search_without_any_number_says_so():
    def nothing(algo, episodes):
        return float("nan")

    search = GridSearch(small(), {"alpha": [1.0, 2.0]}, seeds=1)
    with pytest.raises(ValueError, match="nothing is not a number in any setting"):
        search.fit(dataset(), n_steps=1, scorers=[nothing], eval_episodes=dataset(), **QUIET)
    with pytest.raises(ValueError, match=r"param_grid=\[\] is empty"):
        GridSearch(small(), []).fit(dataset(), n_steps=1, scorers=["td_error"], eval_episodes=dataset(), **QUIET)
    with pytest.raises(ValueError, match="refit=True must be the name"):
        GridSearch(small(), {"alpha": [1.0]}, refit=True).fit(dataset(), n_steps=1, scorers=["td_error"], **QUIET)


def test_a_model_loaded_by_a_callback_counts(tmp_path):
    data = dataset()
    small(random_state=0).fit(data, n_steps=10, **QUIET).save_model(tmp_path / "m.pt")

    def load(algo, epoch, total_step):
        if total_step == 2:
            algo.load_model(tmp_path / "m.pt")

    runs = ManyRuns(small(), seeds=2).fit(data, n_steps=4, callback=load, **QUIET)
    assert [algo.grad_step_ for algo in runs.estimators_] == [12, 12]

    def load_one(algo, epoch, total_step):
        if total_step == 2 and algo.random_state == 0:
            algo.load_model(tmp_path / "m.pt")

    with pytest.raises(ValueError, match=r"have made \[2, 10\] updates"):
        ManyRuns(small(), seeds=2).fit(data, n_steps=4, callback=load_one, **QUIET)


def test_it_is_an_estimator():
    runs = ManyRuns(small(), [{"alpha": 1.0}], seeds=2)
    other = clone(runs)
    assert other.get_params(deep=False).keys() == {"estimator", "params", "seeds"}
    assert other.set_params(estimator__alpha=7.0).estimator.alpha == 7.0
    estimator = small()
    ManyRuns(estimator, seeds=1).fit(dataset(), n_steps=1, **QUIET)
    assert estimator.impl is None


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"params": []}, ValueError, "at least one"),
        ({"params": {"alpha": 1.0}}, ValueError, "must be a list of dictionaries"),
        ({"params": ["alpha"]}, ValueError, "'alpha', each setting must be a dictionary"),
        ({"params": 3}, ValueError, "params=3"),
        ({"seeds": "12"}, ValueError, "seeds='12'"),
        ({"seeds": [[1], [2]]}, ValueError, "list of whole numbers"),
        ({"seeds": [False, True]}, ValueError, "list of whole numbers"),
        ({"seeds": [0.0]}, ValueError, "list of whole numbers"),
        ({"seeds": True}, ValueError, "seeds=True"),
        ({"params": [{"random_state": 3}]}, ValueError, "what seeds are for"),
        ({"params": [{"alpa": 3.0}]}, ValueError, "no parameter 'alpa'.*alpha"),
        ({"params": [{"alpha": -3.0}]}, ValueError, "alpha=-3.0"),
        ({"seeds": 0}, ValueError, "seeds=0"),
        ({"seeds": [1, 1]}, ValueError, "must be different"),
        ({"seeds": [-1]}, ValueError, "whole numbers from 0"),
        ({"estimator": "TD3"}, TypeError, "must be an algorithm"),
    ],
)
def test_bad_arguments(arguments, error, complaint):
    runs = ManyRuns(**{"estimator": small(), "seeds": 2, **arguments})
    with pytest.raises(error, match=complaint):
        runs.fit(dataset(), n_steps=1, **QUIET)


def test_bad_data_and_unknown_arguments_are_errors_of_fit():
    discrete = MDPDataset(np.zeros((4, 3), np.float32), np.arange(4), np.zeros(4, np.float32), np.ones(4, bool))
    with pytest.raises(ValueError, match="learns continuous actions"):
        ManyRuns(small()).fit(discrete, n_steps=1)
    with pytest.raises(TypeError, match="no argument 'n_step'.*n_steps"):
        ManyRuns(small()).fit(dataset(), n_step=1)


def test_a_scorer_function_names_its_metric():
    runs = ManyRuns(small(), seeds=2).fit(
        dataset(), n_steps=1, scorers=[td_error_scorer], eval_episodes=dataset(), **QUIET
    )
    assert "mean_td_error" in runs.cv_results_


def test_the_page_lists_who_trains_alone_and_why():
    page = (Path(__file__).parents[1] / "docs" / "many_runs.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", page, flags=re.MULTILINE)
    listed = {name: reason for names, reason in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {cls.__name__: cls.Impl.alone for cls in ALGORITHMS.values() if cls.Impl.alone}
