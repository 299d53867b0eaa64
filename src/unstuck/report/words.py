"""How the numbers and outcomes of a report are said; the terminal, the page and its figures share these words."""

from __future__ import annotations

import math
import unicodedata

from unstuck.records import Cost, Figure, Finding, FoundLine, Report, Verdict

UNSEEN = ("Cc", "Cf", "Cs")
OUTCOMES = {
    "cured": "cured",
    "helped": "helped",
    "no-effect": "no effect",
    "worse": "worse",
    "undecided": "undecided",
    "not-tried": "not tried",
}


def clean(text: str) -> str:
    """The text without control characters: a layer's name must not steer the terminal. Newlines and tabs stay."""
    lines = text.replace("\r\n", "\n")
    return "".join("�" if unicodedata.category(char) in UNSEEN and char not in "\n\t" else char for char in lines)


def finite(value: float | None) -> float | None:
    """The value, or None where it is missing, infinite or NaN: as it would come back from JSON."""
    return value if value is not None and math.isfinite(value) else None


def number(value: float | None) -> str:
    """Three significant digits, whole numbers up to a million in full, powers of ten as in `1.2e-7`.

    >>> number(0.93), number(1797.0), number(1.2e-7), number(float("nan"))
    ('0.93', '1797', '1.2e-7', 'not finite')
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    if 100 <= abs(value) < 1e6:
        return f"{value:.0f}"
    mantissa, e, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def spread(value: float | None, error: float | None) -> str:
    """The value, with as many decimals as its standard error can stand for.

    >>> spread(2.30251, 0.0042), spread(87.2, 1.3), spread(0.93, None)
    ('2.303 ± 0.004', '87.2 ± 1.3', '0.93')
    """
    sure, doubt = finite(value), finite(error)
    if sure is None or not doubt or doubt < 1e-9 * abs(sure):  # rounding is no doubt
        return number(value)
    decimals = _decimals(doubt)
    if decimals > 5 or abs(sure) >= 1e6:
        return f"{number(sure)} ± {number(doubt)}"
    return f"{sure:.{decimals}f} ± {doubt:.{decimals}f}"


def amount(figure: Figure) -> str:
    """A figure without its name: value, standard error, unit."""
    return clean(f"{spread(figure.value, figure.error)} {figure.unit}".rstrip())


def samples(figure: Figure) -> str:
    """How many samples stand behind a figure, or nothing."""
    return "" if figure.samples is None else _count(figure.samples, "sample")


def measured(verdict: Verdict) -> str:
    """One sentence of what the race measured, or why it did not.

    >>> measured(Verdict("cured", "accuracy", 0.11, 0.9, (0.77, 0.81), steps=300, seeds=3, remedied_error=0.02))
    'accuracy after 300 steps: 0.11 as it is, 0.90 ± 0.02 with the remedy (difference 0.77 to 0.81 at 95 %), 3 seeds'
    """
    if verdict.outcome == "not-tried" or not verdict.metric:
        return clean(verdict.why)
    steps = f" after {_count(verdict.steps, 'step')}" if verdict.steps else ""
    seeds = f", {_count(verdict.seeds, 'seed')}" if verdict.seeds else ""
    control, remedied = alike(verdict.control, verdict.remedied)
    control = spread(verdict.control, verdict.control_error) if verdict.control_error else control
    remedied = spread(verdict.remedied, verdict.remedied_error) if verdict.remedied_error else remedied
    why = f"; {verdict.why}" if verdict.why else ""
    both = f"{control} as it is, {remedied} with the remedy{_difference(verdict)}"
    return clean(f"{verdict.metric}{steps}: {both}{seeds}{why}")


def alike(*values: float | None) -> list[str]:
    """Several numbers to be compared, with the same number of decimals where that is possible.

    >>> alike(0.31, 0.7), alike(2.3, 1e-7)
    (['0.31', '0.70'], ['2.3', '1e-7'])
    """
    said = [number(value) for value in values]
    if any("e" in word or "f" in word for word in said):
        return said
    decimals = max(len(word.partition(".")[2]) for word in said)
    return [f"{value:.{decimals}f}" for value in values]


def headline(report: Report) -> str:
    """The report's headline, or a plain one where it has none."""
    if report.headline:
        return clean(report.headline)
    if report.healthy:
        return "This training looks healthy."
    causes = ", ".join(clean(finding.cause) for finding in problems(report))
    return f"This training has a problem: {causes or 'see below'}."


