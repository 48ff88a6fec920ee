"""A report as one HTML file: nothing is asked for elsewhere, nothing runs.

Charts are SVG of the same code as those of the service, coloured by a style
sheet: so they follow the reader's light or dark, stay sharp, and their texts
are texts. Every text of a run is escaped. Needs Jinja2, the extra `[report]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from gradwatch.drawing import STYLE, TEMPLATES
from gradwatch.drawing.words import count, duration, number, utc
from gradwatch.records import SEVERITIES, Finding
from gradwatch.report.axis import HEIGHT, WIDTH, Axis
from gradwatch.report.contents import Contents
from gradwatch.report.environment import environment
from gradwatch.report.heats import heats
from gradwatch.report.plots import plots
from gradwatch.report.story import cause, last_values, ranked, verdict
from gradwatch.sinks.findings import cell

__all__ = ["page"]

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
    return _template().render(
        style=Markup(STYLE.read_text() + (_OWN / "report.css").read_text()),
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
        size=(WIDTH, HEIGHT),
        made=made,
        text=_TEXT,
    )


def _template() -> jinja2.Template:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_OWN, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = {"count": count, "duration": duration, "number": number, "utc": utc}
    templates.filters |= {**words, "cell": cell}
    return templates.get_template("report.html")


def _events(axis: Axis, findings: Sequence[Finding]) -> dict[str, str]:
    """Returns severity -> path of lines where findings began, mild first."""
    return {
        severity: axis.uprights(
            f.first_step for f in findings if f.severity == severity
        )
        for severity in SEVERITIES
    }
