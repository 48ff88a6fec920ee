"""The pages as HTML, over real HTTP."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch.runstate import RunState
from gradwatch.service.options import Options
from gradwatch.service.pages import _PROBLEMS
from gradwatch.service.runs import REASONS, Runs
from gradwatch.strict_json import dumps
from tests.service.test_app import ask

NewState = Callable[..., RunState]
Save = Callable[[Path, RunState], Path]
ServeRuns = Callable[..., str]

EVIL = "\"><script>boom()</script>`<img src=x onerror='boom()'>`\n&{{7*7}}"


class Page(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        """Keeps an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keeps a text."""
        self.text += data


def page(url: str, path: str = "/") -> Page:
    """Returns a page, after checks that hold for all of them."""
    answer = ask(url, path)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    found = Page(answer.body.decode())
    for tag, attributes in found.tags:
        assert not [a for a in attributes if a.startswith("on") or a == "style"]
        assert tag != "style"
        for name in ("src", "href"):
            if tag != "a" and name in attributes:
                assert re.match(r"(\.\./)?static/\w", attributes[name] or "")
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert [s["src"] for s in scripts] in (
        ["static/gradwatch.js"],
        ["../static/gradwatch.js"],
    )
    return found


def evil(state: RunState) -> dict[str, Any]:
    """Returns a snapshot whose every text is an attack."""
    snapshot = state.snapshot()
    finding = {
        "rule": EVIL,
        "severity": "critical",
        "subject": EVIL,
        "first_step": 1,
        "last_step": 2,
        "evidence": {EVIL: EVIL},
        "causes": [EVIL],
        "message": EVIL,
        "advice": EVIL,
    }
    run = {**snapshot["run"], "name": EVIL, "host": EVIL}
    run |= {"labels": {EVIL: EVIL}, "versions": {EVIL: EVIL}}
    history = {
        "steps": [1, 2],
        "series": [
            ["loss", "", [1.0, 2.0]],
            ["loss_component", EVIL, [1.0, "NaN"]],
            ["variable_gradient_norm", f"{EVIL}/kernel", [1.0, 2.0]],
        ],
    }
    counters = snapshot["counters"] | {
        "nonfinite": [[EVIL, EVIL, 3]],
        "variable_nonfinite": [[EVIL, 3]],
        "findings": [[EVIL, "critical", 1]],
        "last_nonfinite_step": 1,
    }
    return {
        **snapshot,
        "run": run,
        "model": EVIL,
        "optimizer": EVIL,
        "reason": EVIL,
        "phase": "failed",
        "resumed_from": "javascript:boom()",
        "findings": [finding],
        "counters": counters,
        "history": history,
        "errors": {EVIL: 1},
        "dropped": {EVIL: 1},
        "autopsies": [{"step": 1, "verdict": EVIL, "headline": EVIL}],
    }


def test_no_text_of_a_run_is_markup(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """Quotes, tags, line breaks and braces are shown as they are."""
    state = new_state("one")
    path = save(tmp_path / "x<b>'\"&amp;", state)
    path.write_text(dumps(evil(state)))
    url = serve_runs(Runs([tmp_path]))
    for where in ("/", "/runs/one"):
        found = page(url, where)
        assert "<script>boom()</script>" in found.text
        assert "{{7*7}}" in found.text
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert not [
        link for link in links if (link or "").startswith("javascript:")
    ]


def test_back_ticks_are_code(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """In headlines, messages, advice and causes; one that is open stays."""
    state = new_state("one")
    told = {"step": 1, "verdict": "model", "headline": "Not `log(x)`, ` open."}
    path = save(tmp_path, state)
    path.write_text(dumps({**state.snapshot(), "autopsies": [told]}))
    found = page(serve_runs(Runs([tmp_path])), "/runs/one")
    assert "(model): Not log(x), ` open." in found.text
    codes = sum(tag == "code" for tag, _ in found.tags)
    path.write_text(dumps({**state.snapshot(), "autopsies": []}))
    found = page(serve_runs(Runs([tmp_path])), "/runs/one")
    assert codes == 1 + sum(tag == "code" for tag, _ in found.tags)


def test_fleet_says_what_needs_attention(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """Lost, failed and bad runs come first; healthy ones and old ones after."""
    save(tmp_path, new_state("healthy"))
    save(tmp_path, new_state("bad", loss=np.nan, phase="failed", age=30))
    save(tmp_path, new_state("gone", age=100))
    save(tmp_path, new_state("done", phase="finished", age=30))
    save(tmp_path, new_state("old", phase="failed", age=3600))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    url = serve_runs(Runs([tmp_path]))
    found = page(url)
    links = [a["href"] or "" for tag, a in found.tags if tag == "a"]
    order = [a.removeprefix("runs/") for a in links if a.startswith("runs/")]
    assert order == ["bad", "gone", "healthy", "done", "old"]
    said = " ".join(found.text.split())
    assert said.startswith("(2) gradwatch")
    assert "2 need attention" in said
    assert "lost gone" not in said
    assert "could be read: a state.json that is no strict JSON." in said
    assert "NaN 1 bad step, last 9" in said
    assert "Earlier (1)" in said


def test_without_runs_the_page_says_what_to_do(
    tmp_path: Path, serve_runs: ServeRuns
) -> None:
    """No runs, or no folder yet: what is waited for, and how a run begins."""
    found = page(serve_runs(Runs([tmp_path / "later"])))
    assert "No runs yet" in found.text
    assert str(tmp_path / "later") in found.text
    assert 'GradWatch("' in found.text
    assert "does not exist (yet)" in found.text


def test_every_problem_has_words() -> None:
    """No reason is told by its name alone."""
    assert tuple(_PROBLEMS) == REASONS


def test_a_run_has_links_to_other_tools(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """Grafana and TensorBoard open at this run, where they are configured."""
    save(tmp_path / "team a", new_state("one"))
    options = Options(
        grafana="https://grafana.example/", tensorboard="http://tb.example:6006"
    )
    url = serve_runs(Runs([tmp_path]), options)
    links = {a["href"] for tag, a in page(url, "/runs/one").tags if tag == "a"}
    assert "https://grafana.example/d/gradwatch-run?var-run=one" in links
    run_filter = "%5Eteam%5C%20a%2Fone%24"
    assert f"http://tb.example:6006/?runFilter={run_filter}#timeseries" in links
    assert "../api/runs/one" in links


def test_the_loss_is_drawn_with_its_largest_parts(
    tmp_path: Path, new_state: NewState, save: Save, serve_runs: ServeRuns
) -> None:
    """Eight lines at most, the whole first, also if a part is called so."""
    state = new_state("one")
    parts = [[f"part_{i}", [1.0, float(i)]] for i in range(9)]
    parts += [["loss", [1.0, "NaN"]]]
    series = [["loss_component", *part] for part in parts]
    history = {"steps": [8, 9], "series": [["loss", "", [1.0, 0.5]], *series]}
    path = save(tmp_path, state)
    path.write_text(dumps({**state.snapshot(), "history": history}))
    found = page(serve_runs(Runs([tmp_path])), "/runs/one")
    said = " ".join(found.text.split())
    assert "Loss total loss 0.5loss NaNpart_8 8part_7 7" in said
    assert "part_3 3" in said
    assert "part_2" not in said


def test_a_run_that_is_not_there(tmp_path: Path, serve_runs: ServeRuns) -> None:
    """The page says so, with status 404; nothing of the name is on it."""
    url = serve_runs(Runs([tmp_path]))
    answer = ask(url, "/runs/%3Cscript%3E")
    assert answer.status == 404
    assert b"No such run" in answer.body
    assert b"%3C" not in answer.body


def test_static_files_and_nothing_else(
    tmp_path: Path, serve_runs: ServeRuns
) -> None:
    """Style, script and icon come from the package; no path leads out of it."""
    url = serve_runs(Runs([tmp_path]))
    types = {
        "drawing.css": "text/css",
        "gradwatch.css": "text/css",
        "gradwatch.js": "javascript",
        "icon.svg": "image/svg+xml",
    }
    for name, kind in types.items():
        answer = ask(url, f"/static/{name}", Accept_Encoding="gzip")
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]
        assert answer.headers["Cache-Control"] == "no-cache"
        zipped = answer.headers.get("Content-Encoding") == "gzip"
        body = gzip.decompress(answer.body) if zipped else answer.body
        assert not re.search(rb"https?://(?!www\.w3\.org)", body)
    for path in (
        "",
        "/",
        "/..",
        "/../app.py",
        "/%2e%2e/app.py",
        "//etc/passwd",
    ):
        assert ask(url, f"/static{path}").status in (404, 405)


def test_a_stuck_scanner_is_on_the_page(
    tmp_path: Path,
    new_state: NewState,
    save: Save,
    serve_runs: ServeRuns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was seen last is shown, and that it is old."""
    import threading

    go_on, hangs = threading.Event(), threading.Event()

    class Hanging(Runs):
        def look(self) -> list[Any]:
            if hangs.is_set():
                assert go_on.wait(30)
            return super().look()

    monkeypatch.setattr("gradwatch.service.scanner._PATIENCE", 0.2)
    monkeypatch.setattr("gradwatch.service.scanner._FRESH", 0.0)
    save(tmp_path, new_state("one"))
    url = serve_runs(Hanging([tmp_path]))
    assert "cannot be read" not in page(url).text
    hangs.set()
    try:
        found = page(url)
    finally:
        go_on.set()
    assert "The run directories cannot be read" in found.text
    assert "one" in found.text
