"""Reads dashboards: their panels, and what these ask Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gradwatch.monitoring.dashboards import dashboards
from gradwatch.monitoring.thresholds import Settings

BOARDS = {board["uid"]: board for board in dashboards(Settings())}


class Asked(NamedTuple):
    """A query of a dashboard.

    Attributes:
        board: uid of the dashboard.
        where: title of the panel, or name of an annotation or variable.
        ref: the query's letter.
        kind: type of the panel, `annotation` or `variable`.
        expr: PromQL, with Grafana's variables.
        instant: whether one moment is asked for.
    """

    board: str
    where: str
    ref: str
    kind: str
    expr: str
    instant: bool


def panels(board: dict[str, Any], rows: bool = False) -> Iterator[Any]:
    """Yields the panels of a dashboard, those of collapsed rows too."""
    for panel in board["panels"]:
        if rows or panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def asked(board: dict[str, Any]) -> Iterator[Asked]:
    """Yields all queries of a dashboard."""
    uid = board["uid"]
    for panel in panels(board):
        for target in panel["targets"]:
            yield Asked(
                uid,
                panel["title"],
                target["refId"],
                panel["type"],
                target["expr"],
                target["instant"],
            )
    for mark in board["annotations"]["list"]:
        assert mark["target"]["expr"] == mark["expr"]
        name = mark["name"]
        yield Asked(uid, name, "A", "annotation", mark["expr"], False)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            expr = _plain(variable["query"]["query"])
            name = variable["name"]
            yield Asked(uid, name, "A", "variable", expr, True)


def _plain(variable: str) -> str:
    """Returns the PromQL of what a variable asks."""
    for form in (r"query_result\((.*)\)", r"label_values\((.*), \w+\)"):
        if found := re.fullmatch(form, variable):
            return found[1]
    raise AssertionError(variable)


ASKED = [one for board in BOARDS.values() for one in asked(board)]


def filled(expr: str, run: str = "a-run", seconds: int = 10) -> str:
    """Returns a query as Grafana sends it.

    Args:
        expr: with variables.
        run: id of the run that is chosen; of others, all are.
        seconds: that a rate is taken over.
    """
    values = {
        "__rate_interval": f"{seconds}s",
        "__range_s": "300",
        "__range": "300s",
        "job": "gradwatch",
        "runs": ".+",
        "run": run,
        "variable": ".+",
        "layer": ".+",
    }
    # `$1` is not Grafana's but of a regular expression.
    return re.sub(r"\$([a-z_]\w*)", lambda found: values[found[1]], expr)
