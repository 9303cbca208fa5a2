"""Make the four built-in data sets: all steps of a small DQN (CartPole) or TD3 (Pendulum) while it learned.

``replay`` holds what the learner did from its first random step to its last; ``random`` holds a uniformly
random policy. The learners are written out here, in plain torch, so that the data never depend on the
library whose tests they feed. Same torch, numpy and gymnasium: same numbers; another torch may round
differently and so give other (equally good) data. Takes two or three minutes on one core::

    python scripts/make_builtin_data.py --out d3rlpy/datasets
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

GAMMA = 0.99
FILE_LIMIT = 2_000_000  # bytes


class Log:
    """Every step of one run in columns; the learners draw their mini-batches from it too.

    ``next_observations`` is what the environment returned, so the last row of an episode that ran out of
    time keeps its true successor.
    """

    def __init__(self, capacity: int, observation_size: int, action: np.ndarray):
        self.size = 0
        self.columns = {
            "observations": np.zeros((capacity, observation_size), np.float32),
            "actions": np.zeros((capacity, *action.shape), action.dtype),
            "rewards": np.zeros(capacity, np.float32),
            "next_observations": np.zeros((capacity, observation_size), np.float32),
            "terminals": np.zeros(capacity, bool),
            "timeouts": np.zeros(capacity, bool),
        }

    def add(self, *row: Any) -> None:
        """Values in the order of ``columns``."""
        for column, value in zip(self.columns.values(), row, strict=True):
            column[self.size] = value
        self.size += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The rows written so far."""
        return {name: column[: self.size] for name, column in self.columns.items()}

    def sample(self, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Observations, actions, rewards, next observations and terminals, the last (batch, 1)."""
        rows = rng.integers(self.size, size=batch_size)
        c = {name: torch.as_tensor(column[rows]) for name, column in self.columns.items()}
        rewards, terminals = c["rewards"][:, None], c["terminals"][:, None].float()
        return c["observations"], c["actions"], rewards, c["next_observations"], terminals

    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode."""
        c = self.arrays()
        ends = np.flatnonzero(c["terminals"] | c["timeouts"])
        return np.diff(np.cumsum(c["rewards"].astype(np.float64))[ends], prepend=0.0)


def interact(
    env: Any,
    n_rows: int,
    seed: int,
    choose: Callable[[np.ndarray, int], np.ndarray],
    learn: Callable[[Log], None] = lambda log: None,
) -> Log:
    """Log at least ``n_rows`` steps of ``choose(observation, row)`` in whole episodes; learn after each."""
    limit = env.spec.max_episode_steps
    observation, _ = env.reset(seed=seed)
    log = Log(n_rows + limit, observation.size, np.asarray(choose(observation, 0)))
    while True:
        action = choose(observation, log.size)
        successor, reward, terminated, truncated, _ = env.step(action)
        log.add(observation, action, reward, successor, terminated, truncated and not terminated)
        learn(log)
        observation = successor
        if terminated or truncated:
            if log.size >= n_rows:
                return log
            observation, _ = env.reset()


def mlp(n_inputs: int, n_outputs: int, width: int = 64) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_outputs)
    )


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One gradient step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def follow(target: nn.Module, source: nn.Module, share: float) -> None:
    """Move ``target`` towards ``source``."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
            slow.lerp_(fast, share)


def random_policy(env: Any, n_rows: int, seed: int) -> Log:
    """Uniformly random actions; float actions stay within the box of the environment."""
    rng = np.random.default_rng(seed)
    space = env.action_space

    def choose(observation: np.ndarray, row: int) -> np.ndarray:
        if hasattr(space, "n"):
            return rng.integers(space.n, dtype=np.int32)
        return rng.uniform(space.low, space.high).astype(np.float32)

    return interact(env, n_rows, seed, choose)


def train_dqn(env: Any, n_rows: int, seed: int) -> Log:
    """CartPole: double DQN whose random share falls slowly, which gives episodes of every length."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    q = mlp(4, 2, width=128)
    target = copy.deepcopy(q)
    optimizer = torch.optim.Adam(q.parameters(), lr=5e-4)

    def choose(observation: np.ndarray, row: int) -> np.ndarray:
        epsilon = max(0.05, 1.0 - row / (0.3 * n_rows))
        if rng.random() < epsilon:
            return rng.integers(2, dtype=np.int32)  # type: ignore[return-value]
        with torch.no_grad():
            return q(torch.as_tensor(observation)).argmax().numpy().astype(np.int32)

    def learn(log: Log) -> None:
        if log.size < 1000:
            return
        observations, actions, rewards, successors, terminals = log.sample(128, rng)
        with torch.no_grad():
            best = q(successors).argmax(dim=1, keepdim=True)
            value = target(successors).gather(1, best)
            y = rewards + GAMMA * (1.0 - terminals) * value  # (batch, 1)
        descend(optimizer, mse_loss(q(observations).gather(1, actions.long()[:, None]), y))
        follow(target, q, 0.01)

    return interact(env, n_rows, seed, choose, learn)


