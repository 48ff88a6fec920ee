"""Real runs compared: what differs first is what was changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import pytest

from gradwatch.compare.comparison import Comparison, compare
from gradwatch.compare.story import story
from tests.compare.runs import STEPS, train
from tests.test_resume import Crashes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the run that others are compared with."""
    keras.backend.clear_session()  # so that names begin without a number
    return train(tmp_path_factory.mktemp("runs"), "base")


def first(told: Comparison) -> tuple[str, str]:
    """Returns signal and subject of what differs first."""
    difference = told.readings.differences[0]
    return difference.signal, difference.subject


def test_the_same_again(base: Path, tmp_path: Path) -> None:
    """Of one seed, to the bit, though Keras counts the layers' names on."""
    told = compare(base, train(tmp_path, "again"))
    assert told.readings.verdict == "same"
    assert told.readings.compared == STEPS
    assert told.setup == []
    norms = [pair.values for pair in told.gradients]
    assert len(norms) == 6
    assert all(a == b > 0 for a, b in norms)


@pytest.mark.parametrize(
    ("options", "compared"),
    [
        ({"steps_per_execution": 4}, STEPS),
        ({"every": 5}, 4),
        ({"epochs": 2}, STEPS),
    ],
)
def test_common_steps_are_compared(
    base: Path, tmp_path: Path, options: dict[str, Any], compared: int
) -> None:
    """Loops, other cadences and longer runs are the same where both have it."""
    told = compare(base, train(tmp_path, "other", **options))
    assert told.readings.verdict == "same"
    assert told.readings.compared == compared


@pytest.mark.parametrize("mode", ["jit_compile", "run_eagerly"])
def test_other_kernels_are_rounding(
    base: Path, tmp_path: Path, mode: str
) -> None:
    """Said as such, with the reason; no loss differs much in 16 steps."""
    options: dict[str, Any] = {mode: True}
    told = compare(base, train(tmp_path, "other", **options))
    found = told.readings
    assert (found.verdict, found.step, found.percent) == ("rounding", -1, -1)
    assert 0 <= found.unequal < 3
    assert all(0 < d.relative < 1e-5 for d in found.differences)
    assert f"`mode.{mode}` False and True" in story(told)[-1]


def test_a_lower_precision_is_rounding(base: Path, tmp_path: Path) -> None:
    """Larger than float32's, and the set-up says what layers compute in."""
    told = compare(base, train(tmp_path, "other", policy="mixed_float16"))
    found = told.readings
    assert (found.verdict, found.unequal) == ("rounding", 0)
    assert max(d.relative for d in found.differences) > 1e-5
    (dtypes,) = (pair.values for pair in told.setup)
    assert dtypes == ("float32", "float16, float32")


def test_rounding_that_grows_is_rounding(tmp_path: Path) -> None:
    """At a learning rate that is too large: 1e-7, and in the end all of it."""
    far: dict[str, Any] = {"rate": 0.8, "epochs": 5}
    told = compare(
        train(tmp_path, "one", **far),
        train(tmp_path, "other", run_eagerly=True, **far),
    )
    found = told.readings
    assert (found.verdict, found.unequal) == ("rounding", 0)
    assert found.percent > 10
    assert f"more than 1 % from step {found.percent} on" in " ".join(
        story(told)
    )


@pytest.mark.parametrize(
    ("changes", "step", "signal", "said"),
    [
        ({"seed": 4}, 0, "raw_loss_component", "begin with other weights"),
        ({"change": 0}, 0, "raw_loss_component", "at the same scale"),
        ({"rate": 0.06}, 0, "learning_rate", "differ from step 1 on."),
        ({"momentum": 0.8}, 2, "raw_loss_component", "`optimizer.momentum`"),
        (
            {"change": 9},
            9,
            "raw_loss_component",
            "were the same until here",
        ),
        ({"weight": 0.2}, 0, "loss_component", "differs: `loss/size`."),
    ],
)
def test_what_was_changed_differs_first(
    base: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    step: int,
    signal: str,
    said: str,
) -> None:
    """At its step, with what it says about the cause."""
    told = compare(base, train(tmp_path, "other", **changes))
    found = told.readings
    assert (found.verdict, found.unequal) == ("different", step)
    assert (found.step, found.before) == (step, step - 1 if step else -1)
    assert found.differences[0].signal == signal
    assert said in " ".join(story(told))
    assert bool(told.weights) == ("seed" in changes)
    if "weight" in changes:
        assert "Before its weight it is the same" in " ".join(story(told))
        signals = {(d.signal, d.subject) for d in found.differences}
        assert ("loss_component", "loss/fit") not in signals


