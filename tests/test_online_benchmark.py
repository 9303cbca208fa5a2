"""benchmarks/online_learning.py: rows that can be repeated, prior data as described, a table without invention."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import online_cases
import online_learning
import online_table
import runs
from online_cases import Case

TINY = Case("scratch", "DQN", "DQN", "CartPole", 20, {"batch_size": 8}, {"update_start_step": 10})


@pytest.fixture(scope="module")
def prior():
    return online_learning.pushes()


@pytest.mark.filterwarnings("ignore:DQN acts greedily")
class TestRuns:
    def test_a_row_says_all_that_it_takes_to_repeat_it(self, tmp_path, monkeypatch, capsys):
        results = tmp_path / "online.jsonl"
        monkeypatch.setattr(online_learning, "all_cases", lambda: [TINY])
        monkeypatch.setattr(online_learning, "POINTS", 2)
        assert online_learning.main(["--results", str(results)]) == 0
        (row,) = runs.read(results)
        assert json.loads(json.dumps(TINY.settings())) == {key: row[key] for key in TINY.settings()}
        assert [step for step, _ in row["scores"]] == [0, 10, 20]
        assert row["last"] == row["scores"][-1][1]
        assert row["updates"] == 10
        assert "| CartPole | DQN | 1 |" in capsys.readouterr().out
        assert online_learning.main(["--results", str(results)]) == 0
        assert len(runs.read(results)) == 1

    def test_each_use_of_prior_data_reaches_the_updates(self, prior, monkeypatch):
        monkeypatch.setattr(online_learning, "pushes", lambda: prior)
        small = {"type": "vector", "params": {"hidden_units": [8]}}
        params = {"actor_encoder_factory": small, "critic_encoder_factory": small, "batch_size": 8}
        case = Case("exploration", "SAC", "SAC", "MountainCarContinuous", 10, params, prior="pushes", prior_use="mix")
        monkeypatch.setattr(online_learning, "evaluate_on_environment", lambda *_, **__: lambda _: 0.0)
        short = ("MountainCarContinuous-v0", {"max_episode_steps": 5})
        monkeypatch.setitem(online_learning.ENVIRONMENTS, "MountainCarContinuous", short)
        assert online_learning.train(case, None)["updates"] == 7  # from the step on that gives the buffer its half
        assert online_learning.train(replace(case, prior_use="buffer"), None)["updates"] == 10
        offline = replace(case, prior_use="offline", offline_updates=5)
        assert online_learning.train(offline, None)["updates"] == 15


class TestPriorData:
    def test_six_of_ten_episodes_reach_the_goal(self, prior):
        returns = np.array([episode.compute_return() for episode in prior.episodes])
        assert len(returns) == 10
        assert (returns > 0).sum() == 6
        assert [bool(episode.terminal) for episode in prior.episodes] == (returns > 0).tolist()


class TestCases:
    def test_no_two_runs_are_the_same(self):
        names = [case.name for case in online_cases.all_cases()]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("case", online_cases.all_cases(), ids=lambda case: case.name)
    def test_every_case_can_be_kept(self, case):
        assert json.loads(json.dumps(case.settings())) == case.settings()

    def test_prior_data_that_are_files_need_a_folder(self):
        fine_tuned = [case for case in online_cases.all_cases() if case.prior_use == "offline"]
        assert fine_tuned
        assert all(online_learning.needs_files(case) for case in fine_tuned)


class TestTable:
    def test_means_and_standard_errors_over_seeds(self):
        row = TINY.settings() | {"last": 2.0, "best": 3.0, "scores": [[0, 1.0], [10, 3.0], [20, 2.0]]}
        other = row | {"seed": 1, "last": 4.0, "best": 5.0, "scores": [[0, 2.0], [10, 5.0], [20, 4.0]]}
        last_line = online_table.table([row, other], "scratch").splitlines()[-1]
        assert [cell.strip() for cell in last_line.strip("|").split("|")] == [
            "CartPole", "DQN", "2", "1.5", "4.0, 3.0", "3.0 ± 1.0", "4.0 ± 1.0",
        ]  # fmt: skip
