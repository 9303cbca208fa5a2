"""The columns of a storage on the device that trains, and mini-batches from them without the host.

``DeviceColumns.batch`` says what the kernels of ``dataset`` say, in torch's operations on whole batches: n-step sums
follow links and stop with them, frames are stacked from linked rows, an unknown successor is zeros. ``DeviceSampler``
draws its permutations on the device, too, so that nothing of a mini-batch comes from elsewhere.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .dataset import Rows
from .dataset.batch import check_rewards, check_window
from .dataset.rows import check_indices
from .dataset.validation import check_whole

SHARE_OF_MEMORY = 0.5
"""Share of a device's free memory that the columns may take."""


class DeviceColumns:
    """The columns of ``rows`` as tensors on ``device``.

    Parameters
    ----------
    rewards : ``(N,)`` float32 in place of the stored ones.
    """

    def __init__(self, rows: Rows, device: torch.device, rewards: np.ndarray | None = None):
        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.device = device
        self.n_rows = len(rows)
        self.observations = moved(rows.observations)
        self.actions = moved(rows.actions)
        self.rewards = moved(check_rewards(rows, rewards))
        self.terminals = moved(rows.terminals)
        discount = rows.columns.get("discount")
        self.discount = None if discount is None else moved(discount)
        self.steps = moved(rows.steps_linked())
        self.successors = moved(rows.successors)
        places = rows.successor_places()
        self.places = moved(places) if (places >= 0).any() else None  # None: each successor is the next row

    @staticmethod
    def bytes_of(rows: Rows) -> int:
        """Memory that the columns of ``rows`` take."""
        columns = (rows.observations, rows.actions, rows.rewards, rows.terminals, rows.successors)
        discount = rows.columns.get("discount")
        return sum(c.nbytes for c in columns) + 16 * len(rows) + (0 if discount is None else discount.nbytes)

    def batch(self, picks: Tensor, n_frames: int, n_steps: int, gamma: float) -> dict[str, Tensor]:
        """The transitions that start in the rows ``picks``, ``(B,)``, under the names of ``TransitionMiniBatch``."""
        count, rewards, product = self.walk(picks, n_steps, gamma)
        last = (picks + count - 1) % self.n_rows
        terminals = self.terminals[last]
        if n_frames == 1:
            observations, following = self.observations[picks], self.successor(last)
        else:
            observations = self.frames(picks, n_frames).flatten(1, 2)
            history = self.frames(last, n_frames - 1)
            following = torch.cat([history, self.successor(last)[:, None]], dim=1).flatten(1, 2)
        return {
            "observations": observations,
            "actions": self.actions[picks],
            "rewards": rewards.float()[:, None],
            "next_observations": following,
            "terminals": terminals.float()[:, None],
            "n_steps": count.float()[:, None],
            "discounts": torch.where(terminals, 0.0, product).float()[:, None],
        }

    def walk(self, picks: Tensor, n_steps: int, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
        """How many rewards are summed, at most ``n_steps``, their discounted sums, and the discounts after them."""
        count = 1 + self.steps[picks].clamp(max=n_steps - 1)
        ahead = torch.arange(n_steps, device=self.device)
        rows, summed = (picks[:, None] + ahead) % self.n_rows, ahead < count[:, None]  # (B, n_steps)
        factor = torch.full((), gamma, dtype=torch.float64, device=self.device)
        each = factor.expand(summed.shape) if self.discount is None else self.discount[rows].double()
        after = torch.where(summed, each, 1.0).cumprod(dim=1)  # (B, n_steps), the product with each row's own
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
        rewards = torch.where(summed, before * self.rewards[rows], 0.0).sum(dim=1)
        return count, rewards, after[:, -1]

    def successor(self, rows: Tensor) -> Tensor:
        """The observations after transitions."""
        following = self.observations[(rows + 1) % self.n_rows]
        if self.places is None:
            return following
        place = self.places[rows]
        apart = (place >= 0).view(-1, *[1] * (following.dim() - 1))
        return torch.where(apart, self.successors[place.clamp(min=0)], following)

    def frames(self, rows: Tensor, n_frames: int) -> Tensor:
        """The last ``n_frames`` frames up to each row, ``(B, n_frames, C, H, W)``; the segment's first one repeats."""
        back, linked, at = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool), rows
        backs = [back]
        for _ in range(n_frames - 1):
            at = (at - 1) % self.n_rows
            linked = linked & (self.steps[at] > 0)
            back = back + linked
            backs.append(back)
        return self.observations[(rows[:, None] - torch.stack(backs[::-1], dim=1)) % self.n_rows]


class DeviceSampler:
    """Every transition once in random order, then in another one, on the device; see ``PermutationSampler``.

    ``draw`` is what happens for each batch and can be captured; ``refill``, which the host calls before, permutes when
    fewer than the wanted batches are left.

    Parameters
    ----------
    columns : what is sampled from.
    rows, indices : the storage that they came from, and the rows of the transitions, ``(T,)``.
    batch_size, n_frames, n_steps, gamma : see ``TransitionMiniBatch``.
    shuffle : False walks in the given order.
    seed : of the permutations.
    most_ahead : most batches that ``refill`` is asked for.
    """

    def __init__(
        self,
        columns: DeviceColumns,
        rows: Rows,
        indices: np.ndarray,
        batch_size: int,
        n_frames: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        shuffle: bool = True,
        seed: int = 0,
        most_ahead: int = 1,
    ):
        check_whole("batch_size", batch_size, 1)
        check_window(rows, n_frames, n_steps, gamma)
        self.columns, self.batch_size, self.shuffle = columns, batch_size, shuffle
        self.window = (n_frames, n_steps, gamma)
        device = columns.device
        self.indices = torch.from_numpy(check_indices(indices, rows)).to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.cursor = torch.zeros((), dtype=torch.int64, device=device)
        self.steps = torch.arange(batch_size, device=device)
        room = most_ahead * batch_size + len(indices)  # what is left of a line, and the permutation that fills it up
        self.order = torch.zeros(room, dtype=torch.int64, device=device)
        self.n_left = 0

    def refill(self, n_batches: int) -> None:
        """Have the rows of at least ``n_batches`` batches in line, whose place in memory stays the same."""
        wanted = n_batches * self.batch_size
        if self.n_left >= wanted:
            return
        parts = [self.order[len(self.order) - self.n_left :]]
        while self.n_left < wanted:
            parts.append(self.permutation())
            self.n_left += len(self.indices)
        self.order[len(self.order) - self.n_left :] = torch.cat(parts)
        self.cursor.fill_(len(self.order) - self.n_left)

    def permutation(self) -> Tensor:
        if not self.shuffle:
            return self.indices
        return self.indices[torch.randperm(len(self.indices), generator=self.generator, device=self.indices.device)]

    def draw(self) -> dict[str, Tensor]:
        """The next batch, on the device; ``taken`` tells the host that it was drawn."""
        picks = self.order[self.cursor + self.steps]
        self.cursor += self.batch_size
        return self.columns.batch(picks, *self.window)

    def taken(self, n_batches: int) -> None:
        """Account for batches that were drawn."""
        self.n_left -= n_batches * self.batch_size

    def sample(self) -> dict[str, Tensor]:
        """The next batch."""
        self.refill(1)
        batch = self.draw()
        self.taken(1)
        return batch


def fits(rows: Rows, device: torch.device) -> bool:
    """Whether the columns take at most ``SHARE_OF_MEMORY`` of what is free on the device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return DeviceColumns.bytes_of(rows) <= SHARE_OF_MEMORY * free
