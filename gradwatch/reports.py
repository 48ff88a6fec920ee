"""What an autopsy says: plain data, and how it is put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal, Self

__all__ = ["Autopsy", "Phase", "Source", "Verdict"]

_FEW = 3  # examples that a headline names
_LONG = 80
"""So much of a source line is quoted; `Source` holds all of it."""

Phase = Literal["data", "forward", "backward", "update", ""]
"""Where NaN or Inf began; `""` where nothing was found."""

Verdict = Literal[
    "data", "model", "precision", "optimizer", "not reproducible", "unfinished"
]
"""Who is to blame: the batch itself; an operation of the model or the loss; the
same, but it is finite in float64; an earlier update, which has left weights
that are not finite; nobody that a replay can find; not known, as the replay was
not over in time, or failed."""


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the user's code.

    Attributes:
        file: as Python names it.
        line: counted from 1.
        function: name of the function that it is in.
        text: the line itself, `""` where it cannot be read.
    """

    file: str
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        """In short: file, line and what is written there."""
        text = self.text
        if len(text) > _LONG:
            text = f"{text[: _LONG - 3]}..."
        code = f": `{text}`" if text else ""
        return f"{PurePath(self.file).name}:{self.line}{code}"


@dataclass(frozen=True, slots=True)
class Autopsy:
    """Where NaN or Inf came from in one step.

    Attributes:
        verdict: see `Verdict`.
        phase: see `Phase`.
        operation: type of the operation that made NaN or Inf of finite
            numbers, as TensorFlow names it (`Log`); backward, the one whose
            derivative did; `""` where there is none.
        layer: path of the layer that it is in, `""` where it is in none.
        source: the user's line that made it, `None` where there is none (a
            layer of Keras', say).
        component: the first marked term of the loss that is not finite.
        samples: numbers of the examples that are concerned, in the batch; of
            at most 16, and none where they cannot be told apart.
        inputs: one sentence for each input of the operation.
        mode: `graph` or `xla`, in which it was reproduced.
        reproducible: whether it was, in the run's own mode.
        advice: what to do.
        turn: how often the innermost loop had run before, -1 outside of loops.
        step: number of the step, -1 if not known.
        optimizer_step: `optimizer.iterations` before it, -1 if not known.
        note: a sentence on what was replayed, or why it is unfinished.
    """

    verdict: Verdict
    phase: Phase = ""
    operation: str = ""
    layer: str = ""
    source: Source | None = None
    component: str = ""
    samples: Sequence[int] = ()
    inputs: Sequence[str] = ()
    mode: str = ""
    reproducible: bool = False
    advice: str = ""
    turn: int = -1
    step: int = -1
    optimizer_step: int = -1
    note: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads back what `strict_json.dumps` wrote."""
        source = data["source"] and Source(**data["source"])
        return cls(**{**data, "source": source})

    def headline(self) -> str:
        """Returns one line that says it all."""
        if self.verdict == "unfinished":
            return f"No autopsy: {self.note}"
        if self.verdict == "not reproducible":
            return "Replayed, the step is finite: nothing was found."
        if self.verdict == "data":
            what = "The batch itself holds NaN or Inf"
        elif self.verdict == "optimizer":
            what = "Weights were not finite before the step"
        else:
            of = "The gradient of " if self.phase == "backward" else ""
            what = f"{of}{self.operation} is not finite"
        return f"{what}{self._where()}."

    def brief(self) -> dict[str, Any]:
        """Returns plain data, as `state.json` has it."""
        return {
            "step": self.step,
            "verdict": self.verdict,
            "headline": self.headline(),
        }

    def _where(self) -> str:
        parts = []
        if self.layer:
            parts.append(f" in {self.layer}")
        if self.source is not None:
            parts.append(f" in {self.source.function} ({self.source})")
        if self.component:
            parts.append(f", in the term {self.component}")
        if self.turn >= 0:
            parts.append(f", at turn {self.turn} of the loop")
        if self.samples:
            few = ", ".join(map(str, self.samples[:_FEW]))
            several = "s" if len(self.samples) > 1 else ""
            more = " and more" if len(self.samples) > _FEW else ""
            parts.append(f", in example{several} {few}{more}")
        return "".join(parts)

    def to_dict(self) -> Mapping[str, Any]:
        """Returns plain data, as `autopsy.json` has it."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Returns the report, as `autopsy.md` has it."""
        lines = [f"# Autopsy of step {self.step}", "", self.headline(), ""]
        if self.source is not None:
            lines.append(f"- Source: {self.source.file}:{self.source.line}.")
        lines += [f"- {said}" for said in self.inputs]
        if self.samples:
            told = ", ".join(map(str, self.samples))
            lines.append(f"- Examples of the batch: {told}.")
        lines.append(f"- Verdict: {self.verdict}.")
        if self.mode:
            own = "" if self.reproducible else ", not in the run's own mode"
            lines.append(f"- Reproduced: {self.mode}{own}.")
        if self.note and self.verdict != "unfinished":
            lines.append(f"- {self.note}")
        return "\n".join([*lines, "", self.advice, ""]).rstrip() + "\n"
