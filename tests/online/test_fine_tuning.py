"""From an offline policy to online training, with the same algorithm and with another one."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from d3rlpy.algos import ALGORITHMS
from d3rlpy.dataset import MDPDataset
from d3rlpy.online.buffers import ReplayBuffer
from d3rlpy.online.explorers import ConstantEpsilonGreedy, NormalNoise
from tests.common.test_suite import make
from tests.online.helpers import QUIET, Counter

PAGE = Path(__file__).parents[2] / "docs" / "online.md"
X = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)


def offline_data(discrete=False, n=40):
    """Observations and rewards that no scaler leaves as they are; actions within half of the range."""
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=n) if discrete else rng.uniform(-0.5, 0.5, (n, 2)).astype(np.float32)
    return MDPDataset(rng.normal(3.0, 2.0, (n, 2)), actions, rng.normal(5.0, 3.0, n), np.arange(n) % 10 == 9)


def explorer_for(algo):
    return ConstantEpsilonGreedy(0.3) if algo.action_space == "discrete" else NormalNoise(std=0.1)


def train_online(algo, n_steps=12, **options):
    env = Counter(discrete=algo.action_space == "discrete")
    return algo.fit_online(env, None, explorer_for(algo), n_steps=n_steps, **options, **QUIET)


def answers(algo):
    actions = algo.predict(X)
    return [actions, algo.predict_value(X, actions)]


def modules_like(impl, role):
    return {name: m.state_dict() for name, m in impl.named_children() if name in getattr(impl, f"{role}_modules")}


def steps_of_optimizers(algo):
    """How many steps each optimizer has counted for each of its parameters."""
    states = {name: optim.state_dict()["optim"]["state"] for name, optim in algo.impl.optimizers().items()}
    return {name: {int(s["step"]) for s in state.values()} for name, state in states.items()}


@pytest.mark.parametrize(
    ("source", "goal"),
    [
        ("cql", "sac"),
        ("cql", "cal_ql"),
        ("cal_ql", "sac"),
        ("iql", "awac"),
        ("awac", "iql"),
        ("td3_plus_bc", "td3"),
        ("discrete_iql", "discrete_sac"),
        ("discrete_cql", "double_dqn"),
    ],
)
def test_online_training_starts_from_what_the_other_algorithm_has_learned(source, goal):
    more = {"n_critics": 2, "scaler": "standard", "reward_scaler": "standard"}
    source, goal = make(source, random_state=1, **more), make(goal, random_state=2, **more)
    data, seen = offline_data(source.action_space == "discrete"), []
    source.fit(data, n_steps=5, **QUIET)
    goal.build_with_dataset(data)
    goal.copy_q_function_from(source)
    goal.copy_policy_from(source)
    step = goal.impl.step
    goal.impl.step = lambda batch: seen.append((answers(goal), goal.grad_step_)) or step(batch)
    for role in ("policy", "q"):
        theirs = modules_like(source.impl, role)
        for name, mine in modules_like(goal.impl, role).items():
            assert all(torch.equal(mine[key], theirs[name][key]) for key in theirs[name]), name
    slow, fast = (list(m.parameters()) for m in (goal.impl.targ_q_funcs, goal.impl.q_funcs))
    assert any(not torch.equal(a, b) for a, b in zip(slow, fast, strict=True))
    assert all(steps == set() for steps in steps_of_optimizers(goal).values())  # optimizers start anew

    train_online(goal)
    assert seen[0][1] == 0
    for mine, theirs in zip(seen[0][0], answers(source), strict=True):
        assert np.array_equal(mine, theirs)
    assert any(not np.array_equal(mine, theirs) for mine, theirs in zip(answers(goal), answers(source), strict=True))


def test_a_copy_into_a_trained_goal_leaves_its_optimizers_until_they_are_reset():
    source, goal = make("cql", random_state=1), make("sac", random_state=2)
    data = offline_data()
    source.fit(data, n_steps=2, **QUIET)
    goal.fit(data, n_steps=3, **QUIET)
    goal.copy_policy_from(source)
    goal.copy_q_function_from(source)
    assert set().union(*steps_of_optimizers(goal).values()) == {3}
    goal.reset_optimizer_states()
    assert set().union(*steps_of_optimizers(goal).values()) == set()


def test_the_networks_of_source_and_goal_are_apart_afterwards():
    source, goal = make("cal_ql", random_state=1), make("sac", random_state=2)
    data = offline_data()
    source.fit(data, n_steps=2, **QUIET)
    before = answers(source)
    goal.build_with_dataset(data)
    goal.copy_policy_from(source)
    goal.copy_q_function_from(source)
    train_online(goal)
    assert all(np.array_equal(a, b) for a, b in zip(before, answers(source), strict=True))


def lines_of_the_page():
    """The kinds of policies that docs/online.md lists."""
    table = PAGE.read_text().split("| continuous actions | discrete actions |")[1].split("\n\n")[0]
    names = {cls.__name__: name for name, cls in ALGORITHMS.items()}
    cells = [cell.strip() for row in table.splitlines()[2:] for cell in row.strip("| ").split("|")]
    return [[names[name] for name in cell.split(", ")] for cell in cells]


@pytest.mark.filterwarnings("ignore:.*has other scalers:UserWarning")
def test_policies_can_be_copied_within_the_lines_that_the_page_lists_and_between_no_two():
    lines = lines_of_the_page()
    assert len(lines) == 6
    algos = {name: make(name).create_impl((2,), 2) for line in lines for name in line}
    line_of = {name: k for k, line in enumerate(lines) for name in line}
    for a, b in permutations(algos, 2):
        if line_of[a] == line_of[b]:
            algos[a].copy_policy_from(algos[b])
        elif algos[a].action_space == algos[b].action_space:
            with pytest.raises(ValueError, match="different networks|has no policy"):
                algos[a].copy_policy_from(algos[b])


@pytest.mark.parametrize("name", ["sac", "cal_ql", "iql", "awac", "dqn"])
def test_all_scalers_that_were_fitted_offline_stay_and_act_online(name):
    discrete = name == "dqn"
    given = {"scaler": "standard", "reward_scaler": "standard"} | ({} if discrete else {"action_scaler": "min_max"})
    algo, seen = make(name, **given), []
    algo.fit(offline_data(discrete), n_steps=2, **QUIET)
    before, scalers, step = algo.fitted_scalers_.to_dict(), algo.fitted_scalers_, algo.impl.step
    assert [kind for kind, scaler in before.items() if scaler is None] == (["action"] if discrete else [])
    algo.impl.step = lambda batch: seen.append(batch) or step(batch)
    buffer = ReplayBuffer(100, env=Counter(discrete=discrete))
    algo.fit_online(Counter(discrete=discrete), buffer, explorer_for(algo), n_steps=20, update_start_step=19, **QUIET)
    assert algo.fitted_scalers_.to_dict() == before
    (batch,) = seen
    raw = scalers.observation.reverse_transform(batch.observations)
    assert torch.allclose(raw, raw.round(), atol=1e-4)  # the counter's numbers
    assert torch.allclose(scalers.reward.reverse_transform(batch.rewards), raw[:, 1:] + 1, atol=1e-3)
    if not discrete:
        assert np.abs(buffer.to_mdp_dataset().actions).max() <= 0.5 + 1e-6  # the range of the data
        stored = scalers.action.transform(torch.from_numpy(buffer.to_mdp_dataset().actions))
        assert (torch.cdist(batch.actions, stored).amin(dim=1) < 1e-4).all()


@pytest.mark.parametrize("name", ["iql", "awac", "cql", "cal_ql", "sac", "dqn"])
def test_optimizers_and_counters_go_on_after_fit(name):
    algo = make(name)
    algo.fit(offline_data(algo.action_space == "discrete"), n_steps=3, **QUIET)
    train_online(algo, update_start_step=10)
    assert algo.grad_step_ == 5
    assert all(steps == {5} for steps in steps_of_optimizers(algo).values())
