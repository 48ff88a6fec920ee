"""The web pages: all runs side by side, and one run. All from state.json.

Rendered here, so that they work without script; a few lines of it only fetch
the same page again. Every text of a run is escaped.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gradwatch.drawing import TEMPLATES
from gradwatch.drawing.charts import Chart, chart
from gradwatch.drawing.strips import Strip, strips
from gradwatch.drawing.words import age, count, duration, number, spans, utc
from gradwatch.runstate import ENDED
from gradwatch.service.options import Options
from gradwatch.service.rows import chief, details, row
from gradwatch.service.runs import Runs, Seen
from gradwatch.service.scanner import Scanner, Stuck, View

__all__ = ["STATIC", "Pages"]

STATIC = Path(__file__).parent / "static"
"""Folder of the style sheet and the script."""

_TEMPLATES = Path(__file__).parent / "templates"
_REFRESH = 5.0  # seconds
_PROBLEMS = {
    "missing": "a --logdir that does not exist (yet)",
    "unreadable": "the system refuses to read it",
    "unsafe": "a link, or no plain file",
    "size": "a state.json that is too large",
    "json": "a state.json that is no strict JSON",
    "version": "written by a newer gradwatch",
    "shape": "a state.json that gradwatch has not written",
    "duplicate": "a copy of another run",
    "limit": "too many runs or folders",
}
_COMPONENTS = 7  # as many as there are colours beside that of the whole
_GROUPS = ("attention", "active", "ended", "earlier")


class _Listed(NamedTuple):
    """A row of the fleet's table.

    Attributes:
        run: see `rows.FIELDS`.
        group: one of `_GROUPS`.
        spark: of the loss.
    """

    run: Mapping[str, Any]
    group: str
    spark: Chart | None


class Pages:
    """Answers `/` and `/runs/{run}`.

    Args:
        runs: whose clock and folders they are.
        scanner: finds them.
        options: see `Options`.
    """

    def __init__(self, runs: Runs, scanner: Scanner, options: Options) -> None:
        self._runs = runs
        self._scanner = scanner
        self._options = options
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader([_TEMPLATES, TEMPLATES]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        words = {
            "age": age,
            "count": count,
            "duration": duration,
            "number": number,
            "spans": spans,
            "utc": utc,
        }
        self._templates.filters |= words
        self._templates.globals |= {
            "refresh": _REFRESH,
            "grafana": options.grafana.rstrip("/"),
            "tensorboard": options.tensorboard.rstrip("/"),
        }

    async def fleet(self, request: Request) -> Response:
        """All runs: what needs attention first."""
        view, stuck = await self._view()
        clock = self._runs.clock()
        listed = sorted(
            (self._listed(ranks, clock) for ranks in _by_run(view)),
            key=lambda each: (-each.run["start"], each.run["run"]),
        )
        groups = {g: [r for r in listed if r.group == g] for g in _GROUPS}
        return self._page(
            "fleet.html",
            groups=groups,
            clock=clock,
            problems={_PROBLEMS[r]: n for r, n in view.problems.items()},
            roots=[str(root) for root in self._runs.roots],
            stuck=stuck,
        )

    async def run(self, request: Request) -> Response:
        """One run, with charts, findings and autopsies."""
        view, stuck = await self._view()
        name = request.path_params["run"]
        ranks = [s for s in view.seen if s.snapshot["run"]["id"] == name]
        if not ranks:
            return self._page("missing.html", 404, stuck=stuck)
        clock = self._runs.clock()
        told = details(ranks, clock, self._options.stalled_after)
        return self._page(
            "run.html",
            run=told,
            clock=clock,
            stuck=stuck,
            tensorboard_filter=quote(f"^{re.escape(told['place'])}$", safe=""),
            **_drawn(chief(ranks)),
        )

    async def _view(self) -> tuple[View, float]:
        """The runs, and for how many seconds nobody could read them."""
        try:
            return await self._scanner.view(), 0.0
        except Stuck:
            last = self._scanner.last
            return last, time.monotonic() - last.ended

    def _listed(self, ranks: Sequence[Seen], clock: float) -> _Listed:
        told = row(ranks, clock, self._options.stalled_after)
        seen = chief(ranks)
        current = seen.is_current(clock, self._options.retention)
        return _Listed(told, _group(told, current), _spark(seen))

    def _page(self, template: str, status: int = 200, **what: Any) -> Response:
        page = self._templates.get_template(template).render(**what)
        return HTMLResponse(page, status)


def _by_run(view: View) -> list[list[Seen]]:
    runs: dict[str, list[Seen]] = {}
    for seen in view.seen:
        runs.setdefault(seen.snapshot["run"]["id"], []).append(seen)
    return list(runs.values())


def _group(run: Mapping[str, Any], current: bool) -> str:
    if not current:
        return "earlier"
    bad = run["health"] != "ok" or run["state"] == "failed"
    if bad or run["nonfinite_steps"] or run["findings"]["critical"]:
        return "attention"
    return "ended" if run["state"] in ENDED else "active"


def _history(
    seen: Seen,
) -> tuple[list[int], dict[str, dict[str, list[float]]]]:
    """Steps, and signal -> subject -> values; the newest ones are the last."""
    snapshot = seen.snapshot
    history = snapshot.get("history", {"steps": [], "series": []})
    steps, last = list(history["steps"]), snapshot["steps"] - 1
    more = bool(steps) and last > steps[-1]
    newest = {(s, subject): v for s, subject, v in snapshot["values"]}
    series: dict[str, dict[str, list[float]]] = {}
    for signal, subject, values in history["series"]:
        ends = [float(newest.get((signal, subject), "NaN"))] if more else []
        series.setdefault(signal, {})[subject] = [*values, *ends]
    return steps + [last] * more, series


def _bad(seen: Seen) -> list[int]:
    """The last step that was not finite, if there is one."""
    last = seen.snapshot["counters"]["last_nonfinite_step"]
    return [last] if last >= 0 else []


def _spark(seen: Seen) -> Chart | None:
    steps, series = _history(seen)
    return chart(steps, _whole(series, "loss"), bad=_bad(seen), small=True)


def _drawn(seen: Seen) -> dict[str, Any]:
    """The charts of a run's page."""
    steps, series = _history(seen)
    box: dict[str, Any] = {"bad": _bad(seen), "width": 720, "height": 200}
    parts = _largest(series.get("loss_component", {}))
    # First, so that it has the first colour; a part may be called `loss`.
    total = _whole(series, "loss").values()
    loss = {**dict(zip(["total loss"], total)), **parts}
    norms = ("gradient_norm", "applied_gradient_norm")
    norm = _whole(series, norms[0]) | _whole(series, norms[1])
    return {
        "loss": chart(steps, loss, **box),
        "norm": chart(steps, norm, **box),
        "heat": _heat(series.get("variable_gradient_norm", {})),
        "steps": steps,
    }


def _largest(
    parts: Mapping[str, list[float]],
) -> dict[str, list[float]]:
    """The seven components that are largest now; what is not finite is."""

    def size(part: str) -> float:
        value = parts[part][-1]
        return abs(value) if math.isfinite(value) else math.inf

    shown = sorted(parts, key=size, reverse=True)[:_COMPONENTS]
    return {part: parts[part] for part in shown}


def _whole(
    series: Mapping[str, Mapping[str, Any]], signal: str
) -> dict[str, Any]:
    """The history of what belongs to the run, under the signal's name."""
    of_run = series.get(signal, {}).get("")
    return {} if of_run is None else {signal: of_run}


def _heat(norms: Mapping[str, Sequence[float]]) -> list[Strip]:
    """The gradient norm of each layer: its variables' together."""
    layers: dict[str, list[Sequence[float]]] = {}
    for variable, values in norms.items():
        layer = variable.rpartition("/")[0] or variable
        layers.setdefault(layer, []).append(values)
    return strips(
        {
            layer: [math.hypot(*column) for column in zip(*variables)]
            for layer, variables in layers.items()
        }
    )
