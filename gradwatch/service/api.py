"""The API: what is known of the runs, as strict JSON."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from gradwatch.service.options import Options
from gradwatch.service.rows import details, rows
from gradwatch.service.runs import Runs, Seen
from gradwatch.service.scanner import Scanner, Stuck, View
from gradwatch.strict_json import dumps

__all__ = ["Api", "ranks_of"]


class Api:
    """Answers `/api/runs` and `/api/runs/{run}`.

    Args:
        runs: whose clock it is.
        scanner: finds them.
        options: see `Options`.
    """

    def __init__(self, runs: Runs, scanner: Scanner, options: Options) -> None:
        self._clock = runs.clock
        self._scanner = scanner
        self._stalled_after = options.stalled_after

    async def runs(self, request: Request) -> Response:
        """All runs that can be read, and what could not be."""
        try:
            view = await self._scanner.view()
        except Stuck:
            return _stuck()
        clock = self._clock()
        listed = rows(view.seen, clock, self._stalled_after)
        return _json({"time": clock, "runs": listed, "errors": view.errors})

    async def run(self, request: Request) -> Response:
        """One run, with all that is known of it."""
        try:
            view = await self._scanner.view()
        except Stuck:
            return _stuck()
        ranks = ranks_of(view, request.path_params["run"])
        if not ranks:
            return _json({"error": "There is no such run."}, 404)
        clock = self._clock()
        told = details(ranks, clock, self._stalled_after)
        return _json({"time": clock, **told})


def ranks_of(view: View, run: str) -> Sequence[Seen]:
    """Returns the workers of a run, none if it is not known."""
    return [s for s in view.seen if s.snapshot["run"]["id"] == run]


def _json(data: object, status: int = 200) -> Response:
    return Response(dumps(data), status, media_type="application/json")


def _stuck() -> Response:
    return _json({"error": "The runs cannot be read at the moment."}, 503)
