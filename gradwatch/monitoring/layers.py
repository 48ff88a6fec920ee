"""The dashboard of a run's layers and variables: where is it, then?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradwatch.monitoring.alert import finite
from gradwatch.monitoring.board import (
    LAYERS,
    Row,
    board,
    run_variable,
    values_variable,
)
from gradwatch.monitoring.charts import timeseries
from gradwatch.monitoring.panels import (
    NONE_WANTED,
    Mark,
    Panel,
    Query,
    status_history,
)
from gradwatch.monitoring.queries import BY, RATE, Shown, positive
from gradwatch.monitoring.tables import Column, table
from gradwatch.monitoring.thresholds import Settings
from gradwatch.rules.movement import FAR, USUAL
from gradwatch.rules.replaced import BOLD

__all__ = ["layers"]

_FIRST = 10  # of a list
_VARIABLE, _LAYER = "{{variable}}", "{{layer}}"
_MOVES: tuple[Mark, ...] = (
    (None, "text"),
    (USUAL, "green"),
    (BOLD, "yellow"),
    (FAR, "red"),
)
"""An update's norm over that of its weights, as the rules see it."""

_SHARES: tuple[Mark, ...] = ((None, "green"), (0.5, "yellow"), (1, "red"))


def layers(s: Settings) -> dict[str, Any]:
    """Returns the dashboard of the layers and variables of one run."""
    shown = Shown(s, "$run")
    return board(
        LAYERS,
        "gradwatch: layers of a run",
        "Layers and variables of one run: which of them is it?",
        shown,
        [
            run_variable(),
            values_variable(
                "variable", "Variable", "gradwatch_variable_gradient_norm"
            ),
            values_variable("layer", "Layer", "gradwatch_layer_std"),
        ],
        [
            Row("Where to look", list(_extremes(shown))),
            Row("Map", list(_maps(shown))),
            Row("Variables", list(_variables(shown))),
            Row("Outputs of layers", list(_outputs(shown)), collapsed=True),
        ],
        page="runs/${run}",
    )


def _variable(shown: Shown, name: str) -> str:
    return shown.series(name, variable="=~$variable")


def _layer(shown: Shown, name: str) -> str:
    return shown.series(name, layer="=~$layer")


def _moves(shown: Shown) -> str:
    """Returns the norm of updates over that of the weights they change."""
    update = positive(_variable(shown, "variable_update_norm"))
    weight = positive(_variable(shown, "variable_weight_norm"))
    return f"{update} / on ({BY}, variable) {weight}"


def _extremes(shown: Shown) -> Iterator[Panel]:
    """Yields short lists of those that stand out."""
    norm = positive(shown.series("variable_gradient_norm"))
    yield _list(
        "Largest gradients",
        "gradwatch_variable_gradient_norm, of the last step. Where one is far "
        "above all others, an exploding gradient begins.",
        f"topk({_FIRST}, max by (variable) ({norm}))",
        "variable",
        Column("Norm", "sci", 110, decimals=2),
    )
    yield _list(
        "Smallest gradients",
        "gradwatch_variable_gradient_norm, of the last step, those that are "
        "not 0. Falling from the last layer to the first: the gradient "
        "vanishes.",
        f"bottomk({_FIRST}, max by (variable) ({norm}))",
        "variable",
        Column("Norm", "sci", 110, decimals=2),
    )
    zero = shown.finite("variable_zero_gradient_ratio")
    yield _list(
        "Most zeros in the gradient",
        "gradwatch_variable_zero_gradient_ratio at the last X-ray. 100 %: "
        "nothing reaches the variable, it does not learn. Rows of embeddings "
        "that the batch does not use are 0, too.",
        f"topk({_FIRST}, max by (variable) ({zero}))",
        "variable",
        Column("Zeros", "percentunit", 110, marks=_SHARES, decimals=0),
    )
    silent = shown.finite("layer_silent_ratio")
    yield _list(
        "Most silent units",
        "gradwatch_layer_silent_ratio at the last X-ray: units that are 0 for "
        "the whole batch. Dead ReLUs do not come back: lower the learning "
        "rate, start with other weights.",
        f"topk({_FIRST}, max by (layer) ({silent}))",
        "layer",
        Column("Silent", "percentunit", 110, marks=_SHARES, decimals=0),
    )