def train_td3(env: Any, n_rows: int, seed: int) -> Log:
    """Pendulum: TD3 whose pendulum is knocked over less and less often, for returns from hopeless to perfect.

    A knock is full torque to one side for up to 30 steps, and only starts when the pendulum stands. It costs a
    whole swing-up, but is over soon: most rows still show the learner's own action, swinging up again, and
    that is what an offline method can learn from.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scale = float(env.action_space.high[0])  # the learner acts in [-1, 1]
    policy, critics = nn.Sequential(mlp(3, 1), nn.Tanh()), nn.ModuleList([mlp(4, 1), mlp(4, 1)])
    slow_policy, slow_critics = copy.deepcopy(policy), copy.deepcopy(critics)
    policy_optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    critic_optimizer = torch.optim.Adam(critics.parameters(), lr=1e-3)
    knock: np.ndarray | None = None
    knock_ends = 0  # row

    def choose(observation: np.ndarray, row: int) -> np.ndarray:
        nonlocal knock, knock_ends
        if row < n_rows // 10:
            return rng.uniform(-scale, scale, size=1).astype(np.float32)
        if row >= knock_ends:
            knock = None
            share = 0.2 * (1.0 - row / (0.85 * n_rows))
            if observation[0] > 0.9 and rng.random() < share:  # cos(angle): upright
                knock_ends = row + int(rng.integers(10, 31))
                knock = rng.choice([-scale, scale], size=1).astype(np.float32)
        if knock is not None:
            return knock
        with torch.no_grad():
            action = policy(torch.as_tensor(observation)).numpy()
        return (scale * np.clip(action + 0.1 * rng.normal(size=1), -1.0, 1.0)).astype(np.float32)

    def q_values(networks: nn.Module, observations: Tensor, actions: Tensor) -> Tensor:
        x = torch.cat([observations, actions], dim=1)
        return torch.stack([network(x) for network in networks.children()])  # (critics, batch, 1)

    def learn(log: Log) -> None:
        if log.size < 1000:
            return
        observations, actions, rewards, successors, terminals = log.sample(128, rng)
        with torch.no_grad():
            noise = (0.2 * torch.randn(128, 1)).clamp(-0.5, 0.5)
            action = (slow_policy(successors) + noise).clamp(-1.0, 1.0)
            value = q_values(slow_critics, successors, action).amin(dim=0)
            y = rewards + GAMMA * (1.0 - terminals) * value
        q = q_values(critics, observations, actions / scale)
        descend(critic_optimizer, mse_loss(q, y.expand_as(q)))
        if log.size % 2 == 0:
            descend(policy_optimizer, -q_values(critics, observations, policy(observations))[0].mean())
            follow(slow_policy, policy, 0.01)
            follow(slow_critics, critics, 0.01)

    return interact(env, n_rows, seed, choose, learn)


def cartpole() -> Any:
    """The task that was called CartPole-v0."""
    return gymnasium.make("CartPole-v1", max_episode_steps=200)


def pendulum() -> Any:
    """Swing up and hold; episodes never end early."""
    return gymnasium.make("Pendulum-v1")


DATA: dict[str, Callable[[], Log]] = {
    "cartpole_replay": lambda: train_dqn(cartpole(), 48_000, seed=1),
    "cartpole_random": lambda: random_policy(cartpole(), 10_000, seed=2),
    "pendulum_replay": lambda: train_td3(pendulum(), 30_000, seed=3),
    "pendulum_random": lambda: random_policy(pendulum(), 10_000, seed=4),
}


def main() -> None:
    """Make the data sets, write them and say what is in them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the .h5 files")
    parser.add_argument("--only", choices=sorted(DATA), help="make this one only")
    arguments = parser.parse_args()
    from d3rlpy.dataset import MDPDataset

    torch.set_num_threads(1)
    for name in [arguments.only] if arguments.only else DATA:
        log = DATA[name]()
        path = arguments.out / f"{name}.h5"
        columns: dict[str, Any] = dict(log.arrays())
        MDPDataset(**columns).dump(path, compression="gzip")
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise SystemExit(f"{path} has {size} bytes, more than {FILE_LIMIT}: log fewer rows")
        returns = log.returns()
        print(
            f"{name}: {log.size} rows, {returns.size} episodes, returns {returns.min():.1f} to"
            f" {returns.max():.1f}, mean {returns.mean():.1f}, {size} bytes"
        )


if __name__ == "__main__":
    main()
