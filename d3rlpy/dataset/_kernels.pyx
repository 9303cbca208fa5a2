# cython: language_level=3, wraparound=False, cdivision=True
"""Links between rows, and the gathering of mini-batches: what runs once per sample, without the GIL.

Memory layout: row ``i`` of every column belongs to time step ``i``, episode after episode. ``links[i]``, 16
bits, says how row ``i`` goes on:

- bit 15: the row is the last one of its episode;
- bits 13 and 14: what the state after the row is (the next row; not known; an entry of ``successors``), or
  that the row is not a transition at all;
- bits 0 to 12: how many linked transitions follow, cut at ``MOST_STEPS``. n-step sums never look further.

``successors[k]`` is the observation after row ``successor_rows[k]`` (ascending); entry 0 is all zeros,
belongs to no row (-1) and stands for "not known". Rows are copied as bytes, so the dtype of observations and
actions does not matter. Reference in pure Python: ``tests/dataset/reference.py``. Timing:
``benchmarks/bench_sampling.py``.

Row 0 follows on the last row, so that the same functions serve a ring (``ring.py``), where an episode may run
across the end of the arrays; in a data set nothing follows on the last row. Two things differ in a ring: the
successor after row ``i`` is ``successors[slots[i]]``, and the number of following transitions is cut at what
the samplers of that ring need, so that a new row changes few others.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.string cimport memcpy

cdef enum:
    STEPS = 0x1FFF
    KIND = 0x6000
    NEXT_ROW = 0x0000
    UNKNOWN = 0x2000
    STORED = 0x4000
    NOTHING = 0x6000
    END = 0x8000

MOST_STEPS = STEPS
LINK_KIND = KIND
NO_TRANSITION = NOTHING
KNOWN_APART = STORED
NOT_KNOWN = UNKNOWN
FOLLOWS = NEXT_ROW
ENDS_EPISODE = END


cdef struct Storage:
    const uint8_t* observations
    const uint8_t* actions
    const float* rewards
    const uint8_t* terminals
    const uint16_t* links
    const float* discount  # NULL: gamma at every step
    const int64_t* successor_rows
    const int32_t* slots  # NULL: successors are found by ``successor_rows``
    const uint8_t* successors
    int64_t n_rows
    int64_t n_successors
    size_t observation_bytes
    size_t action_bytes


cdef struct Buffers:
    uint8_t* observations
    uint8_t* actions
    float* rewards
    uint8_t* next_observations
    float* terminals
    float* n_steps
    float* discounts


cdef void write_links(
    const uint8_t* terminals, const uint8_t* ends, const int64_t* known, int64_t n_known, int64_t n,
    uint16_t* links,
) noexcept nogil:
    """Backwards over the rows, because a row needs to know how far the one after it can go."""
    cdef int64_t row, k = n_known - 1
    cdef uint16_t after = NOTHING
    for row in range(n - 1, -1, -1):
        if known[k] == row:  # entry 0 is -1, so k never falls below it
            after = STORED
            k -= 1
        elif terminals[row]:
            after = UNKNOWN
        elif ends[row]:
            after = NOTHING
        elif (after & KIND) == NOTHING:
            after = NEXT_ROW  # the next row only serves as this one's successor
        else:
            after = NEXT_ROW | min((after & STEPS) + 1, STEPS)
        links[row] = after | (END if ends[row] else 0)


def link_rows(
    const uint8_t[::1] terminals, const uint8_t[::1] ends, const int64_t[::1] successor_rows,
    uint16_t[::1] links,
):
    """Fill ``links`` ``(N,)``; ``ends`` marks the last row of every episode, the very last one included.

    The caller has checked that ``successor_rows`` starts with -1, ascends and stays below N.
    """
    cdef int64_t n = links.shape[0]
    if not (terminals.shape[0] == ends.shape[0] == n) or n == 0 or successor_rows.shape[0] == 0:
        raise ValueError("terminals, ends and links need the same length, at least 1")
    if not ends[n - 1] or successor_rows[0] != -1:
        raise ValueError("the last row must end an episode, and successor_rows must start with -1")
    with nogil:
        write_links(&terminals[0], &ends[0], &successor_rows[0], successor_rows.shape[0], n, &links[0])


cdef inline int64_t row_before(int64_t row, int64_t n) noexcept nogil:
    """The row that ``row`` comes after, in a ring of ``n`` rows."""
    return row - 1 if row > 0 else n - 1


def count_back(uint16_t[::1] links, int64_t row, int64_t most):
    """``row`` of a ring has become a transition: say so in at most ``most`` rows that are linked to it from behind."""
    cdef int64_t n = links.shape[0], steps
    if not 0 <= row < n or not 1 <= most <= STEPS:
        raise ValueError(f"row {row} of {n} or most={most} cannot be")
    for steps in range(1, most + 1):
        row = row_before(row, n)
        if (links[row] & KIND) != NEXT_ROW:  # so is at least the newest row
            break
        links[row] = NEXT_ROW | steps


def count_all(uint16_t[::1] links, int64_t newest, int64_t most):
    """Write the number of linked transitions that follow, at most ``most``, into every row of a ring."""
    cdef int64_t n = links.shape[0], row = newest, k
    cdef uint16_t after = NOTHING
    if not 0 <= newest < n or not 1 <= most <= STEPS or (links[newest] & KIND) == NEXT_ROW:
        raise ValueError(f"newest={newest} of {n} rows or most={most} cannot be")
    for k in range(n):
        if (links[row] & KIND) == NEXT_ROW:
            links[row] = NEXT_ROW if (after & KIND) == NOTHING else NEXT_ROW | min((after & STEPS) + 1, most)
        after = links[row]
        row = row_before(row, n)


cdef inline int64_t stored(const int64_t* rows, int64_t n, int64_t row) noexcept nogil:
    """Position of ``row`` in the ascending ``rows``; 0, the entry of zeros, if it is not there."""
    cdef int64_t low = 0, high = n, middle
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low if low < n and rows[low] == row else 0


cdef inline const uint8_t* successor(const Storage* s, int64_t row) noexcept nogil:
    """Where the observation after ``row`` lies."""
    cdef int64_t kind = s.links[row] & KIND
    if kind == NEXT_ROW:
        return s.observations + (row + 1 if row + 1 < s.n_rows else 0) * s.observation_bytes
    if kind == UNKNOWN:
        return s.successors
    if s.slots != NULL:
        return s.successors + s.slots[row] * s.observation_bytes
    return s.successors + stored(s.successor_rows, s.n_successors, row) * s.observation_bytes


cdef inline int64_t walk(
    const Storage* s, int64_t row, int64_t n_steps, double gamma, float* reward, double* discount, float* count
) noexcept nogil:
    """Sum at most ``n_steps`` discounted rewards from ``row`` on; returns the last row visited."""
    cdef int64_t stop = row + 1 + min(n_steps - 1, <int64_t>(s.links[row] & STEPS)), k
    cdef double product = 1.0, total = 0.0
    count[0] = <float>(stop - row)
    for k in range(row, min(stop, s.n_rows)):
        total += product * s.rewards[k]
        product *= gamma if s.discount == NULL else s.discount[k]
    if stop > s.n_rows:  # the rest of the walk starts from row 0
        stop -= s.n_rows
        for k in range(stop):
            total += product * s.rewards[k]
            product *= gamma if s.discount == NULL else s.discount[k]
    reward[0] = <float>total
    discount[0] = product
    return stop - 1


cdef inline double return_to_go(const Storage* s, int64_t row, double gamma, double beyond) noexcept nogil:
    """Sum the discounted rewards from ``row`` on; ``beyond`` is what follows if no terminal ends them."""
    cdef double product = 1.0, total = 0.0
    cdef int64_t k
    for k in range(s.n_rows):
        total += product * s.rewards[row]
        product *= gamma if s.discount == NULL else s.discount[row]
        if s.terminals[row] or product == 0.0:
            return total
        if (s.links[row] & (END | KIND)) != NEXT_ROW:
            break
        row = row + 1 if row + 1 < s.n_rows else 0
    return total + product * beyond


cdef inline int64_t count_before(const Storage* s, int64_t row, int64_t most) noexcept nogil:
    """How many rows, at most ``most``, are linked to ``row`` from behind."""
    cdef int64_t count = 0
    row = row_before(row, s.n_rows)
    while count < most and (s.links[row] & STEPS) > 0:
        count += 1
        row = row_before(row, s.n_rows)
    return count


cdef inline uint8_t* copy_frames(
    const Storage* s, int64_t last, int64_t count, int64_t repeats, uint8_t* out
) noexcept nogil:
    """Write the ``count`` frames up to row ``last``, the first of them ``repeats`` times more; returns the place after."""
    cdef size_t size = s.observation_bytes
    cdef int64_t first = last + 1 - count, head, k
    if first < 0:
        first += s.n_rows
    head = min(count, s.n_rows - first)
    for k in range(repeats):
        memcpy(out, s.observations + first * size, size)
        out += size
    memcpy(out, s.observations + first * size, head * size)
    if head < count:
        memcpy(out + head * size, s.observations, (count - head) * size)
    return out + count * size


cdef inline void stack(const Storage* s, int64_t row, int64_t n_frames, uint8_t* out) noexcept nogil:
    """The last ``n_frames`` frames up to ``row``, oldest first; the segment's first frame fills the front."""
    cdef int64_t count = 1 + count_before(s, row, n_frames - 1)
    copy_frames(s, row, count, n_frames - count, out)


