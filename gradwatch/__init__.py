"""gradwatch: makes a long Keras run visible and says what goes wrong.

    from gradwatch import GradWatch
    model.fit(x, y, callbacks=[GradWatch()])

Importing this package loads neither Keras nor TensorFlow; the first use of
`GradWatch`, `check` or `audit` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch.audit import (
    AuditFinding,
    AuditReport,
    assert_trainable,
    audit,
)
from gradwatch.components import component
from gradwatch.errors import GradWatchError, NonFiniteError, UnsupportedError
from gradwatch.interfaces import Rule, Sink
from gradwatch.records import Block, Epoch, Finding
from gradwatch.rules import default_rules

if TYPE_CHECKING:
    from gradwatch.callback import GradWatch
    from gradwatch.preflight import check

__all__ = [
    "AuditFinding",
    "AuditReport",
    "Block",
    "Epoch",
    "Finding",
    "GradWatch",
    "GradWatchError",
    "NonFiniteError",
    "Rule",
    "Sink",
    "UnsupportedError",
    "assert_trainable",
    "audit",
    "check",
    "component",
    "default_rules",
]


def __getattr__(name: str) -> Any:
    if name == "GradWatch":
        from gradwatch.callback import GradWatch

        return GradWatch
    if name == "check":
        from gradwatch.preflight import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
