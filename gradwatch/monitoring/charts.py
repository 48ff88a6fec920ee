"""Lines and histograms over time, in Grafana's classic schema.

NaN is never drawn as 0: queries leave it out, and no line bridges the hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwatch.monitoring.panels import (
    PLAIN,
    Mark,
    Panel,
    Query,
    fields,
    override,
    panel,
)

__all__ = ["heatmap", "timeseries"]

_SCALES: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear"},
    "log": {"type": "log", "log": 10},
    "symlog": {"type": "symlog", "log": 10, "linearThreshold": 1e-3},
}

_LINES = {
    "legend": {
        "calcs": ["lastNotNull"],
        "displayMode": "table",
        "placement": "bottom",
        "showLegend": True,
    },
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_DASHED = {
    "custom.lineStyle": {"dash": [10, 10], "fill": "dash"},
    "color": {"mode": "fixed", "fixedColor": "red"},
}


def timeseries(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    scale: str = "linear",
    stacked: bool = False,
    marks: Sequence[Mark] = (),
    limits: tuple[float | None, float | None] = (None, None),
    width: int = 12,
) -> Panel:
    """Returns lines over time.

    Args:
        title: what it shows.
        description: which metric that is, and what to do.
        unit: Grafana's name of it.
        queries: what is drawn.
        scale: `linear`, `log` (nothing that is not above 0), `symlog`.
        stacked: whether lines stand on each other.
        marks: thresholds, drawn as lines.
        limits: ends of the axis, where they are fixed.
        width: of 24.
    """
    custom = {
        "drawStyle": "line",
        "fillOpacity": 40 if stacked else 0,
        "insertNulls": False,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 4,
        "scaleDistribution": _SCALES[scale],
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if marks else "off"},
    }
    defaults: dict[str, Any] = {"color": {"mode": "palette-classic"}}
    for end, value in zip(("min", "max"), limits):
        if value is not None:
            defaults[end] = value
    made = panel("timeseries", title, description, queries, width, 8)
    made["fieldConfig"] = fields(unit, custom, marks or PLAIN, **defaults)
    made["options"] = _LINES
    made["fieldConfig"]["overrides"] = [
        override("byFrameRefID", chr(ord("A") + i), _DASHED)
        for i, query in enumerate(queries)
        if query.dashed
    ]
    return made


def heatmap(title: str, description: str, unit: str, expr: str) -> Panel:
    """Returns a histogram over time; `expr` sums its buckets by `le`."""
    made = panel("heatmap", title, description, [Query(expr, "{{le}}")], 12, 8)
    made["targets"][0]["format"] = "heatmap"
    made["fieldConfig"] = fields("short", {}, PLAIN)
    made["options"] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {
            "mode": "single",
            "showColorScale": True,
            "yHistogram": False,
        },
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    return made
