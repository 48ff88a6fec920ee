"""Provenance: from an operation of a traced step to the user's source line.

`lines.py` reads an operation's own stack and scope, `paths.py` follows tensors
back to what they were computed from, `cuts.py` says where the way from a
variable to a loss has no derivative.
"""

from gradwatch.provenance.cuts import find_cuts, flattened
from gradwatch.provenance.lines import Line, layer_of, line_of
from gradwatch.provenance.paths import Call, Place, sources

__all__ = [
    "Call",
    "Line",
    "Place",
    "find_cuts",
    "flattened",
    "layer_of",
    "line_of",
    "sources",
]