def test_a_change_behind_rounding_is_found(tmp_path: Path) -> None:
    """Eager and graph differ by rounding; one example of step 9 by more."""
    told = compare(
        train(tmp_path, "one", run_eagerly=True),
        train(tmp_path, "other", change=9),
    )
    found = told.readings
    assert (found.verdict, found.unequal, found.step) == ("different", 0, 9)
    assert "by no more than rounding from step 0 until step 8" in story(told)[0]


def test_an_xray_tells_batches_apart(tmp_path: Path) -> None:
    """Where both looked, a batch's own numbers come first."""
    told = compare(
        train(tmp_path, "one", xray=200),
        train(tmp_path, "other", xray=200, change=10),
    )
    assert (told.readings.step, told.readings.given) == (10, 10)
    assert first(told) == ("batch_mean", "inputs")
    assert "Their batches differ: `batch_mean of inputs`" in story(told)[1]


def test_other_models(base: Path, tmp_path: Path) -> None:
    """The set-up says which layers; what both have is compared."""
    told = compare(base, train(tmp_path, "other", units=24, drop=0.5))
    named = {pair.name: pair.values for pair in told.setup}
    kernel = "variable.sequential/dense/kernel"
    assert named[kernel] == ("8x16 float32", "8x24 float32")
    (dropout,) = (name for name in named if name.startswith("layer."))
    assert named[dropout] == (None, "Dropout")
    assert told.models
    assert "Their variables differ" in " ".join(story(told))
    subjects = {pair.name for pair in told.gradients}
    assert "sequential/dense_2/kernel" in subjects
    assert (
        not {"sequential/dense/kernel", "sequential/dense_1/kernel"} & subjects
    )


def half(x: Any) -> Any:
    """A ReLU with half of its gradient."""
    y = keras.ops.relu(x) / 2
    return y + keras.ops.stop_gradient(y)


def test_a_wrong_derivative(base: Path, tmp_path: Path) -> None:
    """The loss is the same, and gradients are from that layer backwards not."""
    told = compare(base, train(tmp_path, "other", activation=half))
    found = told.readings
    assert (found.step, found.effect, told.models) == (0, 0, False)
    assert first(told) == ("variable_gradient_norm", "sequential/dense/bias")
    assert found.differences[0].relative == pytest.approx(0.5)
    assert found.alike["variable_gradient_norm"] == 4
    layers, gradients = story(told)[1:3]
    assert "`layer.sequential/dense` Dense relu and Dense half" in layers
    assert "back from the loss first `sequential/dense/bias`" in gradients


def test_one_that_is_not_finite(base: Path, tmp_path: Path) -> None:
    """NaN in one of them parts them, and what was found stands beside it."""
    told = compare(base, train(tmp_path, "other", change=7, by=float("nan")))
    assert told.readings.step == 7
    assert "Only one of them is not finite there" in story(told)[1]
    assert [(f.rule, f.steps) for f in told.findings] == [
        ("nonfinite_batch", (None, 7))
    ]
    totals = {pair.name: pair.values for pair in told.totals}
    assert totals["steps that were not finite"] == (0, 1)
    assert totals["state"] == ("finished", "failed (nonfinite)")


# Keras' own conversion, when it saves weights.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_resumed_run(tmp_path: Path) -> None:
    """It is the same as one that was never interrupted, from its first step."""
    folder = str(tmp_path / "backup")
    whole = train(tmp_path, "whole", epochs=2)
    backup = keras.callbacks.BackupAndRestore(folder)
    # So slow that its state.json, at most one a second, knows the first epoch.
    slow = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: time.sleep(0.08)
    )
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path, "job", backup, slow, Crashes(1, 5), epochs=2)
    backup = keras.callbacks.BackupAndRestore(folder)
    told = compare(whole, train(tmp_path, "job", backup, epochs=2))
    found = told.readings
    assert (found.verdict, found.first) == ("same", STEPS), story(told)
    named = {pair.name: pair.values for pair in told.setup}
    assert named["first step"] == (0, STEPS)
    assert told.weights == []