def _list(
    title: str, description: str, expr: str, label: str, column: Column
) -> Panel:
    columns = {label: Column(label.capitalize()), "Value": column}
    return table(
        title, description, [expr], columns, width=6, sort=column.title
    )


def _maps(shown: Shown) -> Iterator[Panel]:
    """Yields strips of cells, a strip for each variable or layer."""
    norm = positive(_variable(shown, "variable_gradient_norm"))
    yield status_history(
        "Gradient norms, as powers of ten",
        "log10 of gradwatch_variable_gradient_norm: blue is small, red large. "
        "There is no cell where it is 0, NaN or Inf. Strips that part over "
        "time: some layers stop learning.",
        "none",
        [Query(f"log10({norm})", _VARIABLE)],
        height=12,
    )
    events = _variable(shown, "variable_nonfinite_events_total")
    yield status_history(
        "Gradients with NaN or Inf",
        "gradwatch_variable_nonfinite_events_total, of the steps between two "
        "cells.",
        "none",
        [
            Query(
                f"sum by (variable) (increase({events}[{RATE}]))",
                _VARIABLE,
            )
        ],
        marks=NONE_WANTED,
        width=12,
        height=10,
    )
    silent = finite(_layer(shown, "layer_silent_ratio"))
    yield status_history(
        "Silent units",
        "gradwatch_layer_silent_ratio, of the last X-ray. A strip that turns "
        "red is a layer that dies.",
        "percentunit",
        [Query(silent, _LAYER)],
        marks=_SHARES,
        width=12,
        height=10,
    )


def _variables(shown: Shown) -> Iterator[Panel]:
    """Yields lines, one for each variable that is chosen."""
    yield timeseries(
        "Update over weight",
        "gradwatch_variable_update_norm over gradwatch_variable_weight_norm, "
        f"of the last X-ray. Around {USUAL:g} is usual; from {BOLD:g} on, "
        f"where it is bold, lower the learning rate; from {FAR:g} on, what was "
        "learned is replaced. Far below the first line, raise it. What began "
        "as zeros is above at first.",
        "sci",
        [Query(_moves(shown), _VARIABLE)],
        scale="log",
        marks=_MOVES,
    )
    for title, name, what in (
        (
            "Gradient norm",
            "variable_gradient_norm",
            "of every step, before clipping, where it is finite and not 0.",
        ),
        (
            "Weight norm",
            "variable_weight_norm",
            "of the last X-ray. It should settle; where it grows on and on, a "
            "weight decay is missing, or the loss has no minimum.",
        ),
        (
            "Largest entry of the gradient",
            "variable_gradient_max_abs",
            "of the last X-ray. Next to the norm it says whether few entries "
            "are all of the gradient: in float16, 65,504 is the end.",
        ),
    ):
        norm = positive(_variable(shown, name))
        yield timeseries(
            title,
            f"gradwatch_{name} {what}",
            "sci",
            [Query(norm, _VARIABLE)],
            scale="log",
        )


def _outputs(shown: Shown) -> Iterator[Panel]:
    """Yields what is known of the outputs of layers, at X-rays."""
    for title, name, what in (
        (
            "Spread of outputs",
            "layer_std",
            "Falling or growing from layer to layer, the signal fades or "
            "explodes: other initial weights, or a normalisation.",
        ),
        (
            "Largest output",
            "layer_max_abs",
            "In float16, 65,504 is the end.",
        ),
    ):
        yield timeseries(
            title,
            f"gradwatch_{name} at the last X-ray. {what}",
            "sci",
            [Query(positive(_layer(shown, name)), _LAYER)],
            scale="log",
        )
    yield from _units(shown)


def _units(shown: Shown) -> Iterator[Panel]:
    """Yields which units do nothing any more."""
    for title, name, what in (
        (
            "Silent units",
            "layer_silent_ratio",
            "Units that are 0 for the whole batch.",
        ),
        (
            "Outputs at a bound",
            "layer_bound_ratio",
            "Of sigmoid, tanh and the like, where the derivative is next to "
            "nothing: scale the inputs of the layer.",
        ),
    ):
        yield timeseries(
            title,
            f"gradwatch_{name} at the last X-ray. {what}",
            "percentunit",
            [Query(finite(_layer(shown, name)), _LAYER)],
            limits=(0, 1),
        )
