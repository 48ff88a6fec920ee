"""Does the last layer fit? Synthetic X-rays of data and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.capture.anatomy import anatomy as read_anatomy
from gradwatch.records import Layer
from gradwatch.rules.outputs import OutputMismatch
from gradwatch.signals import Slot
from tests.rules.fields import anatomy, judge, xray

RANDOM = np.random.default_rng(0)
BINARY = RANDOM.integers(0, 2, (32, 1))
IDS = RANDOM.integers(0, 10, 64)
NUMBERS = RANDOM.normal(size=(32, 1))
LOGITS = {"class_name": "BinaryCrossentropy", "from_logits": True}
SPARSE = {"class_name": "SparseCategoricalCrossentropy", "from_logits": True}


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _told(facts: Any, y: Any, p: Any, **values: float) -> Any:
    known = {Slot(name): value for name, value in values.items()}
    rows = [
        xray(step, {"inputs": NUMBERS, "targets": y, "predictions": p}, known)
        for step in (10, 20, 50)
    ]
    return judge(OutputMismatch(), facts, rows)


@pytest.mark.parametrize(
    ("loss", "last", "targets", "predictions", "says"),
    [
        ("binary_crossentropy", "softmax", BINARY, 1 + 0 * BINARY, "exactly 1"),
        ("binary_crossentropy", "linear", BINARY, 2 * NUMBERS, "clips"),
        ("sparse_categorical_crossentropy", "", IDS, 3 * NUMBERS, "clips"),
        (LOGITS, "relu", BINARY, abs(NUMBERS), "below 0.5"),
        ("mse", "sigmoid", 150 + 50 * NUMBERS, _sigmoid(NUMBERS), "[0, 1]"),
        ("mae", "tanh", 5 + NUMBERS, np.tanh(NUMBERS), "[-1, 1]"),
        ("huber", "relu", NUMBERS, np.maximum(NUMBERS, 0), "above 0"),
    ],
)
def test_an_output_that_does_not_fit(
    loss: Any, last: str, targets: Any, predictions: Any, says: str
) -> None:
    """It is told once, by the second X-ray, and names the last layer."""
    (finding,) = _told(anatomy(loss, last), targets, predictions)
    assert finding.subject == "m/output"
    assert finding.last_step <= 20
    assert says in finding.message


@pytest.mark.parametrize("name", ["SparseCategorical", "Categorical"])
def test_a_softmax_over_another_axis(name: str) -> None:
    """Over places: told at once; not where the loss looks there, too."""
    scores = np.moveaxis(RANDOM.normal(size=(32, 10, 4)), 1, 2)
    wrong = np.moveaxis(_softmax(scores), 1, 2)
    loss = {"class_name": f"{name}Crossentropy", "from_logits": False}
    y: Any = RANDOM.integers(0, 4, (32, 10))
    y = np.eye(4)[y] if name == "Categorical" else y
    (finding,) = _told(anatomy(loss, "softmax", 4), y, wrong)
    assert (finding.subject, finding.last_step) == ("m/output", 10)
    assert "runs over another axis" in finding.message
    there = anatomy(loss | {"axis": 1}, "softmax", 4)
    assert _told(there, y, wrong) == []
    right = _softmax(np.moveaxis(scores, 1, 2))
    for fits in (right, 0.7 * wrong + 0.1 * right):  # a mixture of experts
        assert _told(anatomy(loss, "softmax", 4), y, fits) == []


@pytest.mark.parametrize(
    ("loss", "last", "targets", "predictions"),
    [
        ("binary_crossentropy", "sigmoid", BINARY, _sigmoid(9 * NUMBERS)),
        (LOGITS, "linear", BINARY, NUMBERS),
        ("categorical_crossentropy", "exponential", BINARY, np.exp(NUMBERS)),
        ("mse", "sigmoid", _sigmoid(NUMBERS), _sigmoid(NUMBERS)),
        ("mse", "sigmoid", 1.1 * _sigmoid(NUMBERS), _sigmoid(NUMBERS)),
        ("mse", "relu", abs(NUMBERS) - 0.1, np.maximum(NUMBERS, 0)),
        ("mse", "linear", 150 + 50 * NUMBERS, NUMBERS),
        ("hinge", "tanh", 2 * BINARY - 1, np.tanh(NUMBERS)),
        ("poisson", "exponential", 9 * BINARY, np.exp(NUMBERS)),
        ("my_loss", "tanh", 150 + 50 * NUMBERS, np.tanh(NUMBERS)),
        (None, "tanh", 150 + 50 * NUMBERS, np.tanh(NUMBERS)),
    ],
)
def test_an_output_that_fits(
    loss: Any, last: str, targets: Any, predictions: Any
) -> None:
    """Silence, also about losses of the user's own."""
    assert _told(anatomy(loss, last, 2), targets, predictions) == []


def _losses(rows: Any, twice: bool) -> dict[str, float]:
    """Losses of examples of ten classes from rows of probabilities."""
    rows = _softmax(rows) if twice else rows
    each = np.sort(-np.log(rows[np.arange(len(rows)), IDS]))
    return {
        "examples": 64.0,
        "example_loss_median": float(each[32]),
        "example_loss_max": float(each[-1]),
    }


