"""Audit: proves a custom loss, activation, layer or backward pass.

`kinds.py` makes a `Subject` (`subject.py`) of whatever is given; `checks.py`
lists the checks: each is `check(subject)` and yields what it found
(`report.py`). Which module does what is in CONTRIBUTING, Layout.

This module and `report.py` load neither Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwatch.audit.report import AuditFinding, AuditReport, Measurement
from gradwatch.records import Severity

__all__ = [
    "AuditFinding",
    "AuditReport",
    "Measurement",
    "assert_trainable",
    "audit",
]


def audit(
    fn_or_layer_or_loss: Any,
    *,
    inputs: Any = None,
    dtypes: Sequence[str] = ("float32", "float16", "bfloat16"),
    seed: int = 0,
    second_order: bool = False,
) -> AuditReport:
    """Proves the gradients of a function before a run depends on them.

    Whether the gradient is that of the value: it is compared with differences
    of the value, in float64 where the code allows it. Whether there is one: the
    operation and the source line that cut it, and the share of inputs with a
    slope. Whether value and gradient are finite where numerics break, in graph
    mode, under XLA and eagerly: the operation and the line that make NaN or
    Inf, constants that float32 swallows. Whether it makes sense: a loss is
    least at its target, mixes no examples and honours their weights; a stack of
    an activation neither makes gradients vanish nor explode; no term of a sum
    (`component`) outweighs the others by decades. The object itself stays as it
    is.

    Args:
        fn_or_layer_or_loss: a loss `(y_true, y_pred)` or `keras.losses.Loss`;
            an activation (one tensor); a `keras.Layer`, with its weights; a
            compiled `keras.Model` with `inputs=(x, y)`; a `tf.function`.
        inputs: what it takes, by name of the argument: an array
            `[examples, ...]`, a shape `(4, 3)`, a shape and a range
            `((4, 3), (0, 1))`, or text `"4x3/0..1"`; batch size first. For one
            argument it may stand alone. Without it, what the function takes is
            found by trying.
        dtypes: in which it is also looked at.
        seed: of the points that are drawn.
        second_order: whether it is differentiated twice, as by a penalty on
            gradients.

    Raises:
        GradWatchError: it is nothing of these, or cannot be called.
    """
    from gradwatch.audit.checks import run

    return run(fn_or_layer_or_loss, inputs, tuple(dtypes), seed, second_order)


def assert_trainable(
    fn_or_layer_or_loss: Any,
    *,
    inputs: Any = None,
    dtypes: Sequence[str] = ("float32", "float16", "bfloat16"),
    seed: int = 0,
    second_order: bool = False,
    fail_on: Severity = "warning",
) -> None:
    """Fails a test if an audit finds something.

    Args:
        fn_or_layer_or_loss: see `audit`.
        inputs: see `audit`.
        dtypes: see `audit`.
        seed: see `audit`.
        second_order: see `audit`.
        fail_on: the least severity that fails.

    Raises:
        AssertionError: with the report's text.
        GradWatchError: see `audit`.
    """
    report = audit(
        fn_or_layer_or_loss,
        inputs=inputs,
        dtypes=dtypes,
        seed=seed,
        second_order=second_order,
    )
    if report.fails(fail_on):
        raise AssertionError(f"\n{report}")
