"""What an autopsy names: operation, layer, line, and who is to blame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.autopsy import diagnose
from tests.autopsy.origins import ORIGINS


def _variables(model: Any) -> list[Any]:
    each = [*model.variables, *model.optimizer.variables]
    return [v.numpy() for v in each]


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", ORIGINS)
def test_origins_are_named(name: str, jit: bool) -> None:
    """The first origin, not what followed from it; and nothing is changed."""
    case = ORIGINS[name]
    model, batch = case.make()
    model.compile(model.optimizer, model.loss, jit_compile=jit)
    model._symbolic_build(data_batch=batch)
    before = _variables(model)
    found = diagnose(model, batch)
    print(found)
    assert found.operation in case.operation
    assert found.phase == case.phase
    assert found.verdict == case.verdict
    assert found.layer.endswith(case.layer)
    assert bool(found.layer) == bool(case.layer)
    line = "" if found.source is None else found.source.text
    assert line.endswith("# here") is case.line
    mode = case.only or ("xla" if jit else "graph")
    assert found.mode == mode
    assert found.reproducible == (mode == ("xla" if jit else "graph"))
    for old, new in zip(before, _variables(model), strict=True):
        np.testing.assert_array_equal(old, new)