cdef inline void stack_after(const Storage* s, int64_t row, int64_t n_frames, uint8_t* out) noexcept nogil:
    """The stack seen after ``row``: the last ``n_frames - 1`` frames up to it, and its successor."""
    cdef int64_t count = 1 + count_before(s, row, n_frames - 2)
    if (s.links[row] & KIND) == NEXT_ROW:  # the successor lies right behind its history
        copy_frames(s, row + 1 if row + 1 < s.n_rows else 0, count + 1, n_frames - 1 - count, out)
    else:
        out = copy_frames(s, row, count, n_frames - 1 - count, out)
        memcpy(out, successor(s, row), s.observation_bytes)


cdef void gather(
    const Storage* s, const int64_t* picks, int64_t batch, int64_t n_frames, int64_t n_steps, double gamma,
    const Buffers* out,
) noexcept nogil:
    """Write the transitions that start at rows ``picks`` into ``out``."""
    cdef int64_t b, row, last
    cdef double discount
    cdef size_t size = s.observation_bytes, stacked = n_frames * s.observation_bytes
    for b in range(batch):
        row = picks[b]
        last = walk(s, row, n_steps, gamma, &out.rewards[b], &discount, &out.n_steps[b])
        out.terminals[b] = s.terminals[last]
        out.discounts[b] = 0.0 if s.terminals[last] else <float>discount
        memcpy(out.actions + b * s.action_bytes, s.actions + row * s.action_bytes, s.action_bytes)
        if n_frames == 1:
            memcpy(out.observations + b * size, s.observations + row * size, size)
            memcpy(out.next_observations + b * size, successor(s, last), size)
        else:
            stack(s, row, n_frames, out.observations + b * stacked)
            stack_after(s, last, n_frames, out.next_observations + b * stacked)


