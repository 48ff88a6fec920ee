"""What a fault is: a callback that breaks a real `fit` at a given step.

A step is the 0-based number of a training batch, counted as gradwatch counts:
on over epochs and over further fits with the same object. What cannot be done
at exactly this step is refused before the first one. Read in Keras 3.15.1:
`backend/tensorflow/trainer.py` (fit, TFEpochIterator).
"""

from __future__ import annotations

import abc
import logging
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import keras

from gradwatch.errors import GradWatchError, UnsupportedError, expected

__all__ = ["Fault", "refuse"]

_log = logging.getLogger("gradwatch.testing")


def refuse(argument: str, what: str, received: object, do: str) -> NoReturn:
    """Raises the GradWatchError that `expected` words."""
    raise GradWatchError(expected(argument, what, received, do))


class Fault(keras.callbacks.Callback, abc.ABC):
    """Something that goes wrong at a step, once.

    It may stand before or after a GradWatch among the callbacks. It is logged
    as a warning when it comes, and when `fit` ends without it.

    Args:
        at_step: 0-based number of the training batch.

    Attributes:
        at_step: as given.
        time: Unix seconds at which it came, 0.0 until then.

    Raises:
        GradWatchError: in the constructor for an argument that cannot be used;
            in `fit`, before its first step, for what cannot be done there.
    """

    def __init__(self, at_step: int) -> None:
        super().__init__()
        if not isinstance(at_step, int) or at_step < 0:
            refuse("at_step", "an int from 0 on", at_step, "Name one step.")
        self.at_step = at_step
        self.time = 0.0
        self._before = 0  # steps of epochs that are over
        self._ended = 0  # steps of this epoch that are over

    @property
    @abc.abstractmethod
    def meaning(self) -> str:
        """What goes wrong, a few words."""

    @abc.abstractmethod
    def check(self, offset: int) -> None:
        """Raises a GradWatchError if it cannot be done in this fit.

        Args:
            offset: steps from the begin of an execution to `at_step`.
        """

    @abc.abstractmethod
    def execution_begins(self, step: int) -> None:
        """The execution whose first step is `step` is about to run."""

    def came(self) -> None:
        """Says that it happens now."""
        self.time = time.time()
        _log.warning(
            "Fault at step %d: %s.",
            self.at_step,
            self.meaning,
            extra={"fault": self},
        )

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: a fit begins."""
        steps = self.params.get("steps")
        if self.executes > 1 and not steps:
            raise UnsupportedError(
                expected(
                    "steps_per_execution",
                    "1 where the number of batches is not known",
                    self.executes,
                    "Give `fit` data of known length or `steps_per_epoch`: "
                    "Keras does not tell how many steps the last execution "
                    "of an epoch took.",
                )
            )
        if self.at_step >= self._before:
            into = self.at_step - self._before
            self.check((into % steps if steps else into) % self.executes)

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an epoch begins."""
        self._ended = 0

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an execution begins, with this batch of the epoch."""
        self.execution_begins(self._before + batch)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an execution has ended, with this batch or the last one."""
        self._ended = min(batch + 1, self.params.get("steps") or batch + 1)

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Keras: an epoch is over."""
        self._before += self._ended

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keras: the fit is over."""
        if not self.time:
            _log.warning(
                "No fault (%s): step %d was not reached, %d were trained.",
                self.meaning,
                self.at_step,
                self._before,
            )

    @property
    def executes(self) -> int:
        """Steps of an execution."""
        return int(self.model.steps_per_execution)
