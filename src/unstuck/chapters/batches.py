"""The chapter on batches: gradient noise, the batch clock, updates against samples, sharpness, and what size to take.

    chapter(problem, evidence, budget_s=20.0).advice
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from unstuck.chapters.drawn import lines
from unstuck.chapters.sizes import Sizes, raced, recommended
from unstuck.chapters.sweep import clearly_below
from unstuck.chapters.tried import tried
from unstuck.errors import NotMeasurable
from unstuck.evidence import Evidence
from unstuck.linalg.ratio import Ratio
from unstuck.probes import noise, sharpness, throughput
from unstuck.probes.noise import Noise
from unstuck.probes.sharpness import Sharpness
from unstuck.probes.throughput import Throughput
from unstuck.problem import Problem, samples_a_batch, state_of
from unstuck.race.trials import Level
from unstuck.records import Chapter, Chart, Curve, Figure, RemedyLine
from unstuck.remedies.batches import rebatched
from unstuck.training import Training

Tick = Callable[[str, float], None]
TITLE = "Batches: noise, time, and the right size"
CLOCK_SHARE, RACE_SHARE = 0.2, 0.5
"""Of the budget; the rest is for sharpness."""
MUCH = 0.67
"""Of the present time to a loss: what another batch size saves must be more than a third to be advised."""
APART = 8
"""Raced sizes are so many times smaller and larger than the one between."""
Sharp = tuple[tuple[int, Sharpness], ...]


def chapter(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick = lambda what, share: None) -> Chapter:
    """The chapter, in about `budget_s` seconds; what cannot be measured is said in it."""
    missing: list[str] = []
    tick("the batch clock", 0.6)
    clock = tried(lambda: throughput.measure(problem, CLOCK_SHARE * budget_s), missing)
    found = evidence.noise or tried(lambda: noise.measure(problem), missing)
    size = tried(lambda: recommended(_critical(found), clock), missing) if found and clock else None
    sizes = tried(lambda: _raced(problem, size, clock, RACE_SHARE * budget_s), missing) if clock else None
    tick("sharpness of small and large batches", 0.9)
    sharp: Sharp = (tried(lambda: _sharpness(problem, sizes), missing) if sizes else None) or ()
    waits, advice = _soonest(sizes, clock, samples_a_batch(problem)) if sizes and clock else ([], None)
    sentences = [
        *(_noise(found) if found else ()), *(_clock(clock) if clock else ()), *_order(evidence),
        *(_race(sizes, samples_a_batch(problem)) if sizes else ()), *waits, *_sharp(sharp),
        *(_why(size, found, clock) if size and found and clock else ()), *missing,
    ]  # fmt: skip
    charts = (
        *(_clock_charts(clock) if clock else ()), *(_noise_chart(found) if found else ()),
        *(_race_chart(sizes) if sizes else ()),
    )  # fmt: skip
    figures = _figures(found, clock, size, sharp)
    return Chapter("batches", TITLE, tuple(sentences), figures, charts, advice)


def _critical(found: Noise) -> float:
    """A finite critical batch size: where the gradient may be all noise, what it is at least."""
    typical = found.typical
    return typical.value if math.isfinite(typical.value) else max(typical.low, 1.0)


def _raced(problem: Problem, size: int | None, clock: Throughput, budget_s: float) -> Sizes:
    present = samples_a_batch(problem)
    timed = [timing.size for timing in clock.timings]
    middle = size or present
    samples = present * len(problem.data)
    wanted = {middle // APART, middle, middle * APART, present}
    chosen = sorted(s for s in wanted if min(timed) <= s <= max(timed) and (s == present or 2 * s <= samples))
    try:
        return raced(problem, chosen, clock, budget_s)
    except NotMeasurable:  # too dear: the two that matter alone
        return raced(problem, sorted({middle, present} & set(chosen)), clock, budget_s)


def _sharpness(problem: Problem, sizes: Sizes) -> Sharp:
    """Where the smallest and the largest batches came to, at as many samples and the rate that did best."""
    found = []
    for size in dict.fromkeys((sizes.sizes[0], sizes.sizes[-1])):
        lane = sizes.best(size)
        recipe = problem.optimizer
        assert recipe is not None
        case = problem if size == samples_a_batch(problem) else rebatched(problem, size)
        case = replace(case, optimizer=recipe.scaled(lane.lr / recipe.lr), loop=replace(case.loop, schedule=()))
        run = Training(case)
        run.advance(max(1, sizes.samples // size))
        found.append((size, sharpness.measure(replace(problem, last=state_of(run.model)))))
    return tuple(found)


def _noise(found: Noise) -> list[str]:
    first, last = found.points[0], found.points[-1]
    said = f"A batch of {_about(first.scale)} samples has as much noise as gradient where the training began"
    if last is not first:
        said += f", {_about(last.scale)} where it was left"
    said += f" (gradient noise scale, 95 %); an update takes {found.batch}."
    free = f" The gradients that the script itself adds up say {_about(found.free.scale)}." if found.free else ""
    return [said + free]


def _about(scale: Ratio) -> str:
    if not math.isfinite(scale.high):
        return f"at least {scale.low:.0f}"
    return f"{scale.value:.0f} ({scale.low:.0f} to {scale.high:.0f})"


def _clock(clock: Throughput) -> list[str]:
    least, most = clock.timings[0], clock.timings[-1]
    if least is most:
        only = _samples(least.size)
        return [f"An update takes {_time(least.seconds)} on {only}, no other size was timed: {clock.why}."]
    line = clock.line
    cost = f" An update costs {_time(line.fixed)} and {_time(line.per_sample)} a sample." if line else ""
    return [f"An update takes {_time(least.seconds)} on {_samples(least.size)}, {_time(most.seconds)} on {most.size}: "
            f"samples up to {clock.flat} are nearly free, an epoch is shortest at {clock.best}.{cost}"]  # fmt: skip


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 100 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def _order(evidence: Evidence) -> list[str]:
    order = evidence.order
    if order is None:
        return []
    mixed = "the samples are mixed" if order.between <= order.largest else "the samples are not well mixed"
    return [f"Of the targets' variance {order.between:.0%} lies between batches, {order.chance:.0%} would if they were "
            f"mixed at random: {mixed}."]  # fmt: skip


def _race(sizes: Sizes, present: int) -> list[str]:
    target, said = sizes.target, []
    for size in sizes.sizes:
        lane, updates = sizes.best(size), sizes.updates(size, sizes.target)
        scaled = lane.scaling if lane.scaling.startswith("as") else f"scaled {lane.scaling}"
        rate = "" if size == present else f", the rate {scaled}"
        said.append(f"{size}: {lane.end.mean:.3g}{_doubt(lane.end)} ({updates.mean:.0f} updates, "
                    f"{updates.mean * size:.0f} samples to {target:.3g}{rate})")  # fmt: skip
    return [f"Loss by batch size after {sizes.samples} samples: {'; '.join(said)}."]


def _doubt(found: Level) -> str:
    return f" ± {found.error:.1g}" if found.error and math.isfinite(found.mean) else ""


def _sharp(sharp: Sharp) -> list[str]:
    if len(sharp) < 2:
        return []
    said = []
    for size, found in sharp:
        steep = f"λmax {found.steepest:.3g} ({found.low:.3g} to {found.high:.3g}), " if not found.why else ""
        said.append(f"batches of {size}: {steep}the loss rises by {found.rise:.2g} ± {found.rise_error:.1g}")
    return [f"Sharpness after as many samples, weights disturbed by {sharpness.SHARE:.0%} of their length: "
            f"{'; '.join(said)}."]  # fmt: skip


def _why(size: int, found: Noise, clock: Throughput) -> list[str]:
    return [f"By noise and clock together a loss is reached soonest with batches of about {size}: with time a + bB an "
            f"update and updates in proportion to 1 + critical/B, at B = √(a · critical / b)."]  # fmt: skip


def _figures(found: Noise | None, clock: Throughput | None, size: int | None, sharp: Sharp) -> tuple[Figure, ...]:
    figures: list[Figure] = []
    if found is not None:
        typical = found.typical
        figures += [
            Figure("critical batch size along the training", _known(typical.value), "samples"),
            Figure("critical batch size, at least", _known(typical.low), "samples"),
        ]
        if math.isfinite(typical.high):
            figures.append(Figure("critical batch size, at most", typical.high, "samples"))
    if clock is not None:
        now = next((t for t in clock.timings if t.size == clock.present), None)
        figures += [Figure("time of an update now", 1e3 * now.seconds, "ms", _known(1e3 * now.error))] if now else []
        figures += [Figure("memory of an update now", now.memory / 2**20, "MiB")] if now else []
        figures += [Figure("size with the shortest epoch", float(clock.best), "samples")]
    figures += [Figure("recommended batch size", float(size), "samples")] if size else []
    figures += [Figure(f"λmax after batches of {b}", _known(s.steepest), samples=s.samples) for b, s in sharp]
    return tuple(figures)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _clock_charts(clock: Throughput) -> tuple[Chart, ...]:
    sizes = [float(t.size) for t in clock.timings]
    if len(sizes) < 2:
        return ()
    updates = lines("an update", sizes, [_timed(t.seconds, t.error) for t in clock.timings])
    epochs = lines("an epoch", sizes, [_timed(*clock.epoch(t)) for t in clock.timings])
    memory = Curve("memory", tuple(sizes), tuple(t.memory / 2**20 for t in clock.timings))
    x, note = "batch size", f"{clock.samples} samples an epoch; {clock.device}, {clock.threads} thread(s)."
    return (
        Chart("Time by batch size", x, "seconds", (updates, epochs), log_x=True, log_y=True, note=note),
        Chart("Memory of an update by batch size", x, "MiB", (memory,), log_x=True, log_y=True),
    )


def _timed(seconds: float, error: float) -> Level:
    return Level(seconds, error if math.isfinite(error) else 0.0, 1)


def _noise_chart(found: Noise) -> tuple[Chart, ...]:
    known = [point for point in found.points if math.isfinite(point.scale.value)]
    if len(known) < 2:
        return ()
    steps = tuple(float(point.step) for point in known)
    value = tuple(point.scale.value for point in known)
    low, high = tuple(point.scale.low for point in known), tuple(_known(point.scale.high) for point in known)
    curve, level = Curve("critical batch size", steps, value, low, high), Figure("samples in an update", found.batch)
    return (Chart("Gradient noise along the training", "update", "samples", (curve,), (level,), log_y=True),)


def _race_chart(sizes: Sizes) -> tuple[Chart, ...]:
    """The two sides of a batch size: few large updates, or many small ones."""
    at, target = [float(size) for size in sizes.sizes], sizes.target
    if len(at) < 2:
        return ()
    updates = [sizes.updates(size, target) for size in sizes.sizes]
    samples = [Level(size * u.mean, size * u.error, u.seeds) for size, u in zip(sizes.sizes, updates, strict=True)]
    curves = (lines("updates", at, updates), lines("samples", at, samples))
    title = f"Updates and samples until the loss is {target:.3g}"
    return (Chart(title, "batch size", "number", curves, log_x=True, log_y=True),)


def _soonest(sizes: Sizes, clock: Throughput, present: int) -> tuple[list[str], RemedyLine | None]:
    """Which size came to the target soonest on this machine, said; and advice where that is much sooner than now."""
    times = {size: _wait(sizes, clock, size) for size in sizes.sizes}
    first = min(times, key=lambda size: times[size].mean)
    if present not in times or len(times) < 2:
        return [], None
    here, lane = times[present], sizes.best(first)
    said = [f"In time: {'; '.join(f'{size}: {_time(found.mean)}' for size, found in times.items())} to that loss."]
    if first == present or not times[first].mean < MUCH * here.mean or not clearly_below(times[first], here):
        return said, None
    return said, RemedyLine(
        "batch-size",
        f"train on batches of {first} (now {present}) at a rate of {lane.lr:.2g}: a loss of {sizes.target:.3g} takes "
        f"{_time(times[first].mean)} instead of {_time(here.mean)}",
        f"batch_size={first}  # and lr={lane.lr:.2g}",
    )


def _wait(sizes: Sizes, clock: Throughput, size: int) -> Level:
    """Seconds until the target: updates made, times one update's."""
    each, updates = clock.seconds(size), sizes.updates(size, sizes.target)
    return Level(each * updates.mean, each * updates.error, updates.seeds)