cdef int64_t first_bad_pick(const Storage* s, const int64_t* picks, int64_t batch) noexcept nogil:
    """Position of the first pick that is no transition, -1 if all are."""
    cdef int64_t b
    for b in range(batch):
        if not 0 <= picks[b] < s.n_rows or (s.links[picks[b]] & KIND) == NOTHING:
            return b
    return -1


cdef raise_bad_pick(int64_t row, int64_t n_rows):
    raise IndexError(f"row {row} is not a transition of a storage of {n_rows} rows")


def as_bytes(array):
    """The memory of a contiguous array as ``(nbytes,)`` uint8, not copied."""
    if not array.flags.c_contiguous:
        raise ValueError("the array must be contiguous")
    return array.reshape(-1).view("u1")


cdef class Gather:
    """Copies transitions of one storage into one set of buffers, as often as ``fill`` is called.

    Holds a view of every array whose memory it reads or writes, so nothing is freed under it; taking the
    views, which costs more than the copying itself, happens once.

    Parameters
    ----------
    rows : a ``Rows``. rewards, discount : ``(N,)`` float32 columns; ``discount`` may be None.
    picks : ``(B,)`` int64, the rows to copy, read at each ``fill``.
    out : a ``TransitionMiniBatch`` with its arrays in place.
    """

    cdef const uint8_t[::1] observations, actions, terminals, successors
    cdef const float[::1] rewards, discount
    cdef const uint16_t[::1] links
    cdef const int64_t[::1] successor_rows, picks
    cdef const int32_t[::1] slots
    cdef uint8_t[::1] out_observations, out_actions, out_next_observations
    cdef float[::1] out_rewards, out_terminals, out_n_steps, out_discounts
    cdef Storage storage
    cdef Buffers buffers
    cdef int64_t n_frames, n_steps
    cdef double gamma

    def __init__(self, rows, rewards, discount, picks, out, int64_t n_frames, int64_t n_steps, double gamma):
        self.observations, self.actions = as_bytes(rows.observations), as_bytes(rows.actions)
        self.terminals, self.successors = as_bytes(rows.terminals), as_bytes(rows.successors)
        self.rewards, self.links, self.successor_rows = rewards, rows.links, rows.successor_rows
        self.discount = rewards if discount is None else discount
        self.slots = rows.slots
        self.picks = picks
        self.out_observations, self.out_actions = as_bytes(out.observations), as_bytes(out.actions)
        self.out_next_observations = as_bytes(out.next_observations)
        self.out_rewards, self.out_terminals = out.rewards.reshape(-1), out.terminals.reshape(-1)
        self.out_n_steps, self.out_discounts = out.n_steps.reshape(-1), out.discounts.reshape(-1)
        self.n_frames, self.n_steps, self.gamma = n_frames, n_steps, gamma
        self.check_sizes()
        self.keep_pointers(discount is not None)

    cdef check_sizes(self):
        """Refuse arrays that disagree: from here on only pointers are used."""
        cdef int64_t n = self.links.shape[0], batch = self.picks.shape[0]
        if n == 0 or batch == 0 or not 1 <= self.n_steps <= STEPS + 1 or self.n_frames < 1:
            raise ValueError("rows and picks must not be empty, n_steps and n_frames at least 1")
        cdef int64_t width = self.observations.shape[0] // n, act = self.actions.shape[0] // n
        cdef int64_t n_successors = self.successor_rows.shape[0] if self.slots is None else self.slots.shape[0] + 1
        if not (self.rewards.shape[0] == self.discount.shape[0] == self.terminals.shape[0] == n
                and (self.slots is None or self.slots.shape[0] == n)
                and self.observations.shape[0] == n * width and self.actions.shape[0] == n * act
                and width > 0 and self.successors.shape[0] == n_successors * width):
            raise ValueError("the columns must have the same number of rows")
        cdef int64_t stacked = batch * width * self.n_frames
        if not (self.out_observations.shape[0] == self.out_next_observations.shape[0] == stacked
                and self.out_actions.shape[0] == batch * act
                and self.out_rewards.shape[0] == self.out_terminals.shape[0] == batch
                and self.out_n_steps.shape[0] == self.out_discounts.shape[0] == batch):
            raise ValueError("the buffers must have one row for each pick")
        self.storage.n_rows, self.storage.n_successors = n, self.successor_rows.shape[0]
        self.storage.observation_bytes, self.storage.action_bytes = width, act

    cdef keep_pointers(self, bint with_discount):
        self.storage.observations, self.storage.actions = &self.observations[0], &self.actions[0]
        self.storage.rewards, self.storage.terminals = &self.rewards[0], &self.terminals[0]
        self.storage.discount = &self.discount[0] if with_discount else NULL
        self.storage.links, self.storage.successor_rows = &self.links[0], &self.successor_rows[0]
        self.storage.successors = &self.successors[0]
        self.storage.slots = NULL
        if self.slots is not None:
            self.storage.slots = &self.slots[0]
        self.buffers.observations, self.buffers.actions = &self.out_observations[0], &self.out_actions[0]
        self.buffers.next_observations = &self.out_next_observations[0]
        self.buffers.rewards, self.buffers.terminals = &self.out_rewards[0], &self.out_terminals[0]
        self.buffers.n_steps, self.buffers.discounts = &self.out_n_steps[0], &self.out_discounts[0]

    def fill(self):
        """Copy the transitions that ``picks`` names now; ``IndexError`` before anything is written."""
        cdef int64_t bad
        with nogil:
            bad = first_bad_pick(&self.storage, &self.picks[0], self.picks.shape[0])
            if bad < 0:
                gather(&self.storage, &self.picks[0], self.picks.shape[0], self.n_frames, self.n_steps,
                       self.gamma, &self.buffers)
        if bad >= 0:
            raise_bad_pick(self.picks[bad], self.storage.n_rows)

    def sum_rest(self, double beyond, float[::1] out):
        """Write the returns-to-go of the transitions that ``picks`` names now, ``(B,)``."""
        cdef int64_t b, bad
        if out.shape[0] != self.picks.shape[0]:
            raise ValueError("out must have one place for each pick")
        with nogil:
            bad = first_bad_pick(&self.storage, &self.picks[0], self.picks.shape[0])
            if bad < 0:
                for b in range(self.picks.shape[0]):
                    out[b] = <float>return_to_go(&self.storage, self.picks[b], self.gamma, beyond)
        if bad >= 0:
            raise_bad_pick(self.picks[bad], self.storage.n_rows)
