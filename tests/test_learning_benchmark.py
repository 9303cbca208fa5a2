"""benchmarks/learning.py: rows that survive interruptions, evaluation that leaves training alone, an honest table."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import d3rlpy

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import learning
import learning_cases
import learning_table
import runs
from learning_cases import Case

TINY = Case("DQN", "cartpole-random", 10, {"learning_rate": 1e-3})
KEYS = {"algorithm", "dataset", "seed", "n_steps", "params", "scores", "last", "best", "unit", "data_mean", "seconds"}


def row(algorithm="IQL", dataset="pendulum-replay", seed=0, scores=(1.0, 2.0), data_mean=0.0, **more):
    points = [[10 * (i + 1), score] for i, score in enumerate(scores)]
    values = {"n_steps": 20, "params": {}, "scores": points, "last": scores[-1], "best": max(scores), "unit": "return"}
    return Case(algorithm, dataset, 20, seed=seed).settings() | values | {"data_mean": data_mean, "seconds": 1.0} | more


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results" / "learning.jsonl"


@pytest.fixture
def tiny_queue(monkeypatch):
    queue = [TINY, Case("DiscreteBC", "cartpole-random", 10)]
    monkeypatch.setattr(learning, "all_cases", lambda: queue)
    return queue


class TestRuns:
    def test_a_row_says_all_that_it_takes_to_repeat_it(self, results, tiny_queue, capsys):
        assert learning.main(["--results", str(results), "--only", "DQN"]) == 0
        (found,) = runs.read(results)
        assert found.keys() >= KEYS
        assert {key: found[key] for key in TINY.settings()} == TINY.settings()
        assert [step for step, _ in found["scores"]] == [2, 4, 6, 8, 10]
        assert found["last"] == found["scores"][-1][1]
        assert found["best"] == max(score for _, score in found["scores"])
        assert found["data_mean"] == pytest.approx(22.195, abs=1e-3)
        assert "cartpole-random | DQN | learning_rate=0.001" in capsys.readouterr().out

    def test_what_is_there_with_the_same_settings_is_skipped(self, results, tiny_queue, monkeypatch):
        runs.append(results, TINY.settings() | {"scores": [[10, 0.0]], "last": 0.0, "best": 0.0, "data_mean": 0.0})
        trained = []
        monkeypatch.setattr(learning, "train", lambda case, *_: trained.append(case) or row(case.algorithm))
        assert learning.main(["--results", str(results)]) == 0
        assert trained == tiny_queue[1:]

    @pytest.mark.parametrize("change", [{"seed": 1}, {"n_steps": 11}, {"params": {}}])
    def test_other_settings_are_another_run(self, change):
        assert runs.is_done(TINY, [TINY.settings()])
        assert not runs.is_done(TINY, [TINY.settings() | change])

    def test_a_failed_run_leaves_no_row_and_stops_no_other(self, results, tiny_queue, monkeypatch, capsys):
        real = learning.train

        def train(case, data_dir):
            return real(case, data_dir) if case.algorithm == "DiscreteBC" else 1 / 0

        monkeypatch.setattr(learning, "train", train)
        assert learning.main(["--results", str(results)]) == 1
        assert [found["algorithm"] for found in runs.read(results)] == ["DiscreteBC"]
        assert "cartpole-random/DQN/0 failed" in capsys.readouterr().err

    def test_a_run_that_takes_too_long_keeps_its_points(self, monkeypatch):
        monkeypatch.setattr(learning.time, "process_time", iter(range(1000)).__next__)  # a second an update
        found = learning.train(TINY, None, time_limit=5.5)
        assert [step for step, _ in found["scores"]] == [2, 4]
        assert found["n_steps"] == 10

    @pytest.mark.slow
    def test_two_processes_share_the_work(self, results, tiny_queue):
        assert learning.main(["--results", str(results), "--workers", "2"]) == 0
        assert {found["algorithm"] for found in runs.read(results)} == {"DQN", "DiscreteBC"}

    @pytest.mark.slow
    def test_evaluation_does_not_disturb_training(self, monkeypatch):
        case = Case("TD3PlusBC", "pendulum-random", 10, learning_cases.PENDULUM)
        seen, real = [], learning.estimator
        monkeypatch.setattr(learning, "estimator", lambda case: seen.append(real(case)) or seen[-1])
        learning.train(case, None)
        alone = real(case).fit(
            d3rlpy.datasets.get_pendulum("random")[0],
            n_steps=10,
            save_metrics=False,
            verbose=False,
            show_progress=False,
        )
        x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        np.testing.assert_array_equal(seen[0].predict(x), alone.predict(x))


class TestFile:
    def test_a_line_cut_short_by_a_crash_costs_only_itself(self, results, capsys):
        runs.append(results, row(seed=0))
        with results.open("a") as file:
            file.write('{"algorithm": "IQ')
        runs.append(results, row(seed=1))
        assert [found["seed"] for found in runs.read(results)] == [0, 1]
        assert "broken line" in capsys.readouterr().err

    def test_many_writers_lose_nothing(self, results):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: runs.append(results, row(seed=seed)), range(100)))
        assert sorted(found["seed"] for found in runs.read(results)) == list(range(100))

    def test_scores_that_are_no_numbers_are_refused(self, results):
        with pytest.raises(ValueError, match="JSON"):
            runs.append(results, row(scores=(1.0, float("nan"))))


class TestData:
    def test_an_episode_that_the_end_of_the_data_cut_does_not_count(self):
        def episode(length, terminal, value):
            return SimpleNamespace(rewards=[0.0] * length, terminal=terminal, compute_return=lambda: value)

        data = SimpleNamespace(episodes=[episode(3, True, 1.0), episode(5, False, 3.0), episode(3, False, 100.0)])
        assert learning.mean_of_data(data, SimpleNamespace(spec=SimpleNamespace(max_episode_steps=5))) == 2.0

    def test_hopper_scores_are_normalised_as_in_d4rl(self):
        assert learning.in_unit(-20.272305, "hopper-medium") == 0.0
        assert learning.in_unit(3234.3, "hopper-medium-replay") == 100.0
        assert learning.in_unit(-500.0, "pendulum-random") == -500.0

    def test_hopper_without_its_files_names_the_argument(self):
        with pytest.raises(FileNotFoundError, match="--data-dir"):
            learning.load("hopper-medium", None)


class TestCases:
    def test_every_first_seed_comes_before_any_second(self):
        seeds = [case.seed for case in learning_cases.all_cases()]
        assert seeds == sorted(seeds)

    def test_no_two_runs_are_the_same(self):
        names = [case.name for case in learning_cases.all_cases()]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("case", learning_cases.first_seeds(), ids=lambda case: case.name)
    def test_every_case_can_be_built_and_kept(self, case):
        assert json.loads(json.dumps(case.settings())) == case.settings()
        learning.estimator(case)


class TestTable:
    def test_means_and_standard_errors_over_seeds(self):
        rows = [row(seed=0, scores=(1.0, 2.0)), row(seed=1, scores=(3.0, 4.0)), row(seed=2, scores=(5.0, 3.0))]
        last_line = learning_table.markdown(rows).splitlines()[-1]
        cells = [cell.strip() for cell in last_line.strip("|").split("|")]
        assert cells == ["pendulum-replay", "IQL", "", "20", "3", "3.0, 3.0", "3.0 ± 0.6", "3.7 ± 0.9", "0.0"]

    def test_one_seed_has_no_error(self):
        assert "±" not in learning_table.markdown([row()])

    def test_a_run_that_was_stopped_does_not_claim_its_length(self):
        assert "| 20 of 50 |" in learning_table.markdown([row(n_steps=50)])

    def test_missing_runs_are_counted(self):
        n = len(learning_cases.all_cases())
        assert learning_table.claims([row()]).startswith(f"1 of {n} runs are there.")

    def test_other_parameters_are_another_line(self):
        assert len(learning_table.grouped([row(), row(params={"expectile": 0.9})])) == 2

    def test_an_offline_algorithm_below_its_data_is_named(self):
        assert "IQL ends at 2.0, the mean of the data is 3.0" in learning_table.claims([row(data_mean=3.0)])

    def test_a_value_based_algorithm_below_cloning_on_random_data_is_named(self):
        rows = [row(dataset="pendulum-random"), row("BC", "pendulum-random", scores=(0.0, 5.0))]
        assert "IQL ends at 2.0, cloning at 5.0" in learning_table.claims(rows)

    def test_what_diverges_by_nature_is_shown_without_comment(self):
        rows = [row("DDPG", scores=(0.0, -9.0)), row("DQN", "cartpole-replay", data_mean=5.0)]
        assert "No run that is there falls short" in learning_table.claims(rows)
        assert "DDPG" in learning_table.markdown(rows)
