"""Tables, in Grafana's classic schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["Column", "table"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: what stands above it.
        unit: Grafana's name of its unit; `string` for labels.
        width: in pixels, 0 = as it fits.
        marks: colours by value.
        mappings: value -> text that is shown instead.
        links: title -> URL that a cell leads to.
        wrap: whether long texts are broken.
        decimals: of its numbers.
    """

    title: str
    unit: str = "string"
    width: int = 0
    marks: Sequence[Mark] = ()
    mappings: Sequence[Mapping[str, Any]] = ()
    links: Mapping[str, str] | None = None
    wrap: bool = False
    decimals: int | None = None


def table(
    title: str,
    description: str,
    exprs: Sequence[str],
    columns: Mapping[str, Column],
    *,
    width: int = 24,
    height: int = 8,
    sort: str = "",
) -> Panel:
    """Returns a table; rows of several queries that share labels are one.

    Args:
        title: what it shows.
        description: which metric that is, and what to do.
        exprs: what it asks, as of the end of the time range.
        columns: field -> column, in their order: a label, `Value` of the only
            query, or `Value #A` of the first of several.
        width: of 24.
        height: in rows of the grid.
        sort: title of the column that it is sorted by, the greatest first.
    """
    made = panel(
        "table", title, description, [Query(e) for e in exprs], width, height
    )
    for target in made["targets"]:
        target |= {"format": "table", "instant": True, "range": False}
    made["transformations"] = _arranged(columns, len(exprs) > 1)
    custom = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "inspect": False,
    }
    made["fieldConfig"] = fields("short", custom, PLAIN)
    made["fieldConfig"]["overrides"] = [
        override("byName", column.title, _cells(column))
        for column in columns.values()
    ]
    by = [{"desc": True, "displayName": sort}] if sort else []
    made["options"] = {"cellHeight": "sm", "showHeader": True, "sortBy": by}
    return made


def _arranged(
    columns: Mapping[str, Column], several: bool
) -> list[dict[str, Any]]:
    """Returns what makes frames one table with these columns alone."""
    named = {field: column.title for field, column in columns.items()}
    return [
        *([{"id": "merge", "options": {}}] if several else []),
        {
            "id": "filterFieldsByName",
            "options": {"include": {"names": list(named)}},
        },
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: i for i, name in enumerate(named)},
                "renameByName": named,
            },
        },
    ]


def _cells(column: Column) -> dict[str, Any]:
    """Returns the properties of a column."""
    cells: dict[str, Any] = {"unit": column.unit}
    if column.width:
        cells["custom.width"] = column.width
    if column.decimals is not None:
        cells["decimals"] = column.decimals
    if column.mappings:
        cells["mappings"] = list(column.mappings)
    if column.links:
        cells["links"] = [
            {"title": title, "url": url, "targetBlank": False}
            for title, url in column.links.items()
        ]
    if column.wrap:
        cells["custom.cellOptions"] = {"type": "auto", "wrapText": True}
    if column.marks:
        steps = fields("", {}, column.marks)["defaults"]["thresholds"]
        cells |= {"thresholds": steps, "color": {"mode": "thresholds"}}
    named = [o for m in column.mappings for o in m["options"].values()]
    if column.marks or any("color" in option for option in named):
        cells["custom.cellOptions"] = {"type": "color-text"}
    return cells
