"""A recorded run is judged again as it was live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwatch import GradWatch, GradWatchError, default_rules
from gradwatch.cli import app
from gradwatch.records import (
    Anatomy,
    Block,
    Epoch,
    Finding,
    Record,
    Schema,
)
from gradwatch.replay import read_recording, replay
from gradwatch.strict_json import dumps
from tests.models import classifier, data, fit


class Told:
    """A rule that tells of all that it sees."""

    name = "told"
    severity: Any = "info"
    needs = ()
    meaning = advice = "-"

    def begin(self, anatomy: Anatomy, schema: Schema) -> None:
        """Keeps what is to be told of."""
        trained = sum(v.trainable for v in anatomy.variables)
        self._facts = [anatomy.model, trained, schema.hash]

    def check(self, record: Record) -> Iterator[Finding]:
        """Finds each row and each Epoch."""
        if isinstance(record, Epoch):
            yield self._finding(record.step, [dumps(record)])
        elif isinstance(record, Block):
            counts = np.cumsum(record.xray) - 1
            for i, step in enumerate(record.steps.tolist()):
                row = dumps(record.values[i])
                seen = [record.times[i], row, bool(record.xray[i])]
                if record.xray[i]:
                    hists = record.histograms.items()
                    seen += [[s, h[counts[i]].tolist()] for s, h in hists]
                yield self._finding(step, seen)

    def _finding(self, step: int, seen: list[Any]) -> Finding:
        evidence = {"facts": self._facts, "seen": seen}
        info = self.severity
        return Finding("told", info, "", step, step, evidence, (), "", "")


def test_rules_see_again_what_they_saw(tmp_path: Path) -> None:
    """Every row, its X-ray and histograms, Epochs and Schemas, in order."""
    watch = GradWatch(tmp_path, rules=[Told()], xray_every_steps=10, budget=1.0)
    x, y = data(96)
    fit(classifier(), watch, epochs=2, validation_data=(x, y))
    assert len(watch.findings) == 2 * 17 + 2
    assert any(f.evidence["seen"][-1] for f in watch.findings)
    again = replay(str(watch.path), [Told()])
    assert list(map(dumps, again)) == list(map(dumps, watch.findings))


def test_findings_are_those_of_the_live_run(tmp_path: Path) -> None:
    """Those of the default rules, of a run that turns NaN; also as JSON."""
    watch = GradWatch(tmp_path)
    x, y = data()
    x[7 * 32] = np.nan
    classifier().fit(x, y, 32, callbacks=[watch], shuffle=False, verbose=0)
    assert len(watch.findings) == 1
    live = list(map(dumps, watch.findings))
    assert list(map(dumps, replay(str(watch.path), default_rules()))) == live
    done = CliRunner().invoke(app, ["judge", str(watch.path), "--json"])
    assert done.exit_code == 3
    assert done.stdout.splitlines() == live
    said = CliRunner().invoke(app, ["judge", str(watch.path)]).stdout
    assert said.startswith("critical: nonfinite_")
    assert "step 7" in said


def test_a_new_schema_begins_anew(tmp_path: Path) -> None:
    """A layer that is frozen between two fits is another Schema."""
    watch = GradWatch(tmp_path, xray_every_steps=0)
    model = classifier()
    fit(model, watch)
    model.get_layer("hidden").trainable = False
    model.compile("sgd", model.loss)
    fit(model, watch)
    assert watch.path is not None
    parts = [p for p in read_recording(watch.path) if p.opened.schema.slots]
    first, second = (part.opened.schema for part in parts)
    assert (first.first_step, second.first_step) == (0, 17)
    assert len(first.slots) > len(second.slots)
    for opened, records in parts:
        steps = [s for r in records if isinstance(r, Block) for s in r.steps]
        start = opened.schema.first_step
        assert steps == list(range(start, start + 17))
        scales = [variable.scale for variable in opened.anatomy.variables]
        assert not [scale for scale in scales if np.isnan(scale)][3:]


def test_each_phase_is_judged_by_its_own_facts(tmp_path: Path) -> None:
    """What is frozen in one, trained in the next, and then frozen again."""
    watch = GradWatch(tmp_path, rules=[Told(), *default_rules()])
    model = classifier()
    for trains in (False, True, False):
        model.get_layer("hidden").trainable = trains
        model.compile("adam", model.loss)
        fit(model, watch)
    told = [f.evidence["facts"][1] for f in watch.findings if f.rule == "told"]
    assert told == [4] * 18 + [6] * 18 + [4] * 18
    assert watch.path is not None
    again = replay(watch.path, [Told(), *default_rules()])
    assert list(map(dumps, again)) == list(map(dumps, watch.findings))


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    """A folder without a run, and rules that are not there."""
    with pytest.raises(GradWatchError, match="run_dir"):
        replay(tmp_path, [])
    done = CliRunner().invoke(app, ["judge", str(tmp_path)])
    assert (done.exit_code, "run_dir" in done.output) == (1, True)
    for name in ("nothing_here:rules", "gradwatch:nothing", "gradwatch:"):
        arguments = ["judge", str(tmp_path), "--rules", name]
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, name in done.output) == (1, True)


def test_own_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a module in the working directory."""
    watch = GradWatch(tmp_path / "runs", xray_every_steps=0)
    fit(classifier(), watch)
    monkeypatch.chdir(tmp_path)
    text = "from tests.test_replay import Told\nrules = [Told()]\n"
    Path("own_rules_of_a_test.py").write_text(text)
    name = "own_rules_of_a_test:rules"
    arguments = ["judge", str(watch.path), "--json", "--rules", name]
    done = CliRunner().invoke(app, arguments)
    steps = [
        json.loads(line)["first_step"] for line in done.stdout.split("\n")[:-1]
    ]
    assert steps == [*range(17), 17]
