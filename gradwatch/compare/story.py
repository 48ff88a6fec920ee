"""Where two runs part and what that says about the cause, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradwatch.compare.comparison import Comparison
from gradwatch.compare.parting import Difference
from gradwatch.compare.rounding import SAME, Kind
from gradwatch.compare.setup import Pair
from gradwatch.drawing.words import number

__all__ = ["story", "text"]

_ELSEWHERE = ("host", "versions.", "mode.")


def story(told: Comparison) -> list[str]:
    """Returns a few sentences: whether they part, at which step, and why."""
    found = told.readings
    if found.verdict == "unknown":
        return ["No step is recorded in both."]
    if found.verdict == "same":
        return [
            f"All {found.compared} steps that both have recorded are the same "
            "to the bit."
        ]
    sentences = _rounding if found.verdict == "rounding" else _different
    return list(sentences(told))


def text(value: Any) -> str:
    """Returns a value of a run for people; `-` = there is none."""
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def _rounding(told: Comparison) -> Iterator[str]:
    found = told.readings
    sizes = [
        f"{name} by {max(sizes):.1e}"
        for name, kind in (("losses", "loss"), ("gradients", "gradient"))
        if (sizes := [d.relative for d in found.differences if d.kind == kind])
    ]
    yield (
        f"They differ by rounding from step {found.unequal} on"
        f"{', at first ' if sizes else ''}{' and '.join(sizes)}."
    )
    if found.percent >= 0:
        yield (
            "The difference has grown from step to step, and by no more than "
            "rounding does: the loss differs by more than 1 % from step "
            f"{found.percent} on."
        )
    else:
        yield "No loss differs by more than 1 %."
    if found.unequal - found.first >= SAME:
        yield (
            f"Until step {found.before} all is the same to the bit. Batches of "
            "another size have other kernels; otherwise something is different "
            f"at step {found.unequal}, however little."
        )
        return
    here = [
        _pair(pair) for pair in told.setup if pair.name.startswith(_ELSEWHERE)
    ]
    because = f" Here: {_listed(here)}." if here else ""
    yield f"Other kernels, threads, versions or machines do that.{because}"


def _different(told: Comparison) -> Iterator[str]:
    found = told.readings
    if found.before < 0:
        until = "the first that both have recorded"
    elif found.unequal == found.step:
        until = f"and are the same to the bit until step {found.before}"
    else:
        until = (
            f"and differ by no more than rounding from step {found.unequal} "
            f"until step {found.before}"
        )
    yield f"They part at step {found.step}, {until}."
    if found.before >= 0 and found.step - found.before > 1:
        yield "The steps between are not recorded in both."
    yield from _why(told)
    if found.effect > found.step:
        yield f"Losses and gradients differ from step {found.effect} on."
    elif found.effect < 0:
        yield "Losses and gradients do not."


def _why(told: Comparison) -> Iterator[str]:
    """Yields what the first difference says about its cause."""
    found = told.readings
    begins = found.before < 0
    kinds = {difference.kind for difference in found.differences}
    unlike = list(_other(told)) if begins else []
    yield from unlike
    if begins and told.models:
        yield from _batches(told)
    elif begins and told.weights:
        scales = _listed([_pair(pair) for pair in told.weights])
        yield (
            f"They begin with other weights, by scale: {scales}. The "
            "seed differs, or none was set (`keras.utils.set_random_seed`), or "
            "weights were loaded."
        )
    elif unlike and kinds == {"loss", "gradient"}:
        yield from _batches(told)
    elif "given" in kinds:
        yield f"Their batches differ: {_of(told, 'given')}."
    elif any("nonfinite" in d.signal for d in found.differences):
        yield f"Only one of them is not finite there: {_of(told, 'exact')}."
    elif "exact" in kinds:
        yield f"First differs what was set or decided: {_of(told, 'exact')}."
    elif "loss" in kinds:
        yield from _of_loss(told)
    else:
        yield from _of_gradient(told)


def _other(told: Comparison) -> Iterator[str]:
    """Yields what is another model or loss, by the set-up."""
    for what, start in ("layers", "layer."), ("losses", "loss"):
        found = [_pair(p) for p in told.setup if p.name.startswith(start)]
        if found:
            yield f"Their {what} differ: {_listed(found)}."
    if told.models:
        yield "Their variables differ; only what both have is compared."


def _of_loss(told: Comparison) -> Iterator[str]:
    found = told.readings
    parts = _subjects(told, "loss_component")
    if parts and found.alike.get("loss_component"):
        inner = [
            f"`{part}`"
            for part in parts
            if not any(each.startswith(f"{part}/") for each in parts)
        ]
        yield f"Of the parts of the loss only this differs: {_listed(inner)}."
        raw = _subjects(told, "raw_loss_component")
        if not raw and found.alike.get("raw_loss_component"):
            yield "Before its weight it is the same: its weight differs."
    elif found.before < 0:
        yield (
            "Weights begin at the same scale; so the first batch, what is "
            "drawn at random (dropout), or how the loss is computed differs."
        )
        yield from _batches(told)
        yield from _drawn(told)
    elif _optimizer(told) and found.given < 0:
        yield (
            f"Losses and gradients of step {found.before} are the same, so the "
            f"update is not: {_listed(_optimizer(told))}."
        )
    else:
        yield from _of_step(told, "the loss is")


def _of_gradient(told: Comparison) -> Iterator[str]:
    found = told.readings
    paths = _subjects(told, "variable_gradient_norm")
    if not paths:
        yield (
            "Losses and gradients are the same, what is made of the gradients "
            f"is not: {_of(told, 'gradient')}."
        )
        return
    same = found.alike.get("variable_gradient_norm", 0)
    yield (
        "Losses differ by no more than rounding, gradients by more, on the way "
        f"back from the loss first `{paths[0]}`; those of {same} variables do "
        "not."
    )
    if found.before >= 0:
        yield from _of_step(told, "gradients are")


def _of_step(told: Comparison, what: str) -> Iterator[str]:
    """Yields what can differ in a step when all before were the same."""
    found = told.readings
    but = "" if found.unequal == found.step else " but for rounding"
    early = ", or an update before" if found.step - found.first < SAME else ""
    yield (
        f"Losses and gradients were the same{but} until here; so its batch, or "
        f"what is drawn at random in it, differs, or how {what} computed"
        f"{early}."
    )
    yield from _batches(told)


def _batches(told: Comparison) -> Iterator[str]:
    found = told.readings
    if found.given >= 0:
        yield f"Batches differ, as the X-rays of step {found.given} say."
    elif found.looked:
        yield f"Batches are the same at {found.looked} steps with X-rays."


def _drawn(told: Comparison) -> Iterator[str]:
    compiled = any(pair.name == "mode.jit_compile" for pair in told.setup)
    if compiled and told.drawing:
        yield (
            "XLA draws other random numbers than TensorFlow's kernels do: "
            f"{_listed(told.drawing)}."
        )


def _optimizer(told: Comparison) -> list[str]:
    return [
        _pair(pair) for pair in told.setup if pair.name.startswith("optimizer.")
    ]


def _subjects(told: Comparison, signal: str) -> list[str]:
    differences = told.readings.differences
    return [d.subject for d in differences if d.signal == signal]


def _of(told: Comparison, kind: Kind) -> str:
    """Names the differences of a kind with their values."""
    found = [d for d in told.readings.differences if d.kind == kind]
    return _listed([_both(_name(d), *d.values) for d in found])


def _name(difference: Difference) -> str:
    of = f" of {difference.subject}" if difference.subject else ""
    return f"{difference.signal}{of}"


def _pair(pair: Pair) -> str:
    return _both(pair.name, *pair.values)


def _both(name: str, one: Any, other: Any) -> str:
    return f"`{name}` {text(one)} and {text(other)}"


def _listed(items: list[str]) -> str:
    """Names the first ones."""
    more = len(items) - 3
    shown = ", ".join(items[:3])
    return f"{shown} and {more} more" if more > 0 else shown
