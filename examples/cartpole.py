"""From logged data to an exported policy: CartPole with DiscreteCQL, in about three minutes.

Run it with ``make demo``; files go to ``demo_output/``.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

import d3rlpy
from d3rlpy.metrics.scorer import evaluate_on_environment, td_error_scorer

OUTPUT = Path("demo_output")
OUTPUT.mkdir(exist_ok=True)
torch.set_num_threads(1)  # small networks: a second thread costs more than it brings

# 1. Logged data: episodes of a training run, from clumsy to skilled.
dataset, env = d3rlpy.datasets.get_cartpole()
train_episodes, test_episodes = train_test_split(dataset, test_size=0.1, random_state=0)
print(f"{len(dataset)} episodes, mean return {np.mean([e.compute_return() for e in dataset]):.1f}")

# 2. Learn from them, without ever acting.
cql = d3rlpy.algos.DiscreteCQL(learning_rate=3e-4, target_update_interval=1000, random_state=0)
cql.fit(
    train_episodes,
    n_steps=10_000,
    n_steps_per_epoch=500,
    eval_episodes=test_episodes,
    scorers={"td_error": td_error_scorer, "environment": evaluate_on_environment(env, n_trials=5, seed=0)},
    logdir=OUTPUT / "logs",
)

# 3. How good is the policy?
policy_return = evaluate_on_environment(env, n_trials=20, seed=1000)(cql)
print(f"return of the policy, mean of 20 episodes: {policy_return:.1f} of 200")

# 4. The curve of training.
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = np.arange(1, len(cql.history_) + 1) * 500
    plt.plot(steps, [metrics["environment"] for _, metrics in cql.history_])
    plt.xlabel("gradient steps")
    plt.ylabel("return, mean of 5 episodes")
    plt.savefig(OUTPUT / "curve.png")
except ImportError:
    print("no picture of the curve: pip install matplotlib")

# 5. Save the model, and rebuild it in a new process from params.json and the model file.
cql.save_model(OUTPUT / "model.pt")
observations = np.random.default_rng(0).normal(scale=0.1, size=(100, 4)).astype(np.float32)
np.save(OUTPUT / "observations.npy", observations)
reload = """
import sys, numpy as np, d3rlpy
algo = d3rlpy.algos.DiscreteCQL.from_json(sys.argv[1])
algo.load_model(sys.argv[2])
np.save(sys.argv[4], algo.predict(np.load(sys.argv[3])))
"""
files = [
    cql.logdir_ / "params.json",
    OUTPUT / "model.pt",
    OUTPUT / "observations.npy",
    OUTPUT / "actions.npy",
]
subprocess.run([sys.executable, "-c", reload, *map(str, files)], check=True)
actions = cql.predict(observations)
assert (np.load(OUTPUT / "actions.npy") == actions).all()
print("rebuilt in a new process: same actions")

# 6. Export the policy; both files run without this library.
cql.save_policy(OUTPUT / "policy.pt")
cql.save_policy(OUTPUT / "policy.onnx")
torchscript_actions = torch.jit.load(OUTPUT / "policy.pt")(torch.from_numpy(observations)).numpy()
assert (torchscript_actions == actions).all()
try:
    import onnxruntime

    session = onnxruntime.InferenceSession(OUTPUT / "policy.onnx")
    assert (session.run(None, {"input_0": observations})[0] == actions).all()
    print("TorchScript and ONNX: same actions")
except ImportError:
    print("TorchScript: same actions; to run the ONNX file: pip install onnxruntime")
