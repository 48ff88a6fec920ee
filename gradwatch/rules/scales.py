"""Scales: inputs or targets so large or small that they keep from learning.

A scale far from one is no evidence: many programs learn from raw pixels. What
is told here has not learned anything, and its scale explains why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradwatch.records import Anatomy, Finding, Record, Schema, Severity
from gradwatch.rules.compiled import activation, inner
from gradwatch.rules.looks import Looks, Seen
from gradwatch.rules.rows import xrays

__all__ = ["UnscaledInput", "UnscaledTarget"]

_LARGE = 10.0
_SMALL = 0.01
_PATIENCE = 3.0
_KERNELS = ("Dense", "Conv1D", "Conv2D", "Conv3D")
_ADAPTIVE = ("Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Lion")


class UnscaledTarget:
    """Targets are so large, or so small, that predictions do not get there.

    Definition: the loss of an output is a distance (squares, absolute errors,
    Huber), its last layer has no activation, half of the planned steps are over
    (1,000 if that is unknown), and in no X-ray so far the loss was below 95 %
    of `component_constant_loss`. And either the root mean square of the targets
    is at least 10, that of the predictions is below half of it, and at the
    speed of the last two X-rays it will not get there in three times the steps
    that are left; or that of the targets is at most 0.01, the loss is at least
    twice the constant's, and at the speed at which it fell in the last three
    X-rays it will not be as low in three times the steps left. Threshold:
    whatever the scale, who can do no better than a constant after half of the
    training has learned nothing; three times lets predictions grow with the
    square of the steps, as two layers do that grow together (2 would do). Adam
    moves a weight by about the learning rate in a step, whatever the gradient
    (Kingma and Ba 2015, 2.1): so a target of 346 with a rate of 0.001 is far
    away. Told once.
    """

    name = "unscaled_target"
    severity: Severity = "warning"
    needs = ("batch_mean", "batch_std", "component_constant_loss")
    meaning = "The scale of the targets keeps predictions from reaching them."
    advice = (
        "Standardise the targets (subtract the mean, divide by the standard "
        "deviation) and undo that on predictions."
    )

    def __init__(self) -> None:
        self._looks = Looks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._looks.begin(anatomy, schema)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record):
            for seen in self._looks.take(row):
                linear = activation(seen.pair.layer) in ("", "linear")
                distance = seen.pair.kind == "distance" and linear
                if distance and seen.useless and not self._told:
                    yield from self._judge(seen)

    def _judge(self, seen: Seen) -> Iterator[Finding]:
        before, look = seen.seen[-2:]
        sizes = [each.targets.rms for each in seen.seen]
        size = min(sizes)
        if max(sizes) > _LARGE * size:
            return  # not a scale, but single values
        steps = look.step - before.step
        reach = _PATIENCE * seen.left
        now, then = look.predictions.rms, before.predictions.rms
        if size >= _LARGE and now < size / 2:
            far = not now + (now - then) * reach / steps >= size
        elif size <= _SMALL and look.loss >= 2 * look.constant:
            far = not seen.arrives(reach)
        else:
            return
        if not far:
            return
        self._told = True
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject=seen.pair.targets,
            first_step=seen.seen[0].step,
            last_step=look.step,
            evidence={
                **seen.evidence,
                "targets_rms": size,
                "predictions_rms": now,
                "predictions_rms_before": then,
            },
            causes=("unscaled_target",),
            message=(
                f"{seen.story} The targets are around {size:.3g}, the "
                f"predictions around {now:.3g}, and were around {then:.3g} "
                f"{steps} steps before."
            ),
            advice=self.advice,
        )


class UnscaledInput:
    """Inputs are so large, or so small, that the first layer cannot learn.

    Definition: the first layer with weights is Dense or a convolution (no
    embedding, no normalisation before it) of d inputs to a unit, whose root
    mean square is r. Half of the planned steps are over (1,000 if that is
    unknown), in no X-ray the loss was below 95 % of `component_constant_loss`,
    and at the speed at which it fell in the last three it will not get there
    in three times the steps that are left. And the scale explains it: one step
    of gradient descent with rate a changes the output of a unit, for a unit
    gradient, by `a d r^2` (by `a d r` with Adam and its kin, whose steps do not
    depend on the gradient's size). That is at least 20
    (10), with r at least 10, and would be at most 2 (1) if r were 1: beyond 2
    gradient descent overshoots by more than it corrects. Or r is at most 0.01
    and that times all steps so far is at most 0.1 and would be at least 1.
    Silent where the optimizer clips or is another one, and with several
    outputs: one that learns speaks against it. Told once.
    """

    name = "unscaled_input"
    severity: Severity = "warning"
    needs = ("batch_mean", "batch_std", "component_constant_loss")
    meaning = "The scale of the inputs keeps the first layer from learning."
    advice = (
        "Standardise each input column, or put a `Normalization` or "
        "`Rescaling` layer first; images: divide by 255."
    )

    def __init__(self) -> None:
        self._looks = Looks()
        self._told = False

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """See `Rule`."""
        self._looks.begin(anatomy, schema)
        options = anatomy.optimizer
        self._adaptive = options.get("class_name") in _ADAPTIVE
        clips = ("clipnorm", "clipvalue", "global_clipnorm")
        self._known = self._adaptive or options.get("class_name") == "SGD"
        self._known &= not any(options.get(name) for name in clips)
        momentum = options.get("momentum") or 0.0
        self._gain = 1.0 if self._adaptive else 1 / (1 - min(momentum, 0.99))
        self._fan = _fan(anatomy)

    def check(self, record: Record) -> Iterator[Finding]:
        """See `Rule`."""
        for row in xrays(record) if self._known and self._fan else ():
            for seen in self._looks.take(row):
                if seen.pair.predictions != "predictions" or self._told:
                    continue
                if seen.useless and not seen.arrives(_PATIENCE * seen.left):
                    yield from self._judge(seen)

    def _judge(self, seen: Seen) -> Iterator[Finding]:
        look = seen.seen[-1]
        size = look.inputs.rms
        scaled = look.rate * self._fan * self._gain
        step = scaled * size ** (1 if self._adaptive else 2)
        limit = 1.0 if self._adaptive else 2.0
        large = size >= _LARGE and step >= 10 * limit and scaled <= limit
        little = step * look.step <= 0.1 and scaled * look.step >= 1
        if not large and not (size <= _SMALL and little):
            return
        self._told = True
        yield Finding(
            rule=self.name,
            severity=self.severity,
            subject="inputs",
            first_step=seen.seen[0].step,
            last_step=look.step,
            evidence={
                **seen.evidence,
                "inputs_rms": size,
                "inputs_min": look.inputs.min,
                "inputs_max": look.inputs.max,
                "learning_rate": look.rate,
                "change_in_a_step": step,
                "change_if_scaled": scaled,
            },
            causes=("unscaled_input",),
            message=(
                f"{seen.story} The inputs go from {look.inputs.min:.3g} "
                f"to {look.inputs.max:.3g} (around {size:.3g}), so that a step "
                f"changes the first layer {step / scaled:.2g} times as much as "
                "with inputs around 1."
            ),
            advice=self.advice,
        )


def _fan(anatomy: Anatomy) -> int:
    """Inputs of a unit of the first layer, 0 if that is not one with a kernel.

    An embedding or a normalisation anywhere makes it unclear which inputs the
    kernel sees.
    """
    first = next(inner(anatomy), None)
    if first is None or first.kind not in _KERNELS:
        return 0
    if any(layer.kind == "Embedding" for layer in anatomy.layers):
        return 0
    for variable in anatomy.variables:
        mine = variable.path.rpartition("/")[0] == first.path
        if mine and len(variable.shape) > 1 and variable.trainable:
            return math.prod(variable.shape[:-1])
    return 0
