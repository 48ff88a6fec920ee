"""Compiled losses: what each of them compares, and what it expects.

Rules about data ask here which of Keras' losses a model was compiled with. A
loss of the user's own is unknown, and nothing is said about what it compares.
Read in Keras 3.15.1: `losses/losses.py`, `trainers/compile_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from gradwatch.records import Anatomy, Layer
from gradwatch.rules.rows import Columns, Row

__all__ = ["Compared", "Field", "activation", "compared", "field", "inner"]

_NAMES = {
    "binary": ("binary_crossentropy", "bce", "binary_focal_crossentropy"),
    "rows": ("categorical_crossentropy", "categorical_focal_crossentropy"),
    "classes": ("sparse_categorical_crossentropy",),
    "distance": (
        *("mean_squared_error", "mse", "mean_absolute_error", "mae"),
        *("huber", "log_cosh", "logcosh"),
    ),
    "hinge": ("hinge", "squared_hinge"),
    "poisson": ("poisson",),
}
_KINDS = {
    name.replace("_", ""): kind
    for kind, names in _NAMES.items()
    for name in names
}
_PASSING = (
    *("InputLayer", "Reshape", "Flatten", "Dropout", "Identity"),
    *("Permute", "ActivityRegularization", "GaussianNoise"),
)
_KEEPING = ("InputLayer", "Dropout", "Identity", "GaussianNoise")
_ACTIVATIONS = {"Softmax": "softmax", "ReLU": "relu", "ELU": "elu"}


class Compared(NamedTuple):
    """Targets and predictions that a compiled loss compares.

    Attributes:
        kind: what it expects, `""` for a loss of the user's own: `binary`
            (numbers in [0, 1] and a probability), `rows` (rows of
            probabilities), `classes` (ids and rows of probabilities),
            `distance` (numbers), `hinge` (signs), `poisson` (counts).
        name: of the loss, as the user wrote it.
        logits: whether predictions are taken as logits.
        ignored: whether one class id is left out.
        targets: the field of the batch.
        predictions: the same.
        component: path of its part of the loss.
        layer: the output's last layer that computes, `None` if unknown.
        units: of that layer, 0 if unknown.
    """

    kind: str
    name: str
    logits: bool
    ignored: bool
    targets: str
    predictions: str
    component: str
    layer: Layer | None
    units: int

    @property
    def path(self) -> str:
        """Where a finding about predictions points to."""
        return self.layer.path if self.layer else self.predictions


class Field(NamedTuple):
    """What one X-ray says about a field of the batch, NaN where unknown."""

    min: float
    max: float
    mean: float
    std: float
    distinct: float
    example_std: float
    integers: float
    unit_rows: float

    @property
    def rms(self) -> float:
        """Root mean square of the entries."""
        return math.hypot(self.mean, self.std)


def field(columns: Columns, row: Row, name: str) -> Field:
    """Returns what an X-ray says about a field of the batch."""
    signals = (
        *("min", "max", "mean", "std", "distinct", "example_std"),
        *("integer_ratio", "unit_row_ratio"),
    )
    return Field(*(columns.get(row, f"batch_{s}", name) for s in signals))


def compared(anatomy: Anatomy, columns: Columns, row: Row) -> list[Compared]:
    """Returns what the losses compare; empty if that is not clear.

    Args:
        anatomy: the model's.
        columns: of the row.
        row: of an X-ray, any.
    """
    fields = list(columns.all(row, "batch_min"))
    targets = [f for f in fields if f.split("/")[0] == "targets"]
    outputs = [f for f in fields if f.split("/")[0] == "predictions"]
    losses = _losses(anatomy.loss, len(outputs))
    if not losses or not len(targets) == len(outputs) == len(losses):
        return []
    parts = _parts(columns, row, losses)
    if len(parts) != len(outputs):
        return []
    layers = {layer.path: layer for layer in anatomy.layers}
    found = []
    for loss, y, p, part in zip(losses, targets, outputs, parts):
        last = _last(anatomy) if len(outputs) == 1 else None
        name = part.removesuffix("_loss")
        if len(outputs) > 1:
            ends = [path for path in layers if path.split("/")[-1] == name]
            last = layers[ends[0]] if len(ends) == 1 else None
        found.append(_compared(loss, y, p, part, last, _units(anatomy, last)))
    return found


def _parts(columns: Columns, row: Row, losses: list[Any]) -> list[str]:
    """The parts of the loss that compiled losses are; they may not be used."""
    if "loss_component" not in columns:
        return [""] * len(losses)
    known = [p for p in columns.all(row, "loss_component") if "/" not in p]
    if len(losses) > 1:
        return [part for part in known if part.endswith("_loss")]
    name, options = _named(losses[0])
    kind = _kind(name)
    called = options.get("name")
    return [p for p in known if p == called or _kind(p) == kind][:1]


def activation(layer: Layer | None) -> str:
    """Returns the activation of a layer, also of one that is nothing else."""
    if layer is None:
        return ""
    return layer.activation or _ACTIVATIONS.get(layer.kind, "")


def inner(anatomy: Anatomy) -> Iterator[Layer]:
    """Yields layers that compute something, in order."""
    for layer in anatomy.layers:
        if layer.kind not in _PASSING:
            yield layer


def _last(anatomy: Anatomy) -> Layer | None:
    layers = list(inner(anatomy))
    return layers[-1] if layers else None


def _units(anatomy: Anatomy, layer: Layer | None) -> int:
    """Units of a Dense layer at the very end, else 0."""
    ends = [each for each in anatomy.layers if each.kind not in _KEEPING]
    if layer is None or layer.kind != "Dense" or layer not in ends:
        return 0
    if any(each.kind in _PASSING for each in ends[ends.index(layer) :]):
        return 0
    shapes = [
        variable.shape
        for variable in anatomy.variables
        if variable.path.rpartition("/")[0] == layer.path
    ]
    return next((s[-1] for s in shapes if len(s) == 2), 0)


def _losses(loss: Any, outputs: int) -> list[Any]:
    """One loss an output; empty where it is not clear which is whose."""
    if isinstance(loss, dict) and "class_name" not in loss:
        several = list(loss.values())
        same = several and all(each == several[0] for each in several)
        return several if same and len(several) == outputs else []
    if isinstance(loss, list):
        return loss
    return [] if loss is None else [loss] * outputs


def _compared(
    loss: Any, y: str, p: str, part: str, last: Layer | None, units: int
) -> Compared:
    name, options = _named(loss)
    logits = options.get("from_logits", False) is True
    ignored = options.get("ignore_class") is not None
    return Compared(_kind(name), name, logits, ignored, y, p, part, last, units)


def _named(loss: Any) -> tuple[str, dict[str, Any]]:
    options = loss if isinstance(loss, dict) else {}
    return str(options.get("class_name", loss)), options


def _kind(name: str) -> str:
    return _KINDS.get(name.replace("_", "").lower(), "")
