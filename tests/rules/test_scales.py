"""Scales of inputs and targets: synthetic X-rays of runs that learn or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwatch.records import Anatomy, Layer
from gradwatch.rules.scales import UnscaledInput, UnscaledTarget
from gradwatch.signals import Slot
from tests.rules.fields import anatomy, judge, xray

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=(32, 1))
INPUTS = RANDOM.normal(size=(32, 10))
IDS = RANDOM.integers(0, 3, 32)
STEPS = (10, 20, 50, 100, 200)
SGD = {"class_name": "SGD", "momentum": 0.0}
ADAM = {"class_name": "Adam"}
SPARSE = "sparse_categorical_crossentropy"


def _rows(
    inputs: Any, targets: Any, predictions: Any, losses: Any, constant: float
) -> Any:
    """X-rays; `predictions` and `losses` have one for each."""
    return [
        xray(
            step,
            {"inputs": inputs, "targets": targets, "predictions": p},
            {
                Slot("loss_component", "part"): loss,
                Slot("component_constant_loss", "part"): constant,
                Slot("learning_rate"): 0.01,
            },
        )
        for step, p, loss in zip(STEPS, predictions, losses)
    ]


def _targets(size: Any, speed: float, planned: int = 240, **facts: Any) -> Any:
    """Targets around `size`; predictions come nearer by `speed` a step."""
    y = size + 0.3 * size * NUMBERS
    predictions = [y * min(speed * step / size, 1.0) for step in STEPS]
    losses = [float(np.mean((y - p) ** 2)) for p in predictions]
    rows = _rows(INPUTS, y, predictions, losses, float(y.var()))
    known = {"optimizer": ADAM, "planned_steps": planned, **facts}
    return judge(UnscaledTarget(), anatomy("mse", **known), rows)


def test_targets_that_are_far_away() -> None:
    """Told after half of the steps, with how far predictions came."""
    (finding,) = _targets(325_000.0, 0.3)
    assert (finding.subject, finding.last_step) == ("targets", 200)
    assert finding.causes == ("unscaled_target",)
    assert _targets(325_000.0, 0.3, planned=600) == []


def test_one_of_several_outputs_is_far_away() -> None:
    """Each is looked at by itself; where the other learns, this one is told."""
    price = 325_000.0 + 1e5 * NUMBERS
    y, same = {"near": NUMBERS, "price": price}, float(price.var())
    losses = {"near": "mse", "price": {"class_name": "MeanSquaredError"}}
    rows = [
        xray(
            step,
            {"inputs": INPUTS}
            | {f"targets/{name}": each for name, each in y.items()}
            | {f"predictions/{name}": NUMBERS for name in y},
            {
                Slot("loss_component", "near_loss"): 0.1,
                Slot("loss_component", "price_loss"): 10 * same,
                Slot("component_constant_loss", "near_loss"): 1.0,
                Slot("component_constant_loss", "price_loss"): same,
                Slot("learning_rate"): 0.01,
            },
        )
        for step in STEPS
    ]
    facts = anatomy(losses, optimizer=ADAM, planned_steps=240)
    (finding,) = judge(UnscaledTarget(), facts, rows)
    assert finding.subject == "targets/price"
    assert "the loss of price is" in finding.message
    assert judge(UnscaledInput(), facts, rows) == []


@pytest.mark.parametrize("speed", [0.4, 0.6, 1.0, 5.0])
def test_large_targets_that_are_reached(speed: float) -> None:
    """Or will be, if it goes on like this for a while."""
    assert _targets(150.0, speed) == []


def test_targets_as_they_should_be() -> None:
    """A slow start with targets around 1 is no matter of scale."""
    assert _targets(1.0, 0.0001) == []


@pytest.mark.parametrize(("end", "told"), [(0.02, 1), (1e-9, 0)])
def test_targets_that_are_nearly_zero(end: float, told: int) -> None:
    """Predictions scatter more than the targets, to the end or not."""
    losses = np.geomspace(0.05, end, len(STEPS))
    y, p = 3e-4 + 1e-4 * NUMBERS, [0.1 * NUMBERS] * 5
    rows = _rows(INPUTS, y, p, losses, 1e-8)
    facts = anatomy("mse", optimizer=ADAM, planned_steps=240)
    assert len(judge(UnscaledTarget(), facts, rows)) == told


def test_single_targets_of_another_unit() -> None:
    """A few huge values are another fault."""
    y = 1 + NUMBERS
    rows = _rows(INPUTS, y, [0 * y] * 5, [3.0] * 5, 1.0)
    rows[-1] = _rows(INPUTS, 1e3 * y, [0 * y] * 5, [3e6] * 5, 1e6)[-1]
    facts = anatomy("mse", optimizer=ADAM, planned_steps=240)
    assert judge(UnscaledTarget(), facts, rows) == []


def _inputs(scale: float, losses: Any, facts: Anatomy | None = None) -> Any:
    rows = _rows(scale * INPUTS, IDS, [0.3 + 0 * INPUTS] * 5, losses, 1.09)
    known = anatomy(SPARSE, "softmax", 3, optimizer=SGD, planned_steps=240)
    return judge(UnscaledInput(), facts or known, rows)


STUCK = (1.1, 1.1, 1.09, 1.1, 1.09)
SWINGS = (90.0, 400.0, 30.0, 250.0, 60.0)
FALLS = (57.0, 40.0, 11.0, 5.7, 2.2)
LEARNS = (1.1, 1.0, 0.9, 0.7, 0.4)


@pytest.mark.parametrize("losses", [STUCK, SWINGS])
def test_inputs_that_are_too_large(losses: Any) -> None:
    """Told where nothing was learned by half of the steps."""
    (finding,) = _inputs(250.0, losses)
    assert (finding.subject, finding.last_step) == ("inputs", 200)
    assert finding.evidence["change_in_a_step"] > 1000
    assert finding.causes == ("unscaled_input",)


@pytest.mark.parametrize(
    ("scale", "losses"),
    [(250.0, LEARNS), (250.0, FALLS), (1.0, STUCK), (3.0, SWINGS)],
)
def test_inputs_that_do_no_harm(scale: float, losses: Any) -> None:
    """Raw pixels that learn; a stall with inputs around 1."""
    assert _inputs(scale, losses) == []


def test_inputs_that_are_too_small() -> None:
    """A hundred steps that change nothing."""
    assert len(_inputs(1e-3, STUCK)) == 1


@pytest.mark.parametrize(
    "first",
    [
        Layer("m/ids", "Embedding", ""),
        Layer("m/normal", "BatchNormalization", ""),
        Layer("m/rescaling", "Rescaling", ""),
    ],
)
def test_inputs_that_the_first_layer_takes_care_of(first: Layer) -> None:
    """Ids have no scale, and normalised inputs have another one."""
    known = anatomy(SPARSE, "softmax", 3, optimizer=SGD, planned_steps=240)
    facts = replace(known, layers=(first, *known.layers))
    assert _inputs(250.0, STUCK, facts) == []


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (ADAM, 1),
        ({"class_name": "SGD", "clipnorm": 1.0}, 0),
        ({"class_name": "Adagrad"}, 0),
        ({}, 0),
    ],
)
def test_optimizers(optimizer: Any, told: int) -> None:
    """Where a step does not grow with the inputs, they explain less."""
    facts = anatomy(SPARSE, "", 3, optimizer=optimizer, planned_steps=240)
    assert len(_inputs(900.0, STUCK, facts)) == told
