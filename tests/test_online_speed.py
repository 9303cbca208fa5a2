"""benchmarks/online_speed.py: both sides do the same work, and the table says what was measured."""

import sys
from pathlib import Path

import pytest
import torch

from d3rlpy.impl import training_mode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import online_speed
from peers import online_loop, online_ours
from peers.online_worker import LEAD_IN, Clock, ClockedEnv, OnlineWorker
from peers.rounds import Windows, calibrate
from peers.speed_cases import DQN, RLPD, SAC, OnlineCase

SMALL = OnlineCase(
    "RLPD",
    None,
    "loop",
    1.6,
    RLPD.settings
    | {"batch_size": 8, "hidden_units": [16, 16], "n_critics": 4, "n_target_critics": 2, "n_gradient_steps": 3},
)


@pytest.fixture
def both():
    """The two RLPDs with the same weights."""
    ours, loop = online_ours.UpdateLearner(SMALL), online_loop.UpdateLearner(SMALL)
    impl, algo = ours.impl, loop.algo
    pairs = [
        (algo.actor.parameters(), impl.policy.weights),
        (algo.critics.parameters(), impl.q_funcs.flat_weights),
        (algo.targ_critics.parameters(), impl.targ_q_funcs.flat_weights),
    ]
    with torch.no_grad():
        for copies, weights in pairs:
            for copy, weight in zip(copies, weights, strict=True):
                copy.copy_(weight)
    return ours, loop


def test_the_loop_learns_what_our_rlpd_learns(both):
    ours, loop = both
    with training_mode(ours.impl):
        for k in range(7):
            torch.manual_seed(k)
            metrics = ours.impl.step(ours.batches[k])
            torch.manual_seed(k)
            others = loop.algo.update(loop.batches[k])
            for name in others:
                assert metrics[name].item() == pytest.approx(others[name].item(), rel=1e-4, abs=1e-5), (k, name)
    assert {"actor_loss", "temp_loss"} - set(others)  # update 7 is none of the actor's
    weights = zip(loop.algo.critics.parameters(), ours.impl.q_funcs.flat_weights, strict=True)
    slow = zip(loop.algo.targ_critics.parameters(), ours.impl.targ_q_funcs.flat_weights, strict=True)
    actors = zip(loop.algo.actor.parameters(), ours.impl.policy.weights, strict=True)
    for a, b in (*weights, *slow, *actors):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert loop.algo.log_alpha.item() == pytest.approx(ours.impl.temp.log.item(), rel=1e-4)


def test_both_sides_learn_from_the_same_batches(both):
    for own, given in zip(both[0].batches, both[1].batches, strict=True):
        assert torch.equal(own.observations, given[0])
        assert torch.equal(own.discounts, 0.99 * (1 - given[4]))
    assert any(given[4].any() for given in online_loop.batches(256))  # some are terminal


def test_a_window_holds_as_many_updates_as_steps():
    worker = OnlineWorker(online_ours)
    assert worker.prepare("DQN") == {"available": True}
    learner, _ = worker.learners["DQN"]
    assert (learner.n_updates, len(learner.buffer)) == (0, 300)  # the random steps
    passed = worker.run("DQN", 6)
    assert 0 < passed["cpu"] < 10
    assert passed["wall"] > 0
    assert (learner.n_updates, learner.buffer.n_rows) == (LEAD_IN + 6, 300 + LEAD_IN + 6)
    learner.run = lambda n_steps: None
    with pytest.raises(RuntimeError, match="DQN: 0 steps and 0 updates instead of 10"):
        worker.run("DQN", 6)


def test_a_side_says_what_it_lacks():
    assert OnlineWorker(online_loop).prepare("SAC") == {"available": False}


def test_the_clock_counts_whole_rounds():
    seen = []

    class Env:
        action_space = observation_space = metadata = spec = None

        def step(self, action):
            seen.append(action)

    env = ClockedEnv.__new__(ClockedEnv)
    env.env, env.clock = Env(), Clock(2)
    for action in range(LEAD_IN + 2):
        assert (env.clock.begin > (0.0, 0.0)) == (action >= LEAD_IN)
        assert env.clock.end == (0.0, 0.0)
        env.step(action)
    assert env.clock.end > env.clock.begin
    assert seen == list(range(LEAD_IN + 2))


def test_windows_of_rlpd_hold_whole_rounds():
    class Worker:
        def ask(self, do, case, n_updates):
            return {"wall": 0.01 * n_updates}

    assert calibrate(Worker(), RLPD, 0.7) == 80  # 70 updates, in rounds of 20
    assert calibrate(Worker(), SAC, 0.7) == 70
    assert calibrate(Worker(), RLPD, 0.01) == 20


def test_ratios_belong_to_rounds():
    windows = Windows(updates={"DQN": {"ours": [30.0, 20.0, 90.0], "sb3": [10.0, 10.0, 30.0]}})
    (row,) = online_speed.rows_of_table(windows, [DQN])
    assert (row["times"], row["lowest"], row["highest"]) == (3.0, 2.0, 3.0)
    assert (row["ours/s"], row["other/s"]) == (30.0, 10.0)
    assert online_speed.markdown([row]).splitlines()[-1] == "| DQN | 30.0 | sb3 | 10.0 | 3.00 | 2.00 to 3.00 | 1.5 |"


def test_a_part_does_not_go_into_the_docs():
    assert online_speed.parse(["--docs"]).whole
    with pytest.raises(SystemExit):
        online_speed.parse(["--docs", "--cases", "SAC"])
    with pytest.raises(SystemExit):
        online_speed.parse(["--rounds", "0"])
