"""What whoever runs the service may choose."""

from __future__ import annotations

from dataclasses import dataclass

from gradwatch.health import STALLED_AFTER
from gradwatch.metrics import MAX_SERIES
from gradwatch.service.runs import RETENTION
from gradwatch.service.security import Credentials

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """Choices; see `gradwatch serve --help`.

    Attributes:
        retention: seconds for which a run that has ended is still exported.
        stalled_after: seconds that a step may take at least, see `health`.
        max_series: on the metrics page.
        grafana: URL of a Grafana with the dashboards, `""` = none.
        tensorboard: URL of a TensorBoard of the same logdir, `""` = none.
        credentials: who may read; `None` = everybody who can connect.
        local: whether only this machine can connect, so that only its own
            names are answered.
    """

    retention: float = RETENTION
    stalled_after: float = STALLED_AFTER
    max_series: int = MAX_SERIES
    grafana: str = ""
    tensorboard: str = ""
    credentials: Credentials | None = None
    local: bool = True
