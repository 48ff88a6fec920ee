"""Autopsy: which operation, in which line, made NaN or Inf in a step.

`trace.py` makes the step's graph, `copies.py` what it is run from; `probe.py`
runs it, in the time that `limit.py` gives, and looks at all that it computes;
`origin.py` finds where it began, `links.py` goes from a derivative to its
operation, `precision.py` tries float64, `diagnosis.py` puts it into words,
`boxes.py` does all that with the black boxes of a run.
"""

from gradwatch.autopsy.diagnosis import diagnose
from gradwatch.reports import Autopsy, Source

__all__ = ["Autopsy", "Source", "diagnose"]
