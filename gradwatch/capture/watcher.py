"""Who the capture tells what happens in a run."""

from __future__ import annotations

from typing import Protocol

from gradwatch.records import Anatomy, Schema

__all__ = ["Watcher"]


class Watcher(Protocol):
    """Who the capture tells; all on the training thread."""

    def opened(self, anatomy: Anatomy, schema: Schema) -> None:
        """The step was traced for the first time, nothing ran yet."""

    def stepped(self) -> None:
        """A step of a loop of the user's has ended."""

    def resumed(self, count: int) -> tuple[int, str]:
        """Where a first fit goes on, whose optimizer has `count` updates.

        Returns:
            The number of its first batch, and the id of the run that it
            continues; 0 and `""` if there is none.
        """

    def half_full(self) -> None:
        """The ring must be drained now, before the next execution."""

    def kept(self, step: int) -> None:
        """An incident has begun at this step; its batch is kept until now."""

    def wants_box(self) -> bool:
        """Whether there is to be a black box of the next incident."""

    def latched(self, step: int, back: bool) -> bool:
        """The guard has stopped the run at this step.

        Args:
            step: its number.
            back: whether the model was put back to a snapshot just now.

        Returns:
            Whether training goes on from there.
        """

    def failed(self, error: BaseException) -> None:
        """`error` is passing through the train function."""

    def orphaned(self) -> None:
        """Somebody trains the model unwatched; is this run's fit over?"""
