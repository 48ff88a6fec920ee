"""Autopsy: which operation, in which line, made NaN or Inf in a step.

`trace.py` makes the step's graph, `probe.py` runs it and looks at all that it
computes, `origin.py` finds where it began, `links.py` goes from a derivative to
its operation, `precision.py` tries float64, `diagnosis.py` puts it into words.
"""

from gradwatch.autopsy.diagnosis import diagnose
from gradwatch.autopsy.report import Autopsy, Source

__all__ = ["Autopsy", "Source", "diagnose"]
