"""How findings tell why variables have no gradient, the same in every rule."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from gradwatch.records import Cut, CutKind

__all__ = ["FROZEN", "advice", "place", "plain", "reason"]

FROZEN: tuple[CutKind, ...] = ("unapplied", "unasked")
"""The train step does not ask what these could learn, or does not heed it."""

_LONG = 80
"""So much of a source line is quoted; the evidence holds all of it."""

_ADVICE: dict[CutKind, str] = {
    "argmax": "An index has no derivative. Use a smooth surrogate as the loss, "
    "cross-entropy for instance, and keep this one as a metric.",
    "assigned": "Set `trainable = False` on what the step assigns itself.",
    "cast": "Keep floats on the whole way to the loss: whole numbers and "
    "booleans have no derivative.",
    "comparison": "A comparison has no derivative. Use a smooth surrogate: a "
    "sigmoid of the difference, or cross-entropy as the loss.",
    "not_differentiable": "Use an operation that has a derivative, or "
    "`tf.custom_gradient` to give it one.",
    "numpy_function": "Write it in operations of TensorFlow or `keras.ops`: "
    "TensorFlow cannot differentiate NumPy code.",
    "round": "Rounding and signs are flat wherever they are smooth. Leave them "
    "out of the loss and use them for metrics and predictions; binarised "
    "weights or codes need a straight-through estimator: "
    "`w + stop_gradient(sign(w) - w)`.",
    "stop_gradient": "Remove it. If it is meant, set `trainable = False` on "
    "the layers behind it, or add a loss that they are to learn from.",
    "unapplied": "Hand them to the optimizer with the others, in "
    "`optimizer.apply`, or set `trainable = False` on their layers.",
    "unasked": "Add them to the sources of `tape.gradient`, or set "
    "`trainable = False` on their layers.",
    "unrecorded": "Run the whole forward pass inside of "
    "`with tf.GradientTape() as tape:`.",
    "unused": "Let the layer's output reach the loss, or remove the layer.",
}


def advice(cut: Cut) -> str:
    """Returns what a practitioner would do about a cut."""
    return _ADVICE[cut.kind]


def plain(cut: Cut) -> dict[str, Any]:
    """Returns a cut as evidence."""
    return {**asdict(cut), "variables": list(cut.variables)}


def place(cut: Cut) -> str:
    """Returns operation, layer and source line, as far as they are known."""
    known = [f"in layer {cut.layer}"] if cut.layer else []
    if cut.file:
        line = f"{PurePath(cut.file).name}:{cut.line}"
        text = cut.code
        if len(text) > _LONG:
            text = f"{text[: _LONG - 3]}..."
        code = f": `{text}`" if text else ""
        known.append(f"in {cut.function} ({line}{code})")
    where = ", ".join(known)
    return f"`{cut.operation}` {where}".strip() if cut.operation else where


def reason(cut: Cut) -> str:
    """Returns why variables have no gradient, or 0: a main clause."""
    where = place(cut)
    used = f"; they are first used {where}" if where else ""
    if cut.kind == "unasked":
        return "the train step takes no gradient of them"
    if cut.kind == "unapplied":
        return "the train step hands their gradient to no optimizer"
    if cut.kind == "assigned":
        return "the train step assigns them itself"
    if cut.kind == "unused":
        return f"nothing that is computed from them reaches the loss{used}"
    if cut.kind == "unrecorded":
        return f"no tape has recorded the way from them to the loss{used}"
    if cut.kind == "stop_gradient":
        return f"{where} stops it on the way from the loss"
    if cut.zero:
        return f"{where} has a derivative of 0 everywhere"
    return f"{where} has no derivative"