def problems(report: Report) -> list[Finding]:
    """The findings that get a full account: those of severity problem, in rank order."""
    return [finding for finding in report.findings if finding.severity == "problem"]


def remarks(report: Report) -> list[Finding]:
    """The warnings and notes, in rank order."""
    return [finding for finding in report.findings if finding.severity != "problem"]


FOUND = ("loss", "kind", "index", "λmin", "gradient", "steps")
"""Head of the table of `found`."""


def found(report: Report) -> list[tuple[str, ...]]:
    """The points that searches ended at, a row each, highest loss first: what stands under `FOUND`."""
    return [
        (_loss(p.loss), p.kind if p.kind != "none" else p.outcome, _index(p), number(p.lambda_min), number(p.gradient),
         str(p.steps))
        for p in reversed(report.found)
    ]  # fmt: skip


def _loss(value: float | None) -> str:
    """Five digits: critical points that differ lie close together."""
    return number(value) if value is None or abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.5g}"


def _index(point: FoundLine) -> str:
    """The number of negative eigenvalues and their share, or an interval of the share."""
    low, high = (100 * share for share in point.negative)
    if point.index is None:
        return f"{number(low)} to {number(high)} %"
    return f"{point.index} ({number(round(low, 1))} %)"


RACE = ("optimizer", "lr", "batch", "score", "loss", "seeds", "steps", "")
"""Head of the table of `race`."""


def race(report: Report) -> list[tuple[str, ...]]:
    """The settings of a race, a row each, best first: what stands under `RACE`."""
    return [
        (line.optimizer, number(line.lr), str(line.batch_size), spread(line.score, line.error), number(line.train_loss),
         str(line.seeds), str(line.steps), "" if line.outcome == "finished" else line.outcome)
        for line in report.race
    ]  # fmt: skip


def left_out(report: Report) -> list[tuple[str, str]]:
    """What was skipped and why; parts skipped for the same reason share a line."""
    reasons: dict[str, list[str]] = {}
    for part in report.skipped:
        reasons.setdefault(clean(part.why), []).append(clean(part.probe))
    return [(", ".join(parts), why) for why, parts in reasons.items()]


def price(cost: Cost) -> str:
    """What the diagnosis cost: share of the training spent watching, seconds of examination and race."""
    share = finite(cost.watch_overhead)
    parts = [] if share is None else [f"watching {_rough(100 * share)} % of the training"]
    seconds = (("examination", cost.examine_s), ("race", cost.race_s))
    parts += [f"{name} {_rough(time)} s" for name, value in seconds if (time := finite(value))]
    return f"Cost: {', '.join(parts)}." if parts else ""


def _difference(verdict: Verdict) -> str:
    low, high = map(finite, verdict.interval or (None, None))
    if low is None or high is None:
        return ""
    decimals = 6 if max(abs(low), abs(high)) >= 1e6 or low >= high else _decimals(high - low)
    ends = (number(low), number(high)) if decimals > 5 else (f"{low:.{decimals}f}", f"{high:.{decimals}f}")
    return f" (difference {ends[0]} to {ends[1]} at 95 %)"


def _decimals(doubt: float) -> int:
    """How many decimals a doubt of this size leaves standing: one digit of it, two where it starts with 1 or 2."""
    power = math.floor(math.log10(abs(doubt)))
    return max(0, (1 if abs(doubt) < 3 * 10.0**power else 0) - power)


def _count(how_many: int, what: str) -> str:
    return f"{how_many} {what}{'' if how_many == 1 else 's'}"


def _rough(value: float) -> str:
    return number(float(f"{value:.2g}"))
