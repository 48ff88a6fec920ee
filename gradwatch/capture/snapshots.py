"""Snapshots: a model's state, validated finite, put back.

Weights, layer state, seeds and all that optimizers keep (loss scales among it),
but their learning rates and no metrics. Reading changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch.capture.contents import contents
from gradwatch.capture.storage import InMemory, OnDisk, Storage
from gradwatch.facts import QUIET_STEPS

__all__ = ["Snapshots"]

_KEPT = 2
_Key = tuple[int, int]


class _Snapshot:
    """State before a step.

    Attributes:
        step: its number.
        arrays: id and replica of a variable -> its value.
        used: whether the model was put back to it.
    """

    def __init__(self, arrays: Storage) -> None:
        self.step = -1
        self.arrays = arrays
        self.used = False


class Snapshots:
    """The newest two snapshots of a model.

    Args:
        model: the `keras.Model`.
        left_out: returns the variables that are in no snapshot.
        folder: where they lie on the disk; `None` = in memory.
    """

    def __init__(
        self,
        model: Any,
        left_out: Callable[[], Iterable[Any]],
        folder: Path | None = None,
    ) -> None:
        self._model = model
        self._left_out = left_out
        self._folder = folder
        self._kept: list[_Snapshot] = []
        self._spare: list[_Snapshot] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    @property
    def newest(self) -> int:
        """The step before which the newest one was taken."""
        return self._kept[-1].step

    def forget(self) -> None:
        """Drops all of them; their memory is used again."""
        self._spare += self._kept
        self._kept = []

    def take(self, step: int) -> None:
        """Takes the state before `step`; waits for the device.

        None is kept with an entry that is not finite, but was in the snapshot
        before. The first one is taken as it is.
        """
        while len(self._kept) >= _KEPT:
            self._spare.append(self._kept.pop(0))
        taken = self._spare.pop() if self._spare else self._new()
        taken.step, taken.used = step, False
        before = self._kept[-1].arrays if self._kept else None
        for key, variable in self._parts():
            array = np.asarray(variable.read_value())
            taken.arrays.write(key, array)
            if before is not None and not _sound(key, array, before):
                self._spare.append(taken)
                return
        self._kept.append(taken)

    def _new(self) -> _Snapshot:
        folder = self._folder
        return _Snapshot(InMemory() if folder is None else OnDisk(folder))

    def whole(self) -> bool:
        """Whether the newest one has all variables that there are now."""
        known = self._kept[-1].arrays if self._kept else InMemory()
        return all(key in known for key, _ in self._parts())

    def before(self, step: int) -> int:
        """Chooses the last good one for a step that was bad.

        It is good if 64 steps have followed it, none of them bad: a model that
        diverges is finite for a while. And if the model was not put back to it
        before, in vain. The oldest is good in any case. Those that are not are
        dropped.

        Returns:
            The step before which it was taken.
        """
        while len(self._kept) > 1:
            last = self._kept[-1]
            if step - last.step >= QUIET_STEPS and not last.used:
                break
            self._spare.append(self._kept.pop())
        return self.newest

    def put_back(self) -> None:
        """Gives the model the state of the newest one."""
        snapshot = self._kept[-1]
        snapshot.used = True
        for key, variable in self._parts(whole=True):
            variable.assign(snapshot.arrays.read(key))

    def _parts(self, whole: bool = False) -> Iterator[tuple[_Key, Any]]:
        """Yields key and `tf.Variable` of all that a snapshot holds.

        Of replicas each has its own, where layers keep state: statistics of
        its share, seeds. All else is the same in each.

        Args:
            whole: the variable of all replicas in place of the first one's.
        """
        left_out = {id(v) for v in self._left_out()}
        local = self._model.distribute_strategy.experimental_local_results
        for group, _, variable in contents(self._model):
            if group == "metrics" or id(variable) in left_out:
                continue
            parts = local(variable.value)
            if group == "optimizer" or variable.trainable:
                parts = (variable.value,) if whole else parts[:1]
            for replica, part in enumerate(parts):
                yield (id(variable), replica), part


def _sound(key: _Key, array: NDArray[Any], before: Storage) -> bool:
    """Whether entries of floats are finite, unless they were not before."""
    if array.dtype.kind not in "fV":  # numpy calls bfloat16 a `V`
        return True
    flat = array.reshape(-1)
    # One pass, 0.1 ms for a million entries; squares of some may overflow.
    with np.errstate(all="ignore"):
        if flat.dtype == np.float32 and math.isfinite(np.dot(flat, flat)):
            return True
    fine = np.isfinite(array)
    if key in before and (old := before.read(key)).shape == array.shape:
        fine |= ~np.isfinite(old)
    return bool(fine.all())
