"""What every rule and every signal must keep, also the ones to come."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.interfaces import Rule
from gradwatch.records import (
    Anatomy,
    Beat,
    Block,
    Finding,
    Schema,
    Variable,
)
from gradwatch.rules import default_rules
from gradwatch.signals import (
    HISTOGRAM_EDGES,
    SIGNALS,
    Slot,
    prometheus_name,
    tag,
)
from gradwatch.strict_json import dumps
from tests.models import classifier, data

RULES = [type(rule) for rule in default_rules()]
_SNAKE = re.compile(r"[a-z]+(_[a-z]+)*")


def _slots() -> tuple[Slot, ...]:
    subject = {"run": "", "variable": "a/kernel", "layer": "a"}
    return tuple(
        Slot(s.name, subject[s.scope])
        for s in SIGNALS.values()
        if s.scope in subject and not s.histogram
    )


def _anatomy() -> Anatomy:
    return Anatomy(
        variables=(Variable("a/kernel", (2, 2), "float32", True, 1.0),)
    )


@pytest.mark.parametrize("kind", RULES, ids=lambda k: k.__name__)
def test_a_rule_is_named_three_times_the_same(kind: type[Rule]) -> None:
    """Class, name and needs fit; meaning and advice are sentences."""
    rule = kind()
    camel = "".join(word.title() for word in rule.name.split("_"))
    assert camel == kind.__name__
    assert rule.severity in ("info", "warning", "critical")
    assert set(rule.needs) <= set(SIGNALS)
    assert rule.meaning.endswith(".")
    assert rule.advice.endswith(".")
    assert "Definition" in (kind.__doc__ or "")


def _healthy(schema: Schema) -> Block:
    """A falling noisy loss with finite norms; every 50th step is an X-ray."""
    random = np.random.default_rng(0)
    values = np.exp(-np.arange(500) / 100)[:, None] * random.lognormal(
        0, 0.2, (500, len(schema.slots))
    )
    for place, slot in enumerate(schema.slots):
        if SIGNALS[slot.signal].unit == "flag":
            values[:, place] = slot.signal == "update_applied"
        elif SIGNALS[slot.signal].unit == "ratio":
            values[:, place] = 1.0 if slot.signal == "clip_factor" else 0.1
        elif slot.signal in ("layer_nonfinite", "rollback_steps"):
            values[:, place] = 0.0
    steps = np.arange(500)
    xray = steps % 50 == 0
    values[np.ix_(~xray, schema.xray)] = np.nan
    counts = np.full((int(xray.sum()), len(HISTOGRAM_EDGES) + 1), 7)
    return Block(
        steps,
        steps.astype(float),
        values.astype(np.float32),
        xray,
        {Slot("gradient_histogram", "a/kernel"): counts},
    )


@pytest.mark.parametrize("kind", RULES, ids=lambda k: k.__name__)
def test_a_rule_is_silent_on_a_healthy_run(kind: type[Rule]) -> None:
    """A falling noisy loss with finite norms makes no finding, twice."""
    schema = Schema(_slots())
    block = _healthy(schema)
    for _ in range(2):
        rule = kind()
        rule.begin(Anatomy(), Schema())
        rule.begin(_anatomy(), schema)
        found: list[Finding] = []
        for record in (
            Block.empty(len(schema.slots)),
            Beat(0.0, "running", 0, 1.0),
            block,
            Beat(60.0, "running", 500, 61.0),
            Beat(61.0, "finished", 500, 0.0),
        ):
            found += rule.check(record)
        assert found == []


def _broken(schema: Schema, places: list[int]) -> list[Block]:
    """A run that breaks, cut at these places."""
    whole = _healthy(schema)
    whole.values[200:300] *= 1e-20
    whole.values[330:340] = np.nan
    whole.values[430:] *= 1e20
    return [
        whole.rows((whole.steps >= a) & (whole.steps < b))
        for a, b in pairwise(places)
    ]


@pytest.mark.parametrize("kind", RULES, ids=lambda k: k.__name__)
@settings(deadline=None)
@given(cuts=st.sets(st.integers(0, 500)))
def test_a_rule_does_not_depend_on_cuts(
    kind: type[Rule], cuts: set[int]
) -> None:
    """What is found in a run that breaks is the same however it was cut."""
    schema = Schema(_slots())
    found = []
    for places in ([0, 500], [0, *sorted(cuts), 500]):
        rule = kind()
        rule.begin(_anatomy(), schema)
        parts = _broken(schema, places)
        found.append([dumps(f) for part in parts for f in rule.check(part)])
    assert found[0] == found[1]


def test_rules_find_together_what_they_find_alone() -> None:
    """What they share belongs to one run, and each may ask for it first."""
    schema = Schema(_slots())
    parts = _broken(schema, [0, 90, 335, 500])
    for order in (1, -1):
        together = default_rules()[::order]
        alone = [type(rule)() for rule in together]
        found = []
        for rules in (together, alone):
            for rule in rules:
                rule.begin(_anatomy(), schema)
            found.append(
                [dumps(f) for p in parts for r in rules for f in r.check(p)]
            )
        assert found[0] == found[1] != []


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_has_good_names(signal: str) -> None:
    """Snake case for TensorBoard and Prometheus, and one full sentence."""
    assert _SNAKE.fullmatch(signal)
    assert tag(Slot(signal, "x/y")) == f"{signal}/x/y"
    assert re.fullmatch(r"gradwatch_[a-z_]+", prometheus_name(signal))
    assert SIGNALS[signal].meaning.endswith((".", ")."))
    assert SIGNALS[signal].name == signal


def test_probes_yield_what_rules_need(tmp_path: object) -> None:
    """A real fit measures every signal that a default rule asks for."""
    from pathlib import Path

    from gradwatch import GradWatch
    from tests.capture.test_fit import Recorder

    recorder = Recorder()
    x, y = data()
    path = Path(str(tmp_path))
    watch = GradWatch(path, sinks=[recorder], on_nonfinite="rollback")
    model = classifier()
    optimizer = keras.optimizers.Adam(global_clipnorm=1.0)
    model.compile(optimizer, model.loss)
    model.fit(x, y, verbose=0, callbacks=[watch])
    measured = {slot.signal for slot in recorder.schema.slots}
    for rule in default_rules():
        assert set(rule.needs) <= measured
    assert measured <= set(SIGNALS)


def test_records_become_strict_json() -> None:
    """NaN and the infinities are strings; a Finding comes back equal."""
    evidence = {"loss": float("nan"), "top": float("-inf"), "n": np.int64(3)}
    finding = Finding("a", "info", "s", 1, 2, evidence, ("data",), "said", "do")
    text = dumps(finding)
    data = json.loads(text, parse_constant=lambda c: pytest.fail(c))
    assert data["evidence"] == {"loss": "NaN", "top": "-Infinity", "n": 3}
    assert Finding.from_json(data).causes == ("data",)
