"""The policy: what happens at a step that is not finite, as the user chose.

The standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["OnNonfinite", "Policy"]

OnNonfinite = Literal["record", "stop", "raise", "skip", "rollback"]
"""What happens at a step that is not finite."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens at a step that is not finite, and how often.

    Attributes:
        name: see `GradWatch`, `on_nonfinite`.
        max_skips: with `"skip"`, bad steps in a row that are skipped.
        max_rollbacks: with `"rollback"`, how often a run goes back.
        rollback_factor: with `"rollback"`, what learning rates are multiplied
            by then.
        snapshots: with `"rollback"`, the folder where they lie on the disk;
            `None` = in memory.
    """

    name: OnNonfinite = "stop"
    max_skips: int = 10
    max_rollbacks: int = 3
    rollback_factor: float = 0.5
    snapshots: Path | None = None

    @property
    def skips(self) -> int | None:
        """Bad steps in a row that do not set the latch; `None`: none does."""
        if self.name == "record":
            return None
        return self.max_skips if self.name == "skip" else 0

    @property
    def limits(self) -> dict[str, Any]:
        """What an Anatomy says of it; 0 where nothing is survived."""
        if not self.rolls_back:
            return {"max_skips": self.skips or 0}
        return {
            "max_rollbacks": self.max_rollbacks,
            "rollback_factor": self.rollback_factor,
        }

    @property
    def rolls_back(self) -> bool:
        """Whether training may go on from a latch that is set."""
        return self.name == "rollback"
