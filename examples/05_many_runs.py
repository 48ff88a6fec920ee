"""A sweep: several runs in one folder, one of which fails.

Each `GradWatch` is one run. Its name is what tables and charts call it, so it
says what is special about the run; labels are for scripts, the API, the page of
the run, and for queries (`gradwatch_run_label_info`). A run that fails does not
hold up the sweep: with the default policy `fit` returns, and the state says
why. All of them are seen at once by `gradwatch status`, by the service and,
through it, by Grafana. Run it with
`python examples/05_many_runs.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import keras
from sklearn.datasets import load_diabetes

from gradwatch import GradWatch

LOGDIR = Path("runs") / "sweep"
RATES = (0.001, 0.01, 1.0)

x, y = load_diabetes(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
y = ((y - y.mean()) / y.std()).astype("float32")


def train(rate: float) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="output"),
        ],
        name="progression",
    )
    model.compile(keras.optimizers.SGD(rate), "mse")
    labels = {"sweep": "rate", "rate": str(rate)}
    watch = GradWatch(LOGDIR, name=f"rate-{rate}", labels=labels)
    model.fit(
        x,
        y,
        validation_split=0.2,
        epochs=10,
        verbose=0,
        callbacks=[watch],
    )


def status(*options: str) -> str:
    """Returns what `gradwatch status` prints of the sweep."""
    command = [sys.executable, "-m", "gradwatch.cli", "status", *options]
    return subprocess.run(
        [*command, "--logdir", str(LOGDIR)],
        capture_output=True,
        check=True,
        text=True,
    ).stdout


for rate in RATES:
    train(rate)

print(status())
runs = json.loads(status("--json"))
sweep = [run for run in runs if run["labels"].get("sweep") == "rate"]
done = [run for run in sweep if run["state"] == "finished"]
best = min(done, key=lambda run: run["validation_loss"])
print(f"The best rate is {best['labels']['rate']}: {best['run']}")
for run in sweep:
    if run["state"] == "failed":
        print(f"Failed: {run['run']} ({run['reason']})")

print(
    f"""
All of them, in a terminal, and on a page with the failed one first:
  gradwatch status --logdir {LOGDIR} --watch
  gradwatch serve --logdir {LOGDIR}
In Grafana, "gradwatch: all runs" compares them while the service runs, until
15 minutes after their end: choose those of the sweep under Runs."""
)
