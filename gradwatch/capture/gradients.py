"""What tapes gave: gradients as they were before the user's own code.

Between `tape.gradient` and `optimizer.apply` a custom `train_step` may clip,
rescale or add gradients. This pairs what an optimizer got with what the tapes
gave for the same variables. Read in tensorflow 2.21:
`python/eager/backprop.py`, `python/eager/tape.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python import pywrap_tfe

from gradwatch.capture.anatomy import key

__all__ = ["Taken", "Tapes"]


class _Call(NamedTuple):
    """One call of `tape.gradient`.

    Attributes:
        targets: the tensors that were differentiated.
        gradients: `key` of a source -> its gradient.
        missing: `key` of the sources that have none.
        outermost: whether no other tape recorded the call, as it would for
            a gradient penalty or a second derivative.
    """

    targets: list[Any]
    gradients: dict[int, Any]
    missing: frozenset[int]
    outermost: bool


class Taken(NamedTuple):
    """What the tapes gave for some variables.

    Attributes:
        gradients: one each, a tensor or `tf.IndexedSlices`.
        targets: the tensors that were differentiated for them.
        changed: whether the optimizer gets anything else.
    """

    gradients: list[Any]
    targets: list[Any]
    changed: bool


class Tapes:
    """The calls of `tape.gradient` in one trace."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(self, target: Any, sources: Any, gradients: Any) -> None:
        """Takes the arguments and the result of a call, just after it."""
        found = dict(
            zip(map(key, tf.nest.flatten(sources)), tf.nest.flatten(gradients))
        )
        given = {source: g for source, g in found.items() if g is not None}
        missing = frozenset(found.keys() - given.keys())
        alone = bool(pywrap_tfe.TFE_Py_TapeSetIsEmpty())
        targets = tf.nest.flatten(target)
        self._calls.append(_Call(targets, given, missing, alone))

    def take(self, variables: Sequence[Any], got: Sequence[Any]) -> Taken:
        """Returns what the tapes gave for `variables`, and forgets it.

        Gradients that several outermost calls gave for the same variable are
        summed: those of several losses are. Of nested calls the last counts.

        Args:
            variables: `keras.Variable`s or `tf.Variable`s.
            got: the gradient that the optimizer got for each; `None` where
                there is no optimizer.
        """
        gradients, used = [], []
        for variable, gradient in zip(variables, got, strict=True):
            calls = self._calls_for(key(variable))
            given = [call.gradients[key(variable)] for call in calls]
            if gradient is not None and any(g is gradient for g in given):
                # Handed on as it is: no question which of them was meant.
                calls = [c for c, g in zip(calls, given) if g is gradient]
                given = [gradient]
            if given:
                gradient = _sum(given)
            gradients.append(gradient)
            used += calls
        for call in self._calls:
            for variable in variables:
                call.gradients.pop(key(variable), None)
        targets = {id(t): t for call in used for t in call.targets}
        pairs = zip(gradients, got, strict=True)
        changed = any(g is not None and g is not given for given, g in pairs)
        return Taken(gradients, list(targets.values()), changed)

    def targets(self) -> list[Any]:
        """Returns the tensors that were differentiated, each once."""
        found = {id(t): t for call in self._calls for t in call.targets}
        return list(found.values())

    def missed(
        self, variables: Sequence[Any]
    ) -> Iterator[tuple[list[Any], list[Any]]]:
        """Yields targets, and those of `variables` that none of them has.

        Variables that no tape was asked for come with no target.
        """
        groups: dict[tuple[int, ...], list[Any]] = {}
        for variable in variables if self._calls else ():
            known = [
                i
                for i, c in enumerate(self._calls)
                if key(variable) in c.missing
            ]
            groups.setdefault(tuple(known), []).append(variable)
        for calls, group in groups.items():
            yield [t for i in calls for t in self._calls[i].targets], group

    def rest(self, variables: Sequence[Any]) -> list[Any]:
        """Returns those of `variables` that have gradients nobody took."""
        return [v for v in variables if self._calls_for(key(v))]

    def _calls_for(self, variable: int) -> list[_Call]:
        calls = [c for c in self._calls if variable in c.gradients]
        return [c for c in calls if c.outermost] or calls[-1:]


def _sum(gradients: list[Any]) -> Any:
    if len(gradients) == 1:
        return gradients[0]
    return tf.add_n([tf.convert_to_tensor(g) for g in gradients])
