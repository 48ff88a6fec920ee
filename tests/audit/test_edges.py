"""The places at which numerics tend to break."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.audit.domain import Domain
from gradwatch.audit.edges import places
from gradwatch.audit.subject import Input, Subject


def subject(*domains: Domain) -> Subject:
    """One that is never called; the last of its inputs is trained."""
    last = len(domains) - 1
    inputs = tuple(
        Input(f"x{i}", domain, trained=i == last)
        for i, domain in enumerate(domains)
    )
    return Subject("none", "function", lambda *_: None, inputs)


def of(*domains: Domain) -> list[Any]:
    """Returns the numbers of the last input at all places."""
    return [place.point[-1] for place in places(subject(*domains))]


@pytest.mark.parametrize(
    ("domain", "low", "high"),
    [
        (Domain((4, 3), "unit"), 0, 1),
        (Domain((4, 3), "positive"), 0, 1e4),
        (Domain((4, 3), "range", -2, 3), -2, 3),
        (Domain((4, 3)), -1e4, 1e4),
    ],
)
def test_places_reach_the_ends(domain: Domain, low: float, high: float) -> None:
    """And never go beyond."""
    numbers = np.concatenate([value.ravel() for value in of(domain)])
    assert (numbers.min(), numbers.max()) == (low, high)


def test_rows_of_probabilities_stay_such() -> None:
    """Certain ones among them."""
    found = of(Domain((4, 3), "one_hot"), Domain((4, 3), "simplex"))
    for value in found:
        assert np.allclose(value.sum(-1), 1)
    assert any(np.isin(value, (0, 1)).all() for value in found)


def test_ties_zeros_and_signs() -> None:
    """The places that everybody forgets."""
    pair = Domain((4, 3)), Domain((4, 3))
    every = list(places(subject(*pair)))
    assert any(np.array_equal(*place.point) for place in every)
    zeros = [p.point[1] for p in every if not p.point[1].any()]
    assert {bool(np.signbit(z).all()) for z in zeros} == {False, True}
    tiny = [p for p in every if 0 < np.abs(p.point[1]).max() < 1e-12]
    assert {place.severity for place in tiny} == {"info"}


def test_one_number() -> None:
    """A scalar has places, too."""
    assert all(value.shape == () for value in of(Domain(())))
