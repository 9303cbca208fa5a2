"""Files of earlier versions still load, and seeded training still takes the path it took.

``python -m tests.test_golden`` writes the trajectories anew: for a new algorithm, or for a change that is meant to
change them, and then say why.
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
    known = json.loads((GOLDEN / "trajectories.json").read_text())
    assert name in known, f"{name} is new: write its trajectory with python -m tests.test_golden"
    expected = known[name]
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
    """Write the trajectories. The model files are of the first format and are never written again."""
    paths = {name: trajectory(name) for name in ALGORITHMS}
    (GOLDEN / "trajectories.json").write_text(json.dumps(paths, indent=1) + "\n")


if __name__ == "__main__":
    main()
