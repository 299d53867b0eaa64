"""`batch-clock`: the time of an update and of an epoch against batch size, on this machine.

An update of a batch takes about a + bB seconds: a for what every update costs, b for each sample. An epoch of N samples
takes N/B of them, N (a/B + b): small batches pay a over and over, large ones hardly at all.
"""

from __future__ import annotations

import torch
from torch import nn

from unstuck.chapters.drawn import lines
from unstuck.claims import Claim
from unstuck.errors import NotMeasurable
from unstuck.lecture.parts import Parts, Say, Tick, claim, unmeasured
from unstuck.probes import throughput
from unstuck.probes.sweep import Timing
from unstuck.probes.throughput import Throughput
from unstuck.problem import Problem
from unstuck.race.trials import Level
from unstuck.records import Chart, Curve, Figure

PIXELS, HIDDEN, CLASSES = 784, 64, 10
SAMPLES, PRESENT, EPOCH = 2048, 64, 60_000
"""Random images of Fashion-MNIST's shape, a script's usual batch of them, and the images in an epoch of all of it."""
BUDGET_S = 6.0
MORE, LESS, QUICKER = 64, 16, 4
"""A batch so many times as large takes less than so many times as long, and an epoch is more than so many times
quicker."""
MILLI = 1e3


def shown(say: Say, budget_s: float = BUDGET_S) -> Parts:
    """A network of one hidden layer on random images of 28 by 28."""
    clock = throughput.measure(network(), budget_s)
    return Parts(_claims(say, clock), _figures(say, clock), _charts(say, clock, EPOCH))


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The same on the user's training: from its smallest batch that runs to its largest that fits."""
    try:
        clock = throughput.measure(problem, budget_s)
    except NotMeasurable as error:
        return unmeasured(say, str(error))
    least, most = clock.timings[0], clock.timings[-1]
    if least is most:
        return Parts(notes=(say(f"Only batches of {least.size} could be timed: {clock.why}.",
                                f"只能测批次大小 {least.size}：{clock.why}。"),))  # fmt: skip
    return Parts(_own_claims(say, least, most), _figures(say, clock), _charts(say, clock, clock.samples),
                 (_own_note(say, clock),))  # fmt: skip


def network() -> Problem:
    """784 → 64 → 10 with ReLU and plain descent, on random pixels and labels: a clock does not look at them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SAMPLES, PIXELS, generator=generator)
    y = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    model = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    data = list(zip(x.split(PRESENT), y.split(PRESENT), strict=True))
    return Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def _claims(say: Say, clock: Throughput) -> tuple[Claim, ...]:
    one, many = (next(t for t in clock.timings if t.size == size) for size in (1, MORE))
    best = next(t for t in clock.timings if t.size == clock.best)
    update, epoch = say("an update on", "一次更新，批次大小"), say("an epoch in batches of", "一个 epoch，批次大小")
    return (
        claim(say(f"A batch {MORE} times as large takes less than {LESS} times as long;",
                  f"批次大 {MORE} 倍，一次更新的时间不到 {LESS} 倍；"),
              _time(f"{update} {MORE}", many.seconds, many.error), "<",
              _time(f"{LESS} × {update} 1", LESS * one.seconds, LESS * one.error)),
        claim(say(f"so an epoch in large batches is more than {QUICKER} times quicker than in batches of one.",
                  f"所以用大批次，一个 epoch 比批次为 1 时快 {QUICKER} 倍以上。"),
              _epoch(epoch, clock, one), ">", _epoch(f"{QUICKER} × {epoch}", clock, best, QUICKER)),
    )  # fmt: skip


def _own_claims(say: Say, least: Timing, most: Timing) -> tuple[Claim, ...]:
    ratio = most.size / least.size
    update = say("an update on", "一次更新，批次大小")
    return (
        claim(say(f"A batch {ratio:g} times as large takes less than {ratio:g} times as long.",
                  f"批次大 {ratio:g} 倍，一次更新的时间不到 {ratio:g} 倍。"),
              _time(f"{update} {most.size}", most.seconds, most.error), "<",
              _time(f"{ratio:g} × {update} {least.size}", ratio * least.seconds, ratio * least.error)),
    )  # fmt: skip


def _own_note(say: Say, clock: Throughput) -> str:
    return say(
        f"Your batches hold {clock.present} samples. Up to {clock.flat} an update costs at most {throughput.FLAT:g} "
        f"times one of the smallest batch; an epoch is shortest at {clock.best}.",
        f"你的批次大小是 {clock.present}。到 {clock.flat} 为止，一次更新的时间不超过最小批次的 {throughput.FLAT:g} 倍；"
        f"一个 epoch 在批次大小 {clock.best} 时最短。",
    )  # fmt: skip


def _figures(say: Say, clock: Throughput) -> tuple[Figure, ...]:
    line = clock.line
    if line is None:
        return ()
    return (
        _time(say("cost of an update, whatever its size", "每次更新的固定开销"), line.fixed, line.fixed_error),
        _time(say("cost of each sample", "每个样本的开销"), line.per_sample, line.per_sample_error),
        Figure(say("threads", "线程数"), float(clock.threads)),
    )


def _charts(say: Say, clock: Throughput, samples: int) -> tuple[Chart, ...]:
    sizes, x = [float(t.size) for t in clock.timings], say("batch size", "批次大小")
    first, times = clock.timings[0], [_level(MILLI * t.seconds, MILLI * t.error) for t in clock.timings]
    updates = lines(say("measured", "实测"), sizes, times)
    steep = Curve(say("in proportion", "成正比时"), tuple(sizes),
                  tuple(MILLI * first.seconds * size / first.size for size in sizes))  # fmt: skip
    epochs = lines(say("an epoch", "一个 epoch"), sizes, [_level(*clock.epoch(t, samples)) for t in clock.timings])
    device = say(f"{clock.device}, {clock.threads} thread(s); bands: two standard errors.",
                 f"{clock.device}，{clock.threads} 个线程；色带：两倍标准误差。")  # fmt: skip
    return (
        Chart(say("Time of an update, and what it would be in proportion to the batch",
                  "一次更新的时间，以及与批次成正比时该有的时间"),
              x, say("milliseconds", "毫秒"), (updates, steep), log_x=True, log_y=True, note=device),
        Chart(say(f"Time of an epoch of {samples} samples, by batch size",
                  f"一个 epoch（{samples} 个样本）的时间与批次大小"),
              x, say("seconds", "秒"), (epochs,), log_x=True, log_y=True),
    )  # fmt: skip


def _time(name: str, seconds: float, error: float) -> Figure:
    return Figure(name, MILLI * seconds, "ms", _known(MILLI * error))


def _epoch(name: str, clock: Throughput, timing: Timing, times: float = 1.0) -> Figure:
    seconds, error = clock.epoch(timing, EPOCH)
    return Figure(f"{name} {timing.size}", times * seconds, "s", _known(times * error))


def _level(value: float, error: float) -> Level:
    return Level(value, _known(error) or 0.0, 1)


def _known(error: float) -> float | None:
    """The error; none of a time that was measured once."""
    return error if error == error else None
