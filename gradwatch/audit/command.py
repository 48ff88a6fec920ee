"""`gradwatch audit`: the gradients of a function, before it trains."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from gradwatch.errors import GradWatchError, not_installed
from gradwatch.terminal import Json, failed, wide_console

__all__ = ["Severities", "audit", "register"]


class Severities(StrEnum):
    """How bad a finding must be for the command to fail."""

    info = "info"
    warning = "warning"
    critical = "critical"


_Name = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A function or object: loss, activation, layer. A class is "
        "called without arguments.",
    ),
]
_Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="NAME=SHAPE[/LOW..HIGH][/int]",
        help="What an argument is like: y_pred=4x3/0..1; may be repeated.",
    ),
]
_Seed = Annotated[int, typer.Option(help="Of the points that are drawn.")]
_Second = Annotated[
    bool,
    typer.Option(
        "--second-order",
        help="Also the second derivative, which a penalty on gradients takes.",
    ),
]
_FailOn = Annotated[
    Severities, typer.Option(help="Least severity that fails: status 3.")
]


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(
        epilog="Examples:\n\ngradwatch audit losses:focal\n\n"
        "gradwatch audit losses:focal --input y_pred=8x1/0..1 "
        "--input y_true=8x1/0..1"
    )(audit)


def audit(
    function: _Name,
    inputs: _Inputs = [],  # noqa: B006
    seed: _Seed = 0,
    second_order: _Second = False,
    as_json: Json = False,
    fail_on: _FailOn = Severities.warning,
) -> None:
    """Prove the gradients of a custom loss, activation or layer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gradwatch.audit import audit as run
    from gradwatch.strict_json import dumps

    try:
        report = run(
            _resolved(function),
            inputs=_stated(inputs),
            seed=seed,
            second_order=second_order,
        )
    except ModuleNotFoundError as error:
        what = "`gradwatch audit`"
        said = not_installed(what, str(error.name), "tensorflow")
        raise failed(said) from None
    except GradWatchError as error:
        raise failed(str(error)) from None
    if as_json:
        typer.echo(dumps(report.to_dict()))
    else:
        from gradwatch.audit.words import printed

        printed(report, wide_console())
    if report.fails(fail_on.value):
        raise typer.Exit(3)


def _stated(options: list[str]) -> dict[str, str] | None:
    """Returns `NAME=DOMAIN` options as a dict, `None` if there are none."""
    pairs = [option.partition("=") for option in options]
    wrong = [option for option, pair in zip(options, pairs) if not pair[2]]
    if wrong:
        raise failed(
            "`--input`: Expected NAME=SHAPE[/LOW..HIGH][/int]. "
            f"Received: {wrong[0]}."
        )
    return {name: domain for name, _, domain in pairs} or None


def _resolved(name: str) -> Any:
    """Returns what `MODULE:NAME` is, also of the working directory's."""
    sys.path.insert(0, "")
    try:
        found = pkgutil.resolve_name(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise failed(f"`{name}`: {error}.") from None
    if not inspect.isclass(found):
        return found
    try:
        return found()
    except TypeError as error:
        said = f"`{name}` is a class. Name an object of it: {error}."
        raise failed(said) from None
