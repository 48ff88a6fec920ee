"""Errors that gradwatch raises on purpose; imports nothing of gradwatch.

User errors are raised at construction or at install, before the first step.
During training only `NonFiniteError` is raised, and only by the policy that the
user chose (`on_nonfinite="raise"`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch.records import Finding

__all__ = [
    "GradWatchError",
    "NonFiniteError",
    "UnsupportedError",
    "expected",
    "not_installed",
]


class GradWatchError(Exception):
    """Base class of all errors that gradwatch raises itself."""


class UnsupportedError(GradWatchError):
    """A way of training that gradwatch cannot watch correctly (yet).

    Raised before the first step, because a wrong measurement is worse than
    none.
    """


class NonFiniteError(GradWatchError):
    """Raised out of `fit` at a non-finite step under `on_nonfinite="raise"`.

    Attributes:
        step: 0-based number of the training batch that was not finite.
        finding: the `Finding` that names subject and evidence, or `None` when
            the rules in use do not judge non-finite steps.
    """

    def __init__(self, step: int, finding: Finding | None = None) -> None:
        self.step = step
        self.finding = finding
        said = f": {finding.message} {finding.advice}" if finding else "."
        super().__init__(
            f"Step {step} was not finite; its update was dropped and the "
            f"weights are those before it{said}"
        )


def expected(argument: str, what: str, received: object, do: str) -> str:
    """Returns one error message in the form that Keras' users know.

    Args:
        argument: name of the argument or thing, without back-ticks.
        what: what was expected there.
        received: the value received; shown with `repr`.
        do: what the user can do about it, a full sentence.
    """
    return f"`{argument}`: Expected {what}. Received: {received!r}. {do}"


def not_installed(what: str, package: str, extra: str) -> str:
    """Returns the message of a package that is missing.

    Args:
        what: what needs it, as a sentence begins.
        package: name of the package.
        extra: gradwatch's extra that installs it, several with commas.
    """
    return (
        f"{what} needs {package}, which is not installed. "
        f"Install it with: pip install 'gradwatch[{extra}]'"
    )
