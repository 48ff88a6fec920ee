"""What panels of dashboards share, and the small ones among them.

In Grafana's classic schema. A panel knows its size; its board says where it is
and gives it a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "NONE_WANTED",
    "PLAIN",
    "SOURCE",
    "Mark",
    "Panel",
    "Query",
    "fields",
    "override",
    "panel",
    "stat",
    "state_timeline",
    "status_history",
    "texts",
]

Panel = dict[str, Any]
"""A panel, as JSON has it."""

Mark = tuple[float | None, str]
"""From this value on, this colour; `None` = from the bottom."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

PLAIN: Sequence[Mark] = ((None, "text"),)
NONE_WANTED: Sequence[Mark] = ((None, "green"), (1e-9, "red"))
"""Of what there should be nothing; an increase is seldom a whole number."""
"""Nothing is coloured by its value."""

_CELLS = 120  # columns of a history; more are not drawn


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks.

    Attributes:
        expr: PromQL.
        legend: what its series are called, with `{{label}}`.
        dashed: whether it is a limit that others are compared with.
    """

    expr: str
    legend: str = ""
    dashed: bool = False


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    marks: Sequence[Mark] = PLAIN,
    mappings: Sequence[Mapping[str, Any]] = (),
    none: str = "-",
    decimals: int | None = None,
) -> Panel:
    """Returns one number, an eighth of the width.

    Args:
        title: what it shows.
        description: which metric that is, and what to do.
        unit: Grafana's name of it.
        expr: what it asks.
        marks: colours by value.
        mappings: values that have a name.
        none: what stands there if there is no value.
        decimals: of the number.
    """
    made = panel("stat", title, description, [Query(expr)], 3, 4)
    made["targets"][0] |= {"instant": True, "range": False}
    more: dict[str, Any] = {"color": {"mode": "thresholds"}, "noValue": none}
    if decimals is not None:
        more["decimals"] = decimals
    if mappings:
        more["mappings"] = list(mappings)
    made["fieldConfig"] = fields(unit, {}, marks, **more)
    made["options"] = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": _last(),
        "textMode": "value",
        "wideLayout": True,
    }
    return made


def status_history(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    marks: Sequence[Mark] = (),
    width: int = 24,
    height: int = 8,
) -> Panel:
    """Returns a strip of cells for each series, coloured by value.

    Args:
        title: what it shows.
        description: which metric that is, and what to do.
        unit: Grafana's name of it.
        queries: what is drawn.
        marks: colours by value; none = shades from the lowest to the highest.
        width: of 24.
        height: in rows of the grid.
    """
    made = panel("status-history", title, description, queries, width, height)
    made["maxDataPoints"] = _CELLS
    custom = {"fillOpacity": 90, "lineWidth": 0}
    mode = "thresholds" if marks else "continuous-BlYlRd"
    made["fieldConfig"] = fields(
        unit, custom, marks or PLAIN, color={"mode": mode}
    )
    made["options"] = {
        "colWidth": 0.95,
        "legend": _legend(bool(marks)),
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return made


def state_timeline(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    marks: Sequence[Mark],
    mappings: Sequence[Mapping[str, Any]],
) -> Panel:
    """Returns a bar for each series that changes its colour with its value.

    Args:
        title: what it shows.
        description: which metric that is, and what to do.
        queries: what is drawn.
        marks: colours by value.
        mappings: values that have a name.
    """
    made = panel("state-timeline", title, description, queries, 24, 8)
    custom = {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False}
    made["fieldConfig"] = fields(
        "none",
        custom,
        marks,
        color={"mode": "thresholds"},
        mappings=list(mappings),
    )
    made["options"] = {
        "alignValue": "left",
        "legend": _legend(True),
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return made


def texts(
    named: Mapping[str, str], colors: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Returns mappings from values, as texts, to texts and their colours."""
    return [
        {
            "type": "value",
            "options": {
                value: {
                    "index": i,
                    "text": text,
                    **({"color": colors[value]} if colors else {}),
                }
                for i, (value, text) in enumerate(named.items())
            },
        }
    ]


def panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    width: int,
    height: int,
) -> Panel:
    """Returns what all kinds of panels have.

    Args:
        kind: Grafana's name of it.
        title: what it shows.
        description: which metric that is, and what to do.
        queries: what it asks; they are called A, B and so on.
        width: of 24.
        height: in rows of the grid.
    """
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": [
            {
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "instant": False,
                "legendFormat": query.legend or "__auto",
                "range": True,
                "refId": chr(ord("A") + i),
            }
            for i, query in enumerate(queries)
        ],
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
    }


def fields(
    unit: str, custom: Mapping[str, Any], marks: Sequence[Mark], **more: Any
) -> dict[str, Any]:
    """Returns how the values of a panel are shown.

    Args:
        unit: Grafana's name of it.
        custom: what only this kind of panel knows.
        marks: colours by value, ascending; green below the first.
        more: what all kinds know.
    """
    steps = [{"color": color, "value": value} for value, color in marks]
    if steps[0]["value"] is not None:
        steps.insert(0, {"color": "green", "value": None})
    thresholds = {"mode": "absolute", "steps": steps}
    defaults = {"custom": custom, "thresholds": thresholds, "unit": unit}
    return {"defaults": {**defaults, **more}, "overrides": []}


def override(
    matcher: str, options: str, properties: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what is different for the fields that a matcher finds."""
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": i, "value": v} for i, v in properties.items()],
    }


def _last() -> dict[str, Any]:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}


def _legend(shown: bool) -> dict[str, Any]:
    return {"displayMode": "list", "placement": "bottom", "showLegend": shown}
