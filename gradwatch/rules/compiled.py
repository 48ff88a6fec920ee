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

__all__ = [
    "Compared",
    "Field",
    "activation",
    "compared",
    "field",
    "inner",
    "without_loss",
]

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
_FIELDS = ("targets", "predictions")
_KEEPING = ("InputLayer", "Dropout", "Identity", "GaussianNoise")
_ACTIVATIONS = {"Softmax": "softmax", "ReLU": "relu", "ELU": "elu"}


class Compared(NamedTuple):
    """Targets and predictions that a compiled loss compares.

    Attributes:
        kind: what it expects, `""` for a loss of the user's own: `binary`
            (numbers in [0, 1] and a probability), `rows` (rows of
            probabilities), `classes` (ids and rows of probabilities),
            `distance` (numbers), `hinge` (signs), `poisson` (counts); `""` also
            where classes are not on the last axis.
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
    fields = columns.subjects("batch_min")
    targets, outputs = (_by_output(fields, f) for f in _FIELDS)
    if [*outputs] == [*targets] == [""]:
        loss, last = _only(anatomy.loss), _last(anatomy)
        part = _part(columns, loss)
        if loss is None or part is None:
            return []
        fit = _compared(loss, *_FIELDS, part, last, _units(anatomy, last))
        return [fit]
    found = []
    several = list(_several(anatomy.loss, columns, list(outputs)))
    for name, loss, part in several:
        y = targets.get(name if len(targets) > 1 or len(several) > 1 else "")
        p = outputs.get(name)
        if y and p:
            last = _called(anatomy, name)
            units = _units(anatomy, last)
            found.append(_compared(loss, y, p, part, last, units))
    return found


def _by_output(fields: list[str], kind: str) -> dict[str, str]:
    """Returns output -> its field, `""` for the only one."""
    cut = [field.partition("/") for field in fields]
    return {name: f"{of}{slash}{name}" for of, slash, name in cut if of == kind}


def _several(
    loss: Any, columns: Columns, outputs: list[str]
) -> Iterator[tuple[str, Any, str]]:
    """Yields output, loss and component, of those that are clear.

    Keras calls the component of an output by its name. If only one output has
    a loss, it is called by the loss.
    """
    known = columns.subjects("loss_component")
    parts = [p for p in known if p.endswith("_loss")]
    parts = [p for p in parts if p.rpartition("/")[0] not in known]
    names = [part.removesuffix("_loss") for part in parts]
    measured = "loss_component" in columns
    if not measured or not names:
        names = [name for name in outputs if not name.isdigit()]
        parts = [""] * len(names)
    losses = _losses(loss, names)
    if measured and len(losses) == len(names) == 1:
        parts = [p for p in [_part(columns, losses[names[0]])] if p is not None]
    for name, part in zip(names, parts):
        if name in losses:
            yield name, losses[name], part


def _losses(loss: Any, names: list[str]) -> dict[str, Any]:
    """Returns output -> its loss; without those where that is not clear.

    Args:
        loss: as the user wrote it: one for all, a list, or a dict, nested
            where the outputs are.
        names: of the outputs that have a loss, in the order of a list.
    """
    if isinstance(loss, list):
        given = [each for each in loss if each is not None]
        clear = len(given) == len(names) and not any(map(_nested, given))
        return dict(zip(names, given)) if clear else {}
    if _nested(loss):
        found = {name: _at(loss, name) for name in names}
    else:
        found = dict.fromkeys(names, loss)
    return {name: each for name, each in found.items() if each is not None}


def _at(loss: Any, name: str) -> Any:
    """The loss at a path of keys, `None` if none is there."""
    at = loss.get(name)
    for key in name.split("/") if at is None else ():
        loss = at = loss.get(key) if _nested(loss) else None
    return None if _nested(at) or isinstance(at, list) else at


def without_loss(loss: Any) -> list[str]:
    """Returns the outputs that were given `None` as a loss, by name."""
    given = loss.items() if _nested(loss) else ()
    return [name for name, each in given if each is None]


def _nested(loss: Any) -> bool:
    """Whether it holds losses by name, and is not the configuration of one."""
    return isinstance(loss, dict) and "class_name" not in loss


def _only(loss: Any) -> Any:
    """The loss of a model with one output."""
    given = list(loss.values()) if _nested(loss) else loss
    if not isinstance(given, list):
        return given
    return given[0] if len(given) == 1 and not _nested(given[0]) else None


def _part(columns: Columns, loss: Any) -> str | None:
    """The component that the only compiled loss is; it may not be used."""
    if "loss_component" not in columns:
        return ""
    name, options = _named(loss)
    kind, called = _kind(name), options.get("name")
    for part in columns.subjects("loss_component"):
        if "/" not in part and (part == called or _kind(part) == kind):
            return part
    return None


def _called(anatomy: Anatomy, name: str) -> Layer | None:
    """The layer of that name, if there is just one."""
    ends = [la for la in anatomy.layers if la.path.split("/")[-1] == name]
    return ends[0] if len(ends) == 1 else None


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


def _compared(
    loss: Any, y: str, p: str, part: str, last: Layer | None, units: int
) -> Compared:
    name, options = _named(loss)
    logits = options.get("from_logits", False) is True
    ignored = options.get("ignore_class") is not None
    kind = _kind(name) if options.get("axis", -1) == -1 else ""
    return Compared(kind, name, logits, ignored, y, p, part, last, units)


def _named(loss: Any) -> tuple[str, dict[str, Any]]:
    options = loss if isinstance(loss, dict) else {}
    return str(options.get("class_name", loss)), options


def _kind(name: str) -> str:
    return _KINDS.get(name.replace("_", "").lower(), "")
