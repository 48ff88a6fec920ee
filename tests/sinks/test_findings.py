"""The file of findings, and the Markdown of one."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from gradwatch.records import Beat, Finding, Run, Schema
from gradwatch.sinks.findings import (
    FILE,
    FindingsSink,
    Texts,
    markdown,
    read_findings,
)

RUN = Run("run", "run", 1000.0, "host", {}, {})


def finding(
    first: int = 3, rule: str = "dead_layer", message: str = "Ünglück."
) -> Finding:
    """Returns a finding with evidence and causes."""
    evidence = {"norm": 1.5, "steps": [1, 2], "worst": "dense/kernel"}
    causes = ("a large learning rate",)
    return Finding(
        rule, "warning", "dense", first, 9, evidence, causes, message, "Fix."
    )


def html(text: str) -> str:
    """Returns what TensorBoard's page makes of Markdown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="html5lib's sanitizer")
        from tensorboard.plugin_util import markdown_to_safe_html
    return str(markdown_to_safe_html(text))


def test_findings_come_back(tmp_path: Path) -> None:
    """What was written is read, over two fits, in order."""
    run_dir = tmp_path / "runs" / "a"
    for part in (range(2), range(2, 4)):
        sink = FindingsSink(run_dir)
        sink.open(RUN, Schema())
        for first in part:
            sink.write(finding(first))
        sink.write(Beat(1.0, "running", 1, 2.0))
        sink.close()
        sink.close()
    assert read_findings(run_dir) == [finding(i) for i in range(4)]


def test_a_run_without_findings_has_none(tmp_path: Path) -> None:
    """No file means no findings."""
    assert read_findings(tmp_path) == []


def test_each_line_is_with_the_operating_system(tmp_path: Path) -> None:
    """A finding can be read while the sink is still open."""
    sink = FindingsSink(tmp_path)
    sink.open(RUN, Schema())
    sink.write(finding())
    assert read_findings(tmp_path) == [finding()]


def test_a_cut_last_line_is_passed_over(tmp_path: Path) -> None:
    """Wherever the last line is cut off, the findings before it are read."""
    sink = FindingsSink(tmp_path)
    sink.open(RUN, Schema())
    sink.write(finding(1))
    sink.write(finding(2))
    path = tmp_path / FILE
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert read_findings(tmp_path) == [finding(1)], cut


def test_a_cut_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    """After a cut-off line the next finding begins a line of its own."""
    sink = FindingsSink(tmp_path)
    sink.open(RUN, Schema())
    sink.write(finding(1))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    sink.write(finding(2))
    assert read_findings(tmp_path) == [finding(2)]


def test_values_that_are_not_finite_stay_readable(tmp_path: Path) -> None:
    """NaN in the evidence is written as strict JSON."""
    sink = FindingsSink(tmp_path)
    sink.open(RUN, Schema())
    evidence = {"loss": np.float32("nan"), "worst": float("-inf")}
    sink.write(Finding("r", "critical", "", 0, 0, evidence, (), "Bad.", "Fix."))
    (got,) = read_findings(tmp_path)
    assert got.evidence == {"loss": "NaN", "worst": "-Infinity"}


def test_markdown_reads_nothing_of_the_users() -> None:
    """Names with Markdown or HTML in them are shown as they are."""
    name = "a_b*c*<script>|`x`[y](http://z) # &amp; \\_"
    text = markdown(finding(message=name))
    page = html(text)
    assert "<script" not in page
    assert "<a " not in page
    assert "<code>" not in page
    assert "<em>" not in page
    shown = "a_b*c*&lt;script>|`x`[y](http://z) # &amp;amp; \\_"
    assert shown.replace(">", "&gt;") in page


def test_markdown_has_the_evidence_as_a_table() -> None:
    """Evidence is a table of names and values."""
    page = html(markdown(finding()))
    assert "<td>norm</td>\n<td>1.5</td>" in page
    assert "<td>worst</td>\n<td>dense/kernel</td>" in page
    assert "<li>a large learning rate</li>" in page


def test_texts_of_one_step_are_joined() -> None:
    """A finding that TensorBoard would replace another with holds both."""
    texts = Texts()
    assert texts.add(finding(5, message="one"))[0] == 5
    step, text = texts.add(finding(5, message="two"))
    assert step == 5
    assert "one" in text
    assert "two" in text
    step, text = texts.add(finding(4, message="earlier"))
    assert step == 5
    assert "earlier" in text
    step, text = texts.add(finding(6, message="three"))
    assert step == 6
    assert "one" not in text
    assert texts.add(finding(1, rule="other"))[0] == 1
