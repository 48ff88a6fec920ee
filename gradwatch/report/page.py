"""A report as one HTML file: nothing is asked for elsewhere, nothing runs.

Charts are SVG of the same code as those of the service, coloured by a style
sheet: so they follow the reader's light or dark, stay sharp, and their texts
are texts. Every text of a run is escaped. Needs Jinja2, the extra `[report]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gradwatch.drawing import STYLE, TEMPLATES
from gradwatch.drawing.words import count, duration, number, spans, utc
from gradwatch.records import SEVERITIES, Finding
from gradwatch.report.axis import HEIGHT, WIDTH, Axis
from gradwatch.report.contents import Contents
from gradwatch.report.environment import environment
from gradwatch.report.heats import heats
from gradwatch.report.plots import plots
from gradwatch.report.story import cause, last_values, ranked, verdict
from gradwatch.sinks.findings import cell

__all__ = ["page", "rendered"]

_OWN = Path(__file__).parent / "templates"
_FINDINGS = 100  # shown
_TEXT = 4000  # characters of a message


def page(contents: Contents, made: float) -> str:
    """Returns the HTML of a report.

    Args:
        contents: what the run directory holds.
        made: Unix time of the report.
    """
    readings = contents.readings
    steps = contents.snapshot["steps"]
    axis = Axis(readings.first, max(steps - 1, readings.first))
    findings = ranked(contents)
    shown = contents.findings[:_FINDINGS]
    return rendered(
        "report.html",
        contents=contents,
        run=contents.snapshot["run"],
        snapshot=contents.snapshot,
        verdict=verdict(contents),
        cause=cause(contents),
        values=last_values(contents),
        findings=findings[:_FINDINGS],
        more=len(findings) - _FINDINGS,
        environment=environment(contents),
        axis=axis,
        pins=axis.pins(shown),
        events=_events(axis, shown),
        epochs=axis.epochs(readings.epochs),
        plots=plots(contents, axis),
        heats=heats(contents, axis),
        made=made,
        text=_TEXT,
    )


def rendered(name: str, *folders: Path, **values: Any) -> str:
    """Returns what a template makes of values, in the style of reports.

    Args:
        name: of the template.
        folders: where it may be, beside those of reports.
        values: what it knows.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _OWN, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (count, duration, number, spans, utc, cell)
    templates.filters |= {word.__name__: word for word in words}
    style = STYLE.read_text() + (_OWN / "report.css").read_text()
    return templates.get_template(name).render(
        style=Markup(style), size=(WIDTH, HEIGHT), **values
    )


def _events(axis: Axis, findings: Sequence[Finding]) -> dict[str, str]:
    """Returns severity -> path of lines where findings began, mild first."""
    return {
        severity: axis.uprights(
            f.first_step for f in findings if f.severity == severity
        )
        for severity in SEVERITIES
    }
