"""Files of earlier versions still load, and seeded training still takes the path it took.

``python -m tests.test_golden`` writes the files anew: only for a change that is meant to change them, and say why.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from d3rlpy.algos import ALGORITHMS, DQN
from tests.common.test_suite import QUIET, dataset_for, make

GOLDEN = Path(__file__).parent / "golden"
OBSERVATIONS = np.linspace(-2, 2, 15, dtype=np.float32).reshape(5, 3)


def trajectory(name):
    """Metrics of ten single updates."""
    algo = make(name)
    epochs = algo.fitter(dataset_for(algo), n_steps=10, n_steps_per_epoch=1, **QUIET)
    return [{k: v for k, v in metrics.items() if not k.startswith("time_")} for _, metrics in epochs]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_seeded_training_takes_the_path_it_took(name):
    expected = json.loads((GOLDEN / "trajectories.json").read_text())[name]
    for step, (got, want) in enumerate(zip(trajectory(name), expected, strict=True)):
        assert got == pytest.approx(want, rel=1e-3, abs=1e-5), f"update {step + 1}"


def test_a_model_of_the_first_format_loads_and_acts_as_it_did():
    algo = DQN.from_json(GOLDEN / "dqn_params.json")
    algo.load_model(GOLDEN / "dqn_model.pt")
    expected = json.loads((GOLDEN / "dqn_expected.json").read_text())
    assert algo.grad_step_ == expected["grad_step"]
    assert algo.predict(OBSERVATIONS).tolist() == expected["actions"]
    assert algo.predict_value(OBSERVATIONS, expected["actions"]) == pytest.approx(expected["values"], rel=1e-4)


def main() -> None:
    """Write the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "trajectories.json").write_text(
        json.dumps({name: trajectory(name) for name in ALGORITHMS}, indent=1) + "\n"
    )
    algo = make("dqn", scaler="standard", reward_scaler="standard")
    algo.fit(dataset_for(algo), n_steps=20, **QUIET)
    algo.save_model(GOLDEN / "dqn_model.pt")
    (GOLDEN / "dqn_params.json").write_text(json.dumps(algo.saved_params(), indent=2) + "\n")
    actions = algo.predict(OBSERVATIONS)
    values = algo.predict_value(OBSERVATIONS, actions)
    expected = {"grad_step": 20, "actions": actions.tolist(), "values": values.tolist()}
    (GOLDEN / "dqn_expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
