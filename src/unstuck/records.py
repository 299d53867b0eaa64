"""What a diagnosis says: frozen records, JSON in and out (`unstuck schema` prints their schema).

The keys of `Report`, `Finding`, `Figure`, `RemedyLine` and `Verdict` are stable; new ones may be added.
JSON has no NaN: a figure that is not finite travels as null.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

SCHEMA = "unstuck.report/1"

Severity = Literal["problem", "warning", "note"]
Outcome = Literal["cured", "helped", "no-effect", "worse", "undecided", "not-tried"]


class Figure(msgspec.Struct, frozen=True):
    """One measured number: value ± error (one standard error), from how many samples, at what cost in seconds."""

    name: str
    value: float | None
    unit: str = ""
    error: float | None = None
    samples: int | None = None
    cost_s: float | None = None

    def __str__(self) -> str:
        spread = f" ± {_short(self.error)}" if self.error is not None else ""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} {_short(self.value)}{spread}{unit}"


class RemedyLine(msgspec.Struct, frozen=True):
    """A remedy as the user reads it: what to do, and the line of code to write."""

    id: str
    text: str
    code: str


class Verdict(msgspec.Struct, frozen=True):
    """What the race measured: metric of the control and of the remedied copy (mean over seeds, and its standard error),
    and the 95 % interval of their difference."""

    outcome: Outcome = "not-tried"
    metric: str = ""
    control: float | None = None
    remedied: float | None = None
    interval: tuple[float | None, float | None] | None = None
    steps: int = 0
    seeds: int = 0
    why: str = ""
    control_error: float | None = None
    remedied_error: float | None = None


class Finding(msgspec.Struct, frozen=True):
    """One cause, the evidence it rests on, where it sits, the remedy, and what the race measured of it."""

    cause: str
    severity: Severity
    strength: float | None
    where: str
    summary: str
    evidence: tuple[Figure, ...] = ()
    remedy: RemedyLine | None = None
    verdict: Verdict = Verdict()


class Skipped(msgspec.Struct, frozen=True):
    """A probe (or a part of the capture) that could not be done, and why."""

    probe: str
    why: str


class Cost(msgspec.Struct, frozen=True):
    """Share of the training's time spent watching (0.013 = 1.3 %), and seconds of examination and race."""

    watch_overhead: float | None = None
    examine_s: float | None = 0.0
    race_s: float | None = 0.0


