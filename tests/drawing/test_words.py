from __future__ import annotations

import math

import pytest

from gradwatch.drawing.words import age, count, duration, number, spans, utc


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (number(None), "-"),
        (number("NaN"), "NaN"),
        (number(math.inf), "Inf"),
        (number("-Infinity"), "-Inf"),
        (number(0.000123456), "0.0001235"),
        (count(1234567), "1\u202f234\u202f567"),
        (duration(None), "-"),
        (duration(0.4), "0 s"),
        (duration(59), "59 s"),
        (duration(61), "1 min 1 s"),
        (duration(7200), "2 h"),
        (duration(90000), "1 d 1 h"),
        (age(-3), "0 s ago"),
        (age(119), "2 min ago"),
        (utc(0), "1970-01-01 00:00:00 UTC"),
        (utc(1e30), "-"),
        (utc(math.nan), "-"),
    ],
)
def test_numbers_and_times_are_readable(told: str, expected: str) -> None:
    """Short, with units, whatever comes."""
    assert told == expected


def test_code_in_a_sentence() -> None:
    """What is in back-ticks; one that is open, or empty, stays as it is."""
    assert spans("Use `a + b` or `c`.") == [
        ("Use ", False),
        ("a + b", True),
        (" or ", False),
        ("c", True),
        (".", False),
    ]
    assert spans("`a`, ` open") == [("a", True), (", ` open", False)]
    assert spans("none: ``") == [("none: ``", False)]
    assert spans("") == []
