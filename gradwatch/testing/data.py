"""Data of the scenarios: scikit-learn's own, and some that is made.

Nothing is downloaded, and all of it is the same each time. Inputs are float32
unless said otherwise; class ids are int64 `[n]`, other targets float32
`[n, k]`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch.testing.digits import digits

__all__ = [
    "Data",
    "cancer",
    "characters",
    "circles",
    "counts",
    "diabetes",
    "digit_ids",
    "digit_images",
    "factors",
    "first_symbol",
    "houses",
    "iris",
    "line",
    "moons",
    "prices",
    "ratings",
    "scaled",
    "sine",
    "snippets",
    "waves",
    "wine",
]


class Data(NamedTuple):
    """Inputs and targets, a row an example."""

    x: Any
    y: Any


def scaled(values: Any) -> NDArray[np.float32]:
    """Returns columns of mean 0 and standard deviation 1."""
    centred = values - values.mean(0)
    return (centred / (centred.std(0) + 1e-9)).astype(np.float32)


def _column(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(-1, 1)


@cache
def digit_ids() -> Data:
    """Handwritten digits `[1797, 64]` in [0, 1]; which digit."""
    x, y = digits()
    return Data(x, y.argmax(1))


def digit_images() -> Data:
    """The same as images `[1797, 8, 8, 1]`."""
    x, y = digit_ids()
    return Data(x.reshape(-1, 8, 8, 1), y)


@cache
def cancer(raw: bool = False) -> Data:
    """Tumours `[569, 30]`, standardised or as measured; 1 = benign."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return Data(x.astype(np.float32) if raw else scaled(x), _column(y))


@cache
def iris() -> Data:
    """Flowers `[150, 4]`, standardised; which of 3 species."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return Data(scaled(x), y)


@cache
def wine(raw: bool = False) -> Data:
    """Wines `[178, 13]`, standardised or from 0.1 to 1,680; which of 3."""
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    return Data(x.astype(np.float32) if raw else scaled(x), y)


@cache
def diabetes(raw: bool = False) -> Data:
    """Patients `[442, 10]`; progression, standardised or from 25 to 346."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return Data(scaled(x), _column(y) if raw else scaled(_column(y)))


@cache
def line() -> Data:
    """Y = 3 x for x `[300, 1]` from 0 to 30."""
    x = np.linspace(0, 30, 300)
    return Data(_column(x), _column(3 * x))


@cache
def sine() -> Data:
    """X `[512, 1]` in [-1, 1] and a noisy sine of two periods."""
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, 512)
    y = np.sin(2 * np.pi * x) + 0.1 * random.normal(size=512)
    return Data(_column(x), _column(y))


@cache
def circles() -> Data:
    """Points `[600, 2]` on two circles; 1 = the inner one."""
    from sklearn.datasets import make_circles

    x, y = make_circles(600, noise=0.05, factor=0.4, random_state=0)
    return Data(x.astype(np.float32), _column(y))


@cache
def moons() -> Data:
    """Points `[1000, 2]` on two half moons, standardised; 1 = the lower."""
    from sklearn.datasets import make_moons

    x, y = make_moons(1000, noise=0.05, random_state=0)
    return Data(scaled(x), _column(y))


@cache
def houses() -> Data:
    """Made houses `[800, 4]`: square feet, rooms, year, miles; dollars."""
    random = np.random.default_rng(2)
    feet = random.uniform(500, 4000, 800)
    rooms = np.round(feet / 450 + random.normal(size=800)).clip(1)
    year = random.integers(1900, 2020, 800)
    miles = random.exponential(10, 800)
    price = 120 * feet + 9e3 * rooms + 800 * (year - 1900) - 4e3 * miles
    price += random.normal(size=800) * 2e4
    x = np.stack([feet, rooms, year, miles], 1)
    return Data(x.astype(np.float32), _column(price))


@cache
def prices(low: float = -2.0, high: float = 2.0) -> Data:
    """The houses, inputs standardised, prices from `low` to `high`."""
    x, y = houses()
    share = (y - y.min()) / (y.max() - y.min())
    return Data(scaled(x), low + (high - low) * share)


@cache
def counts() -> Data:
    """Inputs `[1000, 5]` and counts around exp(x w)."""
    random = np.random.default_rng(3)
    x = random.normal(size=(1000, 5))
    rate = np.exp(x @ [0.6, -0.4, 0.3, 0.0, 0.2] + 0.5)
    return Data(x.astype(np.float32), _column(random.poisson(rate)))


@cache
def factors(kept: int = 4) -> Data:
    """Rows `[1000, 16]` made of `kept` hidden numbers; they are the target."""
    random = np.random.default_rng(4)
    hidden = random.normal(size=(1000, kept))
    mixed = hidden @ random.normal(size=(kept, 16)) if kept < 16 else hidden
    x = scaled(mixed)
    return Data(x, x)


@cache
def ratings() -> Data:
    """Ids of user and film, int `[3000, 2]`, and ratings around 0."""
    random = np.random.default_rng(5)
    users, films = random.normal(size=(60, 3)), random.normal(size=(40, 3))
    ids = np.stack([random.integers(0, n, 3000) for n in (60, 40)], 1)
    scores = (users[ids[:, 0]] * films[ids[:, 1]]).sum(1)
    return Data(ids, _column(scores + 0.2 * random.normal(size=3000)))


@cache
def waves() -> Data:
    """Pieces `[600, 24, 1]` of two sines with noise; the next value."""
    random = np.random.default_rng(6)
    time = np.arange(700)
    wave = np.sin(time / 4) + 0.5 * np.sin(time / 9)
    wave += 0.05 * random.normal(size=700)
    x = np.stack([wave[i : i + 24] for i in range(600)])
    return Data(x[..., None].astype(np.float32), _column(wave[24:624]))


@cache
def first_symbol(length: int = 20) -> Data:
    """Ids, int `[800, length]`, of 4 symbols; which was the first."""
    x = np.random.default_rng(7).integers(0, 4, (800, length))
    return Data(x, x[:, 0].copy())


@cache
def _text() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters of scikit-learn's descriptions of data, and which of 4."""
    from sklearn import datasets

    names = ("iris", "wine", "diabetes", "breast_cancer")
    texts = [getattr(datasets, f"load_{n}")().DESCR[:2200] for n in names]
    codes = [np.frombuffer(t.encode("ascii", "replace"), "u1") for t in texts]
    source = np.repeat(np.arange(4), [len(c) for c in codes])
    return np.minimum(np.concatenate(codes), 127).astype(np.int64), source


@cache
def snippets(length: int = 60) -> Data:
    """Ids of characters, int `[1000, length]`; from which text of 4."""
    text, source = _text()
    starts = np.linspace(0, len(text) - length - 1, 1000).astype(int)
    x = np.stack([text[i : i + length] for i in starts])
    return Data(x, source[starts + length // 2])


@cache
def characters(length: int = 16) -> Data:
    """Ids of characters, int `[1500, length]`; the next of each."""
    text, _ = _text()
    starts = np.linspace(0, len(text) - length - 1, 1500).astype(int)
    x = np.stack([text[i : i + length + 1] for i in starts])
    return Data(x[:, :-1], x[:, 1:])
