"""A dashboard as a whole: variables, links, marks, and where panels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradwatch.monitoring.panels import SOURCE, Panel
from gradwatch.monitoring.queries import Shown

__all__ = [
    "FLEET",
    "LAYERS",
    "RUN",
    "Row",
    "marked",
    "board",
    "run_variable",
    "runs_variable",
    "values_variable",
]

FLEET, RUN, LAYERS = "gradwatch-fleet", "gradwatch-run", "gradwatch-layers"
"""Their uids: the service and the alerts link to them."""

_SCHEMA = 39  # of Grafana 11.0; later ones migrate what they read
_WIDTH = 24
_ON_TIME_RANGE = 2  # when a variable asks again


@dataclass(frozen=True, slots=True)
class Row:
    """A part of a dashboard.

    Attributes:
        title: what it is about.
        panels: from left to right, and on.
        collapsed: whether it asks nothing until it is opened.
    """

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


def board(
    uid: str,
    title: str,
    description: str,
    shown: Shown,
    variables: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    *,
    since: str = "now-3h",
    page: str = "",
) -> dict[str, Any]:
    """Returns a dashboard as Grafana imports it.

    Args:
        uid: in its URL.
        title: its name.
        description: one sentence.
        shown: the runs that it shows.
        variables: those beside data source and job.
        rows: what it shows.
        since: begin of the time range at first.
        page: of the service that shows the same, below its root.
    """
    return {
        "uid": uid,
        "title": title,
        "description": f"{description} Written by `gradwatch monitoring "
        "build`: save changes under another name.",
        "tags": ["gradwatch"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": since, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "annotations": {"list": marked(shown)},
        "links": [_boards(), _page(f"{shown.settings.service}/{page}")],
        "templating": {"list": [_source(), _job(shown), *variables]},
        "panels": _placed(rows),
    }


def marked(shown: Shown) -> list[dict[str, Any]]:
    """Returns what is marked on all charts: metrics whose value is a time.

    So a mark is where it happened, and not where it was first scraped.
    """
    said = "finding_last_timestamp_seconds"
    by = "run, rule, severity, subject"
    critical = shown.series(said, severity="critical")
    others = shown.series(said, severity="!=critical")
    text = "{{rule}} ({{severity}}) {{subject}}"
    times = {
        "run_start_timestamp_seconds": ("Run begins", "green"),
        "run_end_timestamp_seconds": ("Run ends", "blue"),
        "last_nonfinite_timestamp_seconds": ("NaN or Inf", "purple"),
    }
    return [
        _marks("Critical findings", "red", f"max by ({by}) ({critical})", text),
        _marks("Other findings", "orange", f"max by ({by}) ({others})", text),
        *(
            _marks(name, color, shown.newest(family), name)
            for family, (name, color) in times.items()
        ),
    ]


def _marks(name: str, color: str, times: str, text: str) -> dict[str, Any]:
    expr = f"({times} > 0) * 1000"
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "target": {"datasource": SOURCE, "expr": expr, "refId": "Anno"},
        "titleFormat": "{{run}}",
        "textFormat": text,
        "tagKeys": "rule,severity",
        "useValueForTime": True,
    }


def run_variable() -> dict[str, Any]:
    """Returns the variable `run`: one of those in the time range.

    The newest is the first, and chosen. Called as the service's links have it.
    """
    start = 'gradwatch_run_start_timestamp_seconds{job=~"$job"}'
    newest = f"max by (run) (last_over_time({start}[$__range]))"
    asked = f"query_result(sort_desc({newest}))"
    return _variable("run", "Run", asked) | {"regex": '/run="([^"]+)"/'}


def runs_variable() -> dict[str, Any]:
    """Returns the variable `runs`: several of them, all at first.

    It has another name than `run`, which links carry from one to another.
    """
    asked = 'label_values(gradwatch_run_info{job=~"$job"}, run)'
    return _several(_variable("runs", "Runs", asked))


def values_variable(label: str, name: str, metric: str) -> dict[str, Any]:
    """Returns a variable called as a label, with its values in a run.

    Args:
        label: of the metric.
        name: above the choice.
        metric: name of a family.
    """
    selector = f'{metric}{{job=~"$job",run="$run"}}'
    asked = f"label_values({selector}, {label})"
    return _several(_variable(label, name, asked))


def _variable(name: str, label: str, asked: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": asked, "refId": name},
        "definition": asked,
        "refresh": _ON_TIME_RANGE,
        "regex": "",
        "sort": 0,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
    }


def _several(variable: dict[str, Any]) -> dict[str, Any]:
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return variable | {
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "sort": 1,
        "current": everything,
    }


def _job(shown: Shown) -> dict[str, Any]:
    """The job of the service at first: a run may have an endpoint besides."""
    job = shown.settings.job
    chosen = {"selected": True, "text": [job], "value": [job]}
    asked = 'label_values(gradwatch_build_info{job!=""}, job)'
    return _several(_variable("job", "Job", asked)) | {"current": chosen}


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
    }


def _boards() -> dict[str, Any]:
    """The other dashboards, with what is chosen here."""
    return {
        "type": "dashboards",
        "title": "gradwatch",
        "tags": ["gradwatch"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _page(url: str) -> dict[str, Any]:
    """The page of the service: it has messages and advice of findings."""
    return {
        "type": "link",
        "title": "Service",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": False,
        "targetBlank": True,
        "icon": "info",
        "tooltip": "Findings in full, and autopsies",
        "url": url,
    }


def _placed(rows: Sequence[Row]) -> list[Panel]:
    """Returns rows and panels with their places, numbered from 1."""
    placed: list[Panel] = []
    number, y = 1, 0
    for row in rows:
        head = {"id": number, "type": "row", "title": row.title}
        head |= {"gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y}}
        below = _flowing(row.panels, number + 1, y + 1)
        number += 1 + len(below)
        inside = below if row.collapsed else []
        placed.append({**head, "collapsed": row.collapsed, "panels": inside})
        if not row.collapsed:
            placed += below
        # What a collapsed row holds takes no room until it is opened.
        last = placed[-1]["gridPos"]
        y = last["y"] + last["h"]
    return placed


def _flowing(panels: Sequence[Panel], number: int, y: int) -> list[Panel]:
    """Returns panels from left to right, line by line of one height."""
    flowing = []
    x = high = 0
    for i, panel in enumerate(panels):
        size = panel["gridPos"]
        if x + size["w"] > _WIDTH:
            x, y, high = 0, y + high, 0
        place = {**size, "x": x, "y": y}
        flowing.append({**panel, "id": number + i, "gridPos": place})
        x, high = x + size["w"], max(high, size["h"])
    return flowing