@settings(max_examples=15)
@given(st.integers(0, 9999), st.sampled_from([0.5, 1.0, 3.0, 9.0]))
def test_probabilities_taken_as_logits(seed: int, sure: float) -> None:
    """Told where softmax is applied twice, not where Keras passes one by."""
    random = np.random.default_rng(seed)
    right = np.eye(10)[IDS] * sure
    rows = _softmax(random.normal(size=(64, 10)) * 0.7 + right)
    facts = anatomy(SPARSE, "softmax", 10)
    (finding,) = _told(facts, IDS, rows, **_losses(rows, True))
    assert "softmax" in finding.message
    assert finding.last_step == 20
    assert _told(facts, IDS, rows, **_losses(rows, False)) == []
    few = _losses(rows, True) | {"examples": 8.0}
    assert _told(facts, IDS, rows, **few) == []


def test_a_sigmoid_twice() -> None:
    """Three X-rays; one probability where a logit is expected."""
    p = _sigmoid(4 * NUMBERS)
    y = (NUMBERS > 0).astype(float)
    each = np.sort((np.log1p(np.exp(p)) - y * p)[:, 0])
    known = {"example_loss_median": each[16], "example_loss_max": each[-1]}
    facts = anatomy(LOGITS, "sigmoid")
    (finding,) = _told(facts, y, p, **known)
    assert finding.last_step == 50
    assert "sigmoid" in finding.message
    each = np.sort(-np.log(np.where(y == 1, p, 1 - p))[:, 0])
    known = {"example_loss_median": each[16], "example_loss_max": each[-1]}
    assert _told(facts, y, p, **known) == []


def test_one_unit_for_a_categorical_loss() -> None:
    """Always 0; unless a reshape makes several classes of it."""
    part = Slot("loss_component", "sparse_categorical_crossentropy")
    fields = {"targets": 0 * IDS, "predictions": 0.5 + 0 * NUMBERS}
    rows = [xray(10, fields, {part: 0.0})]
    facts = anatomy("sparse_categorical_crossentropy", "sigmoid")
    (finding,) = judge(OutputMismatch(), facts, rows)
    assert "one unit" in finding.message
    flat = Layer("m/flat", "Flatten", "")
    reshaped = anatomy("sparse_categorical_crossentropy", "sigmoid")
    object.__setattr__(reshaped, "layers", (*reshaped.layers, flat))
    assert judge(OutputMismatch(), reshaped, rows) == []


MSE = {"class_name": "MeanSquaredError"}
TWO = ("area", "benign")
UNLIKE = dict(zip(TWO, (MSE, "binary_crossentropy")))


def _heads(loss: Any, names: Sequence[str] = TWO, y: str = "") -> Any:
    """The second one gets logits; fields in an order of their own."""
    facts = anatomy(loss)
    heads = tuple(Layer(f"m/{name}", "Dense", "") for name in TWO)
    object.__setattr__(facts, "layers", (facts.layers[0], *heads))
    fields = {
        y or f"targets/{names[1]}": BINARY,
        f"predictions/{names[1]}": 2 * NUMBERS,
        f"predictions/{names[0]}": NUMBERS,
    }
    if not y:
        fields[f"targets/{names[0]}"] = NUMBERS
    return facts, fields


@pytest.mark.parametrize(
    "loss",
    [
        ["mse", "binary_crossentropy"],
        UNLIKE,
        dict(reversed(UNLIKE.items())),
        "binary_crossentropy",
        {**UNLIKE, "area": "my_loss"},
    ],
)
def test_the_output_of_several(loss: Any) -> None:
    """Each has its own loss, by name or in order; its layer is named."""
    facts, fields = _heads(loss)
    parts = [Slot("loss_component", f"{name}_loss") for name in TWO]
    rows = [xray(10, fields, dict.fromkeys(parts, 1.0))]
    (finding,) = judge(OutputMismatch(), facts, rows)
    assert finding.subject == "m/benign"


def test_outputs_in_a_nest() -> None:
    """A loss is found at the path of its output."""
    loss = {"a": {"area": "mse"}, "b": {"benign": "binary_crossentropy"}}
    names = ("a/area", "b/benign")
    facts, fields = _heads(loss, names)
    parts = [Slot("loss_component", f"{name}_loss") for name in names]
    rows = [xray(10, fields, dict.fromkeys(parts, 1.0))]
    (finding,) = judge(OutputMismatch(), facts, rows)
    assert finding.subject == "predictions/b/benign"


@pytest.mark.parametrize("y", ["", "targets"])
@pytest.mark.parametrize(
    "loss",
    [[None, "binary_crossentropy"], {"benign": "binary_crossentropy"}],
)
def test_the_only_output_that_has_a_loss(loss: Any, y: str) -> None:
    """Its component is called by the loss, and there may be no other target."""
    facts, fields = _heads(loss, ("0", "benign"), y)
    part = Slot("loss_component", "binary_crossentropy")
    (finding,) = judge(OutputMismatch(), facts, [xray(10, fields, {part: 1.0})])
    assert finding.subject == "m/benign"


def test_outputs_that_have_no_name() -> None:
    """Nobody knows which loss compares them: silence."""
    facts, fields = _heads(["mse", "binary_crossentropy"], ("0", "1"))
    parts = [Slot("loss_component", f"{name}_loss") for name in TWO]
    rows = [xray(10, fields, dict.fromkeys(parts, 1.0))]
    assert judge(OutputMismatch(), facts, rows) == []


def test_a_loss_that_is_only_named_like_one_of_keras() -> None:
    """The Anatomy tells a function of the user's from Keras' own."""

    def mse(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(y_pred - y_true)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    named = []
    for loss in (mse, keras.losses.mean_squared_error, "mse"):
        model.compile("sgd", loss)
        named.append(read_anatomy(model, 0, "").loss)
    assert named == [f"{__name__}.mse", "mean_squared_error", "mse"]
