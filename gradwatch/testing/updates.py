"""Programs whose updates are dropped, clipped or lost before they count."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers import Adam

from gradwatch.testing.data import cancer, diabetes
from gradwatch.testing.programs import (
    OwnStep,
    accuracy,
    classify_digits,
    dense_net,
    explained,
    fits,
    sgd,
)
from gradwatch.testing.scenario import Program, Scenario

__all__ = ["FAULTY"]


def _half(loss_scale: Any, epochs: int = 6) -> Program:
    """Digits in mixed precision; `loss_scale` wraps the optimizer."""
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = dense_net(64, [64, 64], 10, last="softmax", dtype=policy)
    adam = loss_scale(Adam(0.003))
    return classify_digits(
        model, adam, epochs=epochs, compiled={"auto_scale_loss": False}
    )


def _growing(steps: int) -> Any:
    def wrap(inner: Any) -> Any:
        optimizer = keras.optimizers.LossScaleOptimizer
        return optimizer(inner, dynamic_growth_steps=steps)

    return wrap


def _initial(scale: float) -> Any:
    def wrap(inner: Any) -> Any:
        return keras.optimizers.LossScaleOptimizer(inner, scale)

    return wrap


def _weight_norm(safe: bool, half: bool) -> Program:
    """A penalty on the norm of the last bias, which starts as 0."""

    class Norm(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            total = ops.sum(ops.square(ops.cast(x, "float32")))
            return 1e-3 * ops.sqrt(total + (1e-6 if safe else 0.0))

    kind = "mixed_float16" if half else "float32"
    policy = keras.dtype_policies.DTypePolicy(kind)
    head = {"bias_regularizer": Norm()}
    model = dense_net(30, [16], 1, last="sigmoid", dtype=policy, head=head)
    adam: Any = Adam(0.01)
    if half:
        adam = keras.optimizers.LossScaleOptimizer(adam)
    loss, judge = "binary_crossentropy", accuracy(cancer())
    return fits(model, cancer(), judge, loss=loss, optimizer=adam, epochs=6)


def _clipped(norm: float) -> Program:
    model = dense_net(64, [64], 10, last="softmax")
    return classify_digits(model, sgd(0.1, global_clipnorm=norm), epochs=10)


def _clipped_entries(value: float) -> Program:
    model = dense_net(10, [32], 1)
    judge, rate = explained(diabetes()), sgd(0.02, clipvalue=value)
    return fits(model, diabetes(), judge, loss="mse", optimizer=rate, epochs=15)


def _layer_rates(rates: dict[str, float]) -> Program:
    """Rates of their own for some layers, in a hand-written step."""

    def change(path: str, gradient: Any) -> Any:
        factor = next((f for n, f in rates.items() if n in path), 1.0)
        return factor * gradient

    model = dense_net(
        64, [32, 3], 10, activation="tanh", last="softmax", kind=OwnStep
    )
    model.change = change
    return classify_digits(model, sgd(0.3), epochs=10)


class _Stuck(keras.constraints.Constraint):
    """Puts weights onto a grid that is far too coarse."""

    def __init__(self, grid: float) -> None:
        self.grid = grid

    def __call__(self, w: Any) -> Any:
        """Returns the nearest points of the grid."""
        return ops.round(w / self.grid) * self.grid


def _quantised(grid: float) -> Program:
    """Weights are kept on a grid while they are trained."""
    options: Any = {"kernel_constraint": _Stuck(grid)}
    model = dense_net(64, [32], 10, last="softmax", head=options, **options)
    return classify_digits(model, sgd(0.05), epochs=8)


FAULTY = (
    Scenario(
        "scale_grows_at_once",
        "The loss scale grows at each good step: half of them overflow.",
        lambda: _half(_growing(1)),
        rule="skipped_updates",
        fixed=lambda: _half(_growing(2000)),
        costs=0.0,
    ),
    Scenario(
        "scale_starts_too_high",
        "The loss scale starts at 2 ** 120: a hundred updates are dropped.",
        lambda: _half(_initial(2.0**120), 5),
        rule="skipped_updates",
        fixed=lambda: _half(_initial(2.0**15), 5),
        costs=0.02,
    ),
    Scenario(
        "every_update_skipped",
        "The norm of a bias at 0 makes NaN; loss scaling drops all updates.",
        lambda: _weight_norm(False, True),
        rule="skipped_updates",
        severity="critical",
        also=("nonfinite_gradient",),
        fixed=lambda: _weight_norm(True, True),
    ),
    Scenario(
        "norm_of_zero",
        "The norm of a bias at 0: its derivative is NaN at the first step.",
        lambda: _weight_norm(False, False),
        rule="nonfinite_gradient",
        severity="critical",
        subject="output/bias",
        fixed=lambda: _weight_norm(True, False),
        within=1,
    ),
    Scenario(
        "clipped_to_nothing",
        "A global clip norm of 0.001: each step is as short as that.",
        lambda: _clipped(1e-3),
        rule="clipping_always",
        severity="info",
        also=("slow_loss", "update_too_small"),
        fixed=lambda: _clipped(10.0),
    ),
    Scenario(
        "entries_clipped_to_nothing",
        "Each entry of the gradient is clipped to 0.0005.",
        lambda: _clipped_entries(5e-4),
        rule="clipping_always",
        severity="info",
        also=("slow_loss", "update_too_small"),
        fixed=lambda: _clipped_entries(1.0),
        reaches=0.4,
    ),
    Scenario(
        "layers_with_rate_zero",
        "A rate of 0 for the first layers stayed from an experiment.",
        lambda: _layer_rates({"hidden_": 0.0}),
        rule="frozen_variable",
        subject="hidden_",
        fixed=lambda: _layer_rates({}),
    ),
    Scenario(
        "rounded_to_grid",
        "Weights are put back onto a coarse grid after each step.",
        lambda: _quantised(0.1),
        rule="frozen_variable",
        subject="kernel",
        also=("stalled_loss",),
        fixed=lambda: _quantised(1e-4),
    ),
)