class Curve(msgspec.Struct, frozen=True):
    """A line to draw: y (with low/high where there is an interval) against x."""

    name: str
    x: tuple[float | None, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


class Surface(msgspec.Struct, frozen=True):
    """Heights over a plane: `z[j][i]` at (`x[i]`, `y[j]`), null where not finite; `log`: coloured by the logarithm."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[float | None, ...], ...]
    log: bool = False


class Arrow(msgspec.Struct, frozen=True):
    """An arrow to draw, from (x, y) to (x + dx, y + dy)."""

    x: float
    y: float
    dx: float
    dy: float
    name: str = ""


class Chart(msgspec.Struct, frozen=True):
    """A figure of the report: curves, `bars` or `dots` over x, with horizontal reference levels; or, with
    `heat`, one row of coloured cells for each curve, named after it; or a `surface` seen from above, with the curves
    as paths on it. `arrows` are drawn over lines and surfaces."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...] = ()
    levels: tuple[Figure, ...] = ()
    bars: bool = False
    log_y: bool = False
    note: str = ""
    log_x: bool = False
    dots: bool = False
    heat: bool = False
    surface: Surface | None = None
    arrows: tuple[Arrow, ...] = ()


class PointLine(msgspec.Struct, frozen=True):
    """The point at which a training stands (`unstuck critical`): verdict, figures, and how they were had.

    Intervals are [low, high]; those of λmin and λmax are wrong with probability `failure` at most (0: exact).
    `negative` and `positive`: shares of eigenvalues below −epsilon and above epsilon, at 95 %. `symmetry`, `agreement`:
    what the self-check of the products found; `dropped`: ways of making them that failed it, and why.
    """

    verdict: Literal["saddle", "minimum", "maximum", "flat", "slope", "undecided"]
    why: str
    loss: float | None
    gradient: float | None
    gradient_error: float | None
    promise: float | None
    flatness: float | None
    lambda_min: tuple[float | None, float | None]
    lambda_max: tuple[float | None, float | None]
    failure: float
    epsilon: float
    rayleigh: float | None
    rayleigh_error: float | None
    bends_down: bool
    negative: tuple[float | None, float | None]
    positive: tuple[float | None, float | None]
    escape_length: float | None
    escape_loss: float | None
    samples: int
    parameters: int
    products: int
    gradients: float | None
    rung: str
    symmetry: float | None
    agreement: float | None
    dropped: tuple[str, ...] = ()


class FoundLine(msgspec.Struct, frozen=True):
    """Where one search for a critical point ended (`unstuck critical --find`).

    `kind` is "none" where the point is not critical. `index`: number of negative eigenvalues, null where not all are
    known; `negative`, `zero`: shares of them, [low, high] at 95 %. `lambda_min`, `lambda_max`: exact if `exact`, else
    Ritz values, which lie inside. `residual`: share of the gradient that the best bounded step leaves; `flatness`:
    ‖H∇L‖ / ‖H‖‖∇L‖. `products` and `gradients` were spent.
    """

    outcome: Literal["critical", "gradient-flat", "ran out"]
    kind: Literal["saddle", "minimum", "maximum", "degenerate", "undecided", "none"]
    loss: float | None
    gradient: float | None
    index: int | None
    negative: tuple[float, float]
    zero: tuple[float, float]
    lambda_min: float | None
    lambda_max: float | None
    exact: bool
    residual: float | None
    flatness: float | None
    steps: int
    products: int
    gradients: int


class RaceLine(msgspec.Struct, frozen=True):
    """One setting in a race over settings (`unstuck race`), best first in `Report.race`.

    `score` on held-out data after `steps` steps: mean over `seeds`, with its standard error. "stopped": the better ones
    went on without it; "diverged": its loss stopped being finite. `code`: the line to write.
    """

    optimizer: str
    lr: float
    batch_size: int
    outcome: Literal["finished", "stopped", "diverged"]
    score: float | None
    error: float | None
    train_loss: float | None
    seeds: int
    steps: int
    code: str


class Chapter(msgspec.Struct, frozen=True):
    """A chapter of the lecture on this network (`unstuck examine`): what was found in sentences, figures and charts,
    and what to write, where that was seen to help."""

    id: Literal["steps", "batches", "loss", "normalization"]
    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    advice: RemedyLine | None = None


class Report(msgspec.Struct, frozen=True):
    """The whole diagnosis. `findings` stand in rank order; `healthy` is true exactly when none is a problem.

    `unexplained`: the training falls short of what can be reached on its data, and no cause was proven.
    """

    schema: str = SCHEMA
    healthy: bool = True
    headline: str = ""
    target: str = ""
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    cost: Cost = Cost()
    charts: tuple[Chart, ...] = ()
    unexplained: bool = False
    point: PointLine | None = None
    found: tuple[FoundLine, ...] = ()
    race: tuple[RaceLine, ...] = ()
    best: RemedyLine | None = None
    notes: tuple[str, ...] = ()
    chapters: tuple[Chapter, ...] = ()

    def to_json(self) -> bytes:
        """This report as indented JSON; non-finite numbers become null, halves of surrogate pairs `?`."""
        return encoded(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Report:
        """The report that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)


def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    return msgspec.json.schema(Report)


def encoded(record: msgspec.Struct) -> bytes:
    """A record as indented JSON; non-finite numbers become null, halves of surrogate pairs `?`."""
    return msgspec.json.format(msgspec.json.encode(_sayable(msgspec.to_builtins(record))), indent=2)


def _sayable(value: Any) -> Any:
    """What JSON and UTF-8 can say of it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {key: _sayable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(item) for item in value]
    return value


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not finite" if value is None else str(value)
    return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"
