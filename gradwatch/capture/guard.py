"""The guard's memory: what a step changes, and how that is undone.

An update that must not happen is not made. What the step assigns beside it,
before anybody knows that it is bad, is put back; and so is what an earlier
update of the same step has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradwatch.capture import optimizer as rule
from gradwatch.capture.branch import apart
from gradwatch.capture.hooks import graph_being_built
from gradwatch.capture.state import StateAtStart, state_variables

__all__ = ["Guard"]


class Guard:
    """What the step that is being traced assigns.

    Args:
        model: the `keras.Model`.
        late: variables that earlier traces found too late, which is added to.
    """

    def __init__(self, model: Any, late: list[Any]) -> None:
        self._model = model
        self._late = late
        self._state = StateAtStart([*state_variables(model), *late])
        self._updates: set[str] = set()  # names of operations
        self._judged: set[int] = set()

    def read_metrics(self) -> None:
        """Reads those made just now, at the last moment before they change."""
        self._state.read(self._model.metrics_variables)

    def read_before(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Reads what an update changes: a later one of the step may be bad.

        Where nothing uses them these reads are pruned from the graph.
        """
        self.find_late()
        late = {id(v) for v in self._late}
        changed = [*variables, *optimizer.variables]
        known = [v for v in changed if isinstance(v, keras.Variable)]
        self._state.read(v for v in known if id(v) not in late)

    def assigned(self) -> list[tuple[Any, Any, Any]]:
        """Returns state assigned so far that was not returned before.

        Returns:
            Variable, value at the step's start and value now, of each.
        """
        found = [
            (v, self._state[v], v.value)
            for v in self._state.written(but=self._updates)
            if v.value.dtype.is_floating
            and not v.trainable
            and id(v) not in self._judged
        ]
        self._judged |= {id(v) for v, *_ in found}
        return found

    def writes(self, variables: Sequence[Any]) -> list[Any]:
        """Returns those that the step assigns itself, beside its updates.

        Empty eagerly, where nothing is known about assigns.
        """
        if graph_being_built() is None:
            return []
        known = {id(v) for v in self._state.written(but=self._updates)}
        unread = self._state.missed(variables, but=self._updates)
        known |= {id(v) for v in unread}
        return [v for v in variables if id(v) in known]

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """What is built meanwhile happens only where it may."""
        graph = graph_being_built()
        if graph is None:
            yield
            return
        before = len(graph.get_operations())
        yield
        self._updates |= {op.name for op in graph.get_operations()[before:]}

    def find_late(self) -> None:
        """Notes what the step has assigned without having been read."""
        variables = [*self._model.variables]
        for optimizer in rule.optimizers(self._model):
            variables += optimizer.variables
        self._late += self._state.missed(variables, but=self._updates)

    def undo_unless(
        self, allowed: Any, updates: bool, latch: Callable[[], Any]
    ) -> None:
        """Puts back what the step has assigned.

        Args:
            allowed: bool scalar, where true nothing is done.
            updates: whether updates are to be undone as well.
            latch: called then; whether the run stops here, bool scalar.
        """
        but = () if updates else self._updates
        assigned = self._state.written(but=but)

        def undo() -> None:
            self._put_back(assigned, latch())

        tf.cond(allowed, lambda: None, apart(undo))

    def _put_back(self, assigned: Iterable[Any], stops: Any) -> None:
        """Undoes assigns, but those to metrics that had counted nothing yet.

        Where training stops, these would show 0 for an epoch whose first step
        was bad, a best loss that never was; as the bad step left them, they
        show NaN. Where it goes on, the next step is to find them as new.
        """
        assigned = list(assigned)
        metrics = {id(v) for v in self._model.metrics_variables}
        self._state.put_back(v for v in assigned if id(v) not in metrics)
        counts = [v for v in assigned if id(v) in metrics]
        tracker = self._model._loss_tracker
        if tracker is None or id(tracker.count) not in map(id, counts):
            self._state.put_back(counts)
            return
        tf.cond(
            (self._state[tracker.count] > 0) | ~stops,
            lambda: self._state.put_back(counts),
            lambda: None,
        )
