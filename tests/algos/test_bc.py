import numpy as np
import pytest
import torch

from d3rlpy.algos import BC, DiscreteBC
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.testing import two_step_dataset
from tests.algos.restate import mlp, numpy_of, pick
from tests.helpers import random_batch

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(16,))


def test_the_deterministic_loss_is_the_squared_error():
    impl = BC(encoder_factory=SMALL, random_state=0).create_impl((3,), 2).impl.double()
    batch = random_batch(32, dtype=torch.float64)
    b = numpy_of(batch)
    expected = ((np.tanh(mlp(impl.policy, b["observations"])) - b["actions"]) ** 2).mean()
    assert impl.loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_stochastic_loss_is_the_negative_log_likelihood_of_the_squashed_normal():
    impl = BC(policy_type="stochastic", encoder_factory=SMALL, random_state=0).create_impl((3,), 2).impl.double()
    batch = random_batch(32, dtype=torch.float64)
    b = numpy_of(batch)
    weights = {k: v.detach().numpy() for k, v in impl.policy.state_dict().items()}
    hidden = np.maximum(
        b["observations"] @ weights["encoder.layers.0.0.weight"].T + weights["encoder.layers.0.0.bias"], 0
    )
    mean, log_std = np.split(hidden @ weights["head.weight"].T + weights["head.bias"], 2, axis=1)
    std = np.exp(np.clip(log_std, -20, 2))
    u = np.arctanh(b["actions"])
    density = np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi)) / (1 - b["actions"] ** 2)
    assert impl.loss(batch).item() == pytest.approx(-np.log(density).sum(axis=1).mean(), rel=1e-6)


def test_the_discrete_loss_is_the_negative_log_likelihood_plus_the_penalty_on_logits():
    impl = DiscreteBC(encoder_factory=SMALL, beta=0.3, random_state=0).create_impl((3,), 4).impl.double()
    batch = random_batch(32, action_size=4, discrete=True, dtype=torch.float64)
    b = numpy_of(batch)
    logits = mlp(impl.policy, b["observations"])
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(pick(probs, b["actions"])).mean() + 0.3 * (logits**2).mean()
    assert impl.loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("policy_type", ["deterministic", "stochastic"])
def test_bc_finds_the_behavior_policy(policy_type):
    algo = BC(policy_type=policy_type, learning_rate=3e-3, encoder_factory=SMALL, random_state=0)
    algo.fit(two_step_dataset(behavior=(0.4, -0.2)), n_steps=800, **QUIET)
    states = np.eye(2, dtype=np.float32)
    assert algo.predict(states)[:, 0] == pytest.approx([0.4, -0.2], abs=0.05)
    sampled = np.stack([algo.sample_action(states) for _ in range(200)])[..., 0]
    assert sampled.mean(axis=0) == pytest.approx([0.4, -0.2], abs=0.07)
    if policy_type == "stochastic":  # uniform within 0.2 has the standard deviation 0.115
        assert sampled.std(axis=0) == pytest.approx([0.115, 0.115], abs=0.05)
    else:
        assert (sampled.std(axis=0) < 1e-6).all()


@pytest.mark.slow
def test_discrete_bc_finds_the_probabilities_of_the_behavior_policy():
    """In state 0 action 1 is taken in three of four cases, in state 1 action 2 always."""
    n = 400
    state = np.arange(n) % 2
    actions = np.where(state == 1, 2, np.where(np.arange(n) % 8 == 0, 0, 1))
    dataset = MDPDataset(np.eye(2, dtype=np.float32)[state], actions, np.zeros(n), np.ones(n))
    algo = DiscreteBC(beta=0.0, learning_rate=1e-2, encoder_factory=SMALL, random_state=0).fit(
        dataset, n_steps=600, **QUIET
    )
    states = np.eye(2, dtype=np.float32)
    assert algo.predict(states).tolist() == [1, 2]
    sampled = algo.sample_action(np.repeat(states[:1], 2000, axis=0))
    assert (sampled == 1).mean() == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("cls", [BC, DiscreteBC])
def test_imitation_has_no_values_and_says_so(cls):
    assert not hasattr(cls(), "predict_value")
    with pytest.raises(AttributeError, match="has no attribute 'predict_value'") as error:
        cls().predict_value([[0.0]], [0])
    assert str(error.value.__cause__) == f"{cls.__name__} has no action values, so it has no predict_value"
