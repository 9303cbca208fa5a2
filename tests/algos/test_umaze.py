"""benchmarks/umaze.py in small: the claim of section 5.1 of the IQL paper, and the maze itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.algos.test_iql import expectile_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import umaze


@pytest.fixture(scope="module")
def maze():
    return umaze.UMaze()


def test_the_optimal_policy_leads_through_the_right_end_to_the_goal(maze):
    state, path = maze.start, []
    best = maze.optimum()[1]
    while state != maze.goal and len(path) < 30:
        path.append(maze.cells[state])
        state = maze.next[state, best[state]]
    assert state == maze.goal
    assert len(path) == 14
    assert maze.success(best) == pytest.approx(1.0, abs=1e-4)


def test_transitions_are_probabilities_with_a_quarter_of_random_moves(maze):
    others = np.arange(maze.n) != maze.goal
    assert maze.transitions[others].sum(axis=2) == pytest.approx(np.ones((maze.n - 1, 4)))
    assert maze.transitions[maze.start, 0, maze.start] == pytest.approx(0.75 + 2 / 16)  # up and left are walls
    assert maze.transitions[maze.start, 3, maze.start + 1] == pytest.approx(0.75 + 1 / 16)


def test_the_data_hold_one_optimal_and_ninety_nine_random_trajectories(maze):
    dataset = umaze.make_dataset(maze, seed=0)
    assert len(dataset.episodes) == 100
    best = maze.optimum()[1]
    agree = [np.mean(e.actions == best[e.observations.argmax(axis=1)]) for e in dataset.episodes]
    assert agree[0] == 1.0
    assert np.mean(agree[1:]) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("expectile", "at_start", "error"), [(0.5, 0.000, 0.816), (0.95, 0.122, 0.128)])
def test_the_fixed_points_of_the_two_methods_are_those_of_the_page(maze, expectile, at_start, error):
    v = np.zeros(maze.n)
    for _ in range(60):
        v = np.array([expectile_of(row, expectile) for row in maze.action_values(v)])
    v[maze.goal], optimal = 0.0, maze.optimum()[0]
    assert v[maze.start] == pytest.approx(at_start, abs=5e-4)
    assert np.abs(v - optimal).sum() / optimal.sum() == pytest.approx(error, abs=5e-4)


@pytest.mark.slow
def test_expectile_95_recovers_the_optimum_and_one_step_does_not(maze):
    dataset = umaze.make_dataset(maze, seed=0)
    optimal = maze.optimum()[0][maze.start]
    implicit, one_step = (umaze.judge(maze, umaze.train(dataset, e, 1500, seed=0))[0] for e in (0.95, 0.5))
    assert implicit["value"] > 0.9 * optimal
    assert implicit["error"] < 0.4
    assert one_step["value"] < 0.5 * optimal
    assert one_step["error"] > 0.7
