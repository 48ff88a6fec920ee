"""What Keras calls of gradwatch never raises into `fit`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from gradwatch.errors import GradWatchError

__all__ = ["harmless"]

_log = logging.getLogger("gradwatch")
_Hook = TypeVar("_Hook", bound=Callable[..., None])


def harmless(hook: _Hook) -> _Hook:
    """A fault of gradwatch in this hook is logged, and that is all."""

    @functools.wraps(hook)
    def safe(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except GradWatchError:
            raise
        except Exception:
            _log.exception("gradwatch failed; training goes on.")

    return safe  # type: ignore[return-value]
