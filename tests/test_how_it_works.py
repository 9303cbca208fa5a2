from pathlib import Path

import numpy as np
import torch

from d3rlpy.algos import TD3PlusBC
from d3rlpy.dataset import MDPDataset, PermutationSampler, rows_of
from d3rlpy.impl import Batch, gradient_step, soft_sync


def ten_transitions():
    rng = np.random.default_rng(0)
    return MDPDataset(
        rng.normal(size=(10, 3)).astype("float32"),
        rng.uniform(-1, 1, size=(10, 2)).astype("float32"),
        rng.normal(size=10).astype("float32"),
        np.arange(10) % 5 == 4,
    )


def test_the_calls_of_how_it_works_equal_one_step_of_fit():
    dataset = ten_transitions()
    fitted = TD3PlusBC(batch_size=4, update_actor_interval=1, random_state=0)
    fitted.fit(dataset, n_steps=1, save_metrics=False, verbose=False, show_progress=False)

    algo = TD3PlusBC(batch_size=4, update_actor_interval=1, random_state=0).build_with_dataset(dataset)
    impl = algo.impl
    rows, indices = rows_of(dataset)  # hop 3
    seed = int(algo.stream_.numpy.integers(2**31))
    sampler = PermutationSampler(rows, indices, batch_size=4, gamma=0.99, seed=seed)  # hop 4
    mini_batch = sampler.sample()  # hop 5
    batch = Batch.of(mini_batch, algo.fitted_scalers_, impl.device)  # hop 6
    with algo.stream_:  # hops 7 to 9
        with torch.no_grad():
            target = batch.rewards + batch.discounts * impl.target(batch)
        gradient_step(impl.critic_optim, impl.q_funcs.td_loss(target, batch.observations, batch.actions))
        gradient_step(impl.actor_optim, impl.actor_loss(batch))
        soft_sync(impl.targ_q_funcs, impl.q_funcs, algo.tau)
        soft_sync(impl.targ_policy, impl.policy, algo.tau)

    expected = fitted.impl.state_dict()
    assert {k: torch.equal(v, expected[k]) for k, v in impl.state_dict().items()} == dict.fromkeys(expected, True)


def test_the_block_of_the_page_equals_one_step_of_fit():
    page = (Path(__file__).parent.parent / "docs" / "how_it_works.md").read_text()
    namespace = {}
    exec(page.split("```python\n")[1].split("```")[0], namespace)
    fitted = TD3PlusBC(batch_size=4, update_actor_interval=1, random_state=0)
    fitted.fit(namespace["dataset"], n_steps=1, save_metrics=False, verbose=False, show_progress=False)
    expected = fitted.impl.state_dict()
    got = namespace["algo"].impl.state_dict()
    assert {k: torch.equal(v, expected[k]) for k, v in got.items()} == dict.fromkeys(expected, True)
    assert set(namespace["metrics"]) == {"critic_loss", "actor_loss"}
