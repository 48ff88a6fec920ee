"""A time limit that also holds where TensorFlow is at work.

What has a limit asks it at each operation that a trace makes, and at each call
of a function; a function that runs is cancelled at its next kernel. What XLA
compiles or runs cannot be interrupted: it is left to a daemon thread. Read in
tensorflow 2.21: `python/eager/cancellation.py`,
`python/framework/func_graph.py` (_create_op_internal).
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tensorflow.python.eager.cancellation import CancellationManager

__all__ = ["Limit", "TimeUp"]

_GRACE_SECONDS = 1.0
_LEAVING_SECONDS = 10.0
_Result = TypeVar("_Result")


class TimeUp(BaseException):
    """The limit is reached.

    No `Exception`: code of the user's that runs in a trace may catch those.
    """


class Limit:
    """When to give up.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._until = time.monotonic() + seconds
        self._stopped = False
        self._manager = CancellationManager()

    def check(self) -> None:
        """Raises `TimeUp` if it is reached."""
        if self._stopped or time.monotonic() >= self._until:
            raise TimeUp

    def call(self, function: Any, *inputs: Any) -> Any:
        """Calls a concrete function, which is cancelled by `stop`."""
        # One for each call: TensorFlow cancels that of a function that fails.
        self._manager = CancellationManager()
        self.check()
        return self._manager.get_cancelable_function(function)(*inputs)

    def stop(self) -> None:
        """Reaches the limit at once; any thread."""
        self._stopped = True
        self._manager.start_cancel()

    @contextlib.contextmanager
    def tracing(self, graph: Any) -> Iterator[None]:
        """Each operation that is put into a `FuncGraph` meanwhile asks."""
        original = graph._create_op_internal

        def create(*args: Any, **kwargs: Any) -> Any:
            self.check()
            return original(*args, **kwargs)

        graph._create_op_internal = create
        try:
            yield
        finally:
            del graph._create_op_internal

    def run(self, call: Callable[[], _Result]) -> _Result:
        """Returns `call()`, made in a thread of its own.

        A thread that does not end is left behind. It blocks the end of the
        process for ten seconds at most: TensorFlow crashes where functions
        still run when it is taken down.

        Raises:
            TimeUp: it has not returned in time.
            Exception: what `call` has raised.
        """
        results: list[_Result] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(call())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(
            target=work, name="gradwatch-autopsy", daemon=True
        )
        thread.start()
        try:
            left = self._until - time.monotonic()
            thread.join(None if math.isinf(left) else max(left, 0.0))
        finally:
            late = thread.is_alive()
            if late:
                self.stop()
                thread.join(_GRACE_SECONDS)
            if thread.is_alive():
                atexit.register(thread.join, _LEAVING_SECONDS)
        if results:
            return results[0]
        raise TimeUp if late else errors[0]
