"""What was told to two runs, or found there: what differs of it.

Of the Anatomy, versions, labels and host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwatch.compare.names import uncounted
from gradwatch.records import Anatomy, Variable
from gradwatch.runstate import Snapshot

__all__ = ["Pair", "setup", "weights"]

_FACTS = ("mode", "loss", "metrics", "optimizer", "planned_steps")
_POLICY = ("max_skips", "max_rollbacks", "rollback_factor")
_MODEL = ("model", "layer", "variable")
_ORDER = ("host", "versions", "labels", *_FACTS, *_POLICY, *_MODEL)
_SCALE = 1e-5  # relative; by how much norms of the same weights may differ


@dataclass(frozen=True, slots=True)
class Pair:
    """Something of both runs.

    Attributes:
        name: what it is.
        values: in the first run and in the other one; `None` = not there.
    """

    name: str
    values: tuple[Any, Any]


def setup(
    runs: tuple[Snapshot, Snapshot],
    anatomies: tuple[Anatomy, Anatomy],
    named: Callable[[str], str],
) -> list[Pair]:
    """Returns what differs, in the order: where, how, what.

    Names are dotted, `optimizer.learning_rate`; those of layers and variables
    are `layer.` and `variable.` before their paths.

    Args:
        runs: what `state.json` says of each.
        anatomies: facts about the models.
        named: see `names`.
    """
    a = dict(_flat(_told(runs[0]["run"], anatomies[0], str)))
    b = dict(_flat(_told(runs[1]["run"], anatomies[1], named)))
    pairs = [Pair(name, (a.get(name), b.get(name))) for name in {**a, **b}]
    found = sorted(filter(_differs, pairs), key=_place)
    other = {p.name.rpartition(".")[0] for p in found if _is_class(p)}
    return [
        pair
        for pair in found
        if pair.name.rpartition(".")[0] not in other
        or _is_class(pair)
        or None not in pair.values
    ]


def _is_class(pair: Pair) -> bool:
    """Whether it says what something is; its options are another one's then."""
    return pair.name.endswith(".class_name")


def _place(pair: Pair) -> int:
    return _ORDER.index(pair.name.partition(".")[0])


def _told(
    run: Mapping[str, Any], anatomy: Anatomy, named: Callable[[str], str]
) -> dict[str, Any]:
    """Returns what was told to a run; names of layers are no dotted ones."""
    return {
        "host": run["host"],
        "versions": run.get("versions", {}),
        "labels": run.get("labels", {}),
        **{name: getattr(anatomy, name) for name in _FACTS + _POLICY},
        "model": anatomy.model,
        "layer": {
            named(each.path): f"{each.kind} {each.activation}".strip()
            for each in anatomy.layers
        },
        "variable": {
            named(each.path): _variable(each) for each in anatomy.variables
        },
    }


def _variable(each: Variable) -> str:
    shape = "x".join(map(str, each.shape)) or "scalar"
    fixed = "" if each.trainable else ", not trainable"
    return f"{shape} {each.dtype}{fixed}"


def _flat(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, Sequence) and not isinstance(data, str):
        yield name, ", ".join(map(str, data))
    elif data != {}:
        yield name, data


def _differs(pair: Pair) -> bool:
    """Whether it does, beyond what an older gradwatch has not told."""
    if None in pair.values and pair.name.startswith("mode."):
        return False
    if pair.name == "optimizer.name":  # its class says it
        return False
    one, other = pair.values
    if pair.name.rpartition(".")[2] in ("name", "model"):
        one, other = uncounted(str(one)), uncounted(str(other))
    return bool(one != other)


def weights(
    one: Anatomy, other: Anatomy, named: Callable[[str], str]
) -> list[Pair]:
    """Returns variables whose scales at install differ beyond rounding."""
    scales = {named(each.path): each.scale for each in other.variables}
    return [
        Pair(each.path, (each.scale, scale))
        for each in one.variables
        if (scale := scales.get(each.path)) is not None
        and abs(each.scale - scale) > _SCALE * max(each.scale, scale)
    ]
