"""`batch-noise`: full batch against batch 1 on one surface: a straight way, a crooked one, and what noise is for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from unstuck.claims import Claim
from unstuck.errors import NotMeasurable
from unstuck.lecture.parts import Parts, Say, Tick, claim, share
from unstuck.lecture.plane import Path, Place, descend, gradient, surface
from unstuck.linalg.moments import of
from unstuck.linalg.noise_scale import NoiseScale, of_gradients
from unstuck.optim.sgd import SGD
from unstuck.probes.gradients import gradient as slopes_of
from unstuck.probes.noise import least
from unstuck.problem import Batch, Problem, training_rows
from unstuck.records import Chart, Curve, Figure
from unstuck.rows import Rows

START: Place = (0.0, 0.0)
RATE, FULL = 0.3, 569
"""At one rate for all; updates of the full batch that are drawn, as many as batch 1 makes in one epoch."""
SPAN = (-4.9, 0.5), (-2.0, 1.0)
SIZES, DRAWS = (1, 4, 16, 64, 256), 2000
LENGTHS = 400
"""Lengths of a single step along the gradient that are tried, from 0.01 to 100."""

HOLLOW_FROM: Place = (-1.9, 0.9)
HOLLOW_RATE, HOLLOW_STEPS, TOP, DRAWN = 0.03, 400, -0.24, 150
BATCHES, TILT, ORDERS = 20, 8.0, 20
"""The average surface has a hollow; each of so many batches tilts it by a random slope of this size. The tilts cancel
over an epoch. Orders of the batches that are tried."""

GROUPS, MOST = 32, 256
"""Batches of each size on the user's data, at least and at most."""


class Data(NamedTuple):
    """Two measurements of tumours [samples, 2], standardized, and whether they are benign [samples]."""

    x: Tensor
    y: Tensor

    def loss(self, w1: Tensor, w2: Tensor) -> Tensor:
        """Mean cross-entropy of σ(w₁x₁ + w₂x₂), at each pair of weights."""
        scores = w1[..., None] * self.x[:, 0] + w2[..., None] * self.x[:, 1]
        return cross_entropy(scores, self.y.expand_as(scores), reduction="none").mean(-1)

    def gradients(self, w: Tensor) -> Tensor:
        """The gradient of every sample [samples, 2] at w [2]."""
        return (torch.sigmoid(self.x @ w) - self.y)[:, None] * self.x


def tumours() -> Data:
    """The breast cancer data: mean radius and mean texture of 569 tumours."""
    x, y = (torch.as_tensor(part).double() for part in load_breast_cancer(return_X_y=True))
    two = x[:, :2]
    return Data((two - two.mean(0)) / two.std(0), y)


def hollow(x: Tensor, y: Tensor) -> Tensor:
    """(x² − 1)² − 0.9x + 3y²/2 + 1.1: what the batches' surfaces are on average, a hollow on the left in it."""
    return (x**2 - 1) ** 2 - 0.9 * x + 1.5 * y**2 + 1.1


def shown(say: Say, seed: int = 0) -> Parts:
    """The textbook case: one epoch in batches of 1 and of 8, 569 of the full batch; noise by size; out of a hollow."""
    data = tumours()
    ways = {size: walked(data, size, seed) for size in (1, 8)}
    full = descend(data.loss, START, SGD, FULL, lr=RATE)
    noise = spread(data, seed)
    still = descend(hollow, HOLLOW_FROM, SGD, HOLLOW_STEPS, lr=HOLLOW_RATE)
    shaken = [descend(hollow, HOLLOW_FROM, SGD, HOLLOW_STEPS, noise=tilted(seed + k), lr=HOLLOW_RATE)
              for k in range(ORDERS)]  # fmt: skip
    return Parts(
        claims=(*_angles(say, ways, full), *_variance(say, data, noise), *_epoch(say, data, ways[1], full),
                *_out(say, still, shaken)),
        charts=(_paths(say, data, ways, full), _noise(say, data, noise), _hollow(say, still, shaken[0])),
    )  # fmt: skip


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """How noisy the user's gradient is by batch size, on its own data: where the training began, and where it was left.

    Raises NotMeasurable where its batches cannot be cut into samples, or hold too few for two sizes.
    """
    rows = training_rows(problem)
    sizes = [size for size in SIZES if rows is not None and least(problem) <= size <= len(rows) // GROUPS]
    if rows is None or len(sizes) < 2:
        raise NotMeasurable(f"batch-noise: {GROUPS} batches of two sizes, which share no sample, are needed")
    places = {say("at the start", "开始时"): False}
    if problem.loop.steps:
        places[say("where it was left", "停下的地方")] = True
    deadline, made = time.perf_counter() + budget_s, list[Curve]()
    claims, figures = list[Claim](), list[Figure]()
    for name, last in places.items():
        tick(name, len(made) / len(places))
        own = [_own(say, name, size, noise) for size, noise in _by_size(problem, rows, sizes, last, deadline).items()]
        says = say(f"The larger the batch, the less noise in your gradient, {name}.",
                   f"批次越大，你的梯度噪声越小（{name}）。")  # fmt: skip
        claims.append(claim(says, own[-1], "<", own[0]))
        made.append(Curve(name, tuple(map(float, sizes[: len(own)])), tuple(figure.value for figure in own)))
        figures += own
    return Parts(tuple(claims), tuple(figures), (_own_chart(say, made),))


def walked(data: Data, size: int, seed: int) -> Path:
    """One epoch in batches of so many samples, drawn without replacement; loss and slopes are those of all samples."""
    order = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed)).split(size)
    places = [torch.tensor(START, dtype=torch.float64)]
    for batch in order:
        places.append(places[-1] - RATE * Data(data.x[batch], data.y[batch]).gradients(places[-1]).mean(0))
    way = torch.stack(places)
    slopes = torch.stack([data.gradients(place).mean(0) for place in places])
    return Path(way, data.loss(way[:, 0], way[:, 1]), slopes)


def angles(path: Path) -> Tensor:
    """Degrees between each step and the way straight down at its place [steps]."""
    steps, down = path.places[1:] - path.places[:-1], -path.slopes[:-1]
    across = steps[:, 0] * down[:, 1] - steps[:, 1] * down[:, 0]
    return torch.rad2deg(torch.atan2(across, (steps * down).sum(1))).abs()


def spread(data: Data, seed: int) -> dict[int, tuple[float, float]]:
    """E‖ĝ − g‖² of batches of each size at the start, and its standard error, from 2 000 batches each."""
    each = data.gradients(torch.tensor(START, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for size in SIZES:
        drawn = torch.rand(DRAWS, len(each), generator=generator).argsort(1)[:, :size]
        off = of((each[drawn].mean(1) - each.mean(0)).square().sum(1))
        found[size] = float(off.mean), float(off.standard_error)
    return found


def expected(data: Data, size: int) -> float:
    """σ²/B · (N − B)/(N − 1): B samples without replacement of N, σ² the mean squared distance of a sample's gradient
    from the mean one. Nothing of it is left for the full batch."""
    each, count = data.gradients(torch.tensor(START, dtype=torch.float64)), len(data.y)
    return float((each - each.mean(0)).square().sum(1).mean()) / size * (count - size) / (count - 1)


def tilted(seed: int) -> Callable[[int], Tensor]:
    """The slope [2] that the batch of a step adds to the average surface's: the batches in a new order each epoch."""
    drawn = torch.randn(BATCHES, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tilts, generator = TILT * (drawn - drawn.mean(0)), torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(BATCHES, generator=generator) for _ in range(HOLLOW_STEPS // BATCHES)])
    return lambda step: tilts[order[step]]


def _angles(say: Say, ways: dict[int, Path], full: Path) -> tuple[Claim, ...]:
    turned = {size: of(angles(way)) for size, way in ways.items()}
    mean = say("mean angle between a step and the way down", "每一步与下坡方向的平均夹角")

    def figure(size: int) -> Figure:
        return Figure(say(f"{mean}, batch {size}", f"{mean}，批次 {size}"), float(turned[size].mean), "°",
                      float(turned[size].standard_error), turned[size].count)  # fmt: skip

    return (
        claim(say("The full batch goes straight down the slope;", "全批次的每一步都正对下坡方向；"),
              Figure(say("largest angle", "最大夹角"), float(angles(full).max()), "°"), "<",
              Figure(say("rounding", "舍入误差"), 1e-5, "°")),
        claim(say("a batch of one goes astray at nearly every step,", "批次为 1 时几乎每一步都走偏，"), figure(1), ">",
              Figure(say("half a right angle", "半个直角"), 45.0, "°")),
        claim(say("a batch of eight less.", "批次为 8 时偏得少一些。"), figure(8), "<", figure(1)),
    )  # fmt: skip


def _variance(say: Say, data: Data, noise: dict[int, tuple[float, float]]) -> tuple[Claim, ...]:
    (one, doubt), (many, less) = noise[1], noise[64]
    off = max(abs(value - expected(data, size)) / error for size, (value, error) in noise.items())
    return (
        claim(say("64 samples a batch: less than a fortieth of the noise.", "每批 64 个样本：噪声不到四十分之一。"),
              Figure(say("E‖ĝ − g‖² at 64", "批次 64 的 E‖ĝ − g‖²"), many, error=less), "<",
              Figure(say("a fortieth of that at 1", "批次 1 的四十分之一"), one / 40, error=doubt / 40)),
        claim(say("It falls as 1/B: σ²/B · (N − B)/(N − 1) at every size.",
                  "噪声按 1/B 下降：每种大小都符合 σ²/B · (N − B)/(N − 1)。"),
              Figure(say("largest difference, in standard errors", "最大差，以标准误差计"), off), "<",
              Figure(say("four standard errors", "四个标准误差"), 4.0)),
    )  # fmt: skip


def _epoch(say: Say, data: Data, one: Path, full: Path) -> tuple[Claim, ...]:
    end = Figure(say("loss after one epoch of batch 1", "批次 1 走完一个 epoch 的损失"), float(one.losses[-1]))
    lengths = torch.logspace(-2, 2, LENGTHS, dtype=torch.float64)
    slope = gradient(data.loss, START)
    best = float(data.loss(-lengths * slope[0], -lengths * slope[1]).min())
    return (
        claim(say("One epoch of batch 1 comes further than one update of the full batch at the same rate,",
                  "同样的学习率下，批次 1 的一个 epoch 比全批次的一次更新走得更远，"),
              end, "<", Figure(say("loss after one update", "一次更新之后的损失"), float(full.losses[1]))),
        claim(say("and further than the best single update there is.", "也比任何学习率下的一次更新都远。"),
              end, "<", Figure(say("loss after the best one", "最好的一次更新之后的损失"), best)),
    )  # fmt: skip


def _out(say: Say, still: Path, shaken: Sequence[Path]) -> tuple[Claim, ...]:
    out = sum(float(way.places[-1, 0]) > TOP for way in shaken)
    return (
        claim(say("The full batch is caught in the hollow;", "全批次困在小坑里；"),
              Figure(say("where it ends, x", "最后停在 x"), float(still.places[-1, 0])), "<",
              Figure(say("top of the hill, x", "山顶的位置 x"), TOP)),
        claim(say("where every batch has a surface of its own, most ways lead out of it.",
                  "每个批次的曲面各不相同时，多数都能走出来。"),
              share(say("share that got out", "走出来的比例"), out, len(shaken)), ">",
              Figure(say("half", "一半"), 0.5)),
    )  # fmt: skip


def _paths(say: Say, data: Data, ways: dict[int, Path], full: Path) -> Chart:
    names = {
        1: say("batch 1, one epoch", "批次 1，一个 epoch"), 8: say("batch 8, one epoch", "批次 8，一个 epoch"),
        FULL: say("full batch, 569 epochs", "全批次，569 个 epoch"),
    }  # fmt: skip
    return Chart(
        say("One surface, three ways: 569 updates of the full batch, one epoch in small ones",
            "同一个曲面，三条路：全批次更新 569 次，小批次各走一个 epoch"), "w₁", "w₂",
        (ways[1].curve(names[1]), full.curve(names[FULL]), ways[8].curve(names[8])),
        surface=surface(data.loss, say("loss", "损失"), *SPAN),
    )  # fmt: skip


def _noise(say: Say, data: Data, noise: dict[int, tuple[float, float]]) -> Chart:
    sizes = tuple(map(float, noise))
    measured = Curve(say("measured", "测得"), sizes, tuple(value for value, _ in noise.values()),
                     tuple(value - 2 * error for value, error in noise.values()),
                     tuple(value + 2 * error for value, error in noise.values()))  # fmt: skip
    theory = Curve(say("theory", "理论"), sizes, tuple(expected(data, size) for size in noise))
    return Chart(say("The noise of the gradient, by batch size",
                     "梯度的噪声与批次大小"), say("batch size B", "批次大小 B"),
                 "E‖ĝ − g‖²", (measured, theory), log_x=True, log_y=True)  # fmt: skip


def _hollow(say: Say, still: Path, shaken: Path) -> Chart:
    return Chart(
        say("Noise finds the way out of a poor hollow", "噪声能帮助走出不好的小坑"), "x", "y",
        (shaken.first(DRAWN).curve(say("small batches", "小批次")), still.curve(say("full batch", "全批次"))),
        surface=surface(hollow, say("average loss", "平均损失"), (-2.1, 1.9), (-1.4, 1.4), log=True),
    )  # fmt: skip


def _by_size(
    problem: Problem, rows: Rows, sizes: Sequence[int], last: bool, deadline: float
) -> dict[int, NoiseScale]:
    """Of batches of each size that share no sample; of two sizes at least, of all where time allows."""
    model, found = problem.twin(last), dict[int, NoiseScale]()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
    for size in sizes:
        if len(found) < 2 or time.perf_counter() < deadline:
            batches = rows.batches(order[: MOST * size], size)[:MOST]
            found[size] = of_gradients([_flat(problem, model, batch) for batch in batches], size)
    return found


def _flat(problem: Problem, model: nn.Module, batch: Batch) -> Tensor:
    return torch.cat([slope.flatten().double() for slope in slopes_of(problem, model, batch)[1].values()])


def _own(say: Say, where: str, size: int, noise: NoiseScale) -> Figure:
    """E‖ĝ − g‖² of a batch: tr Σ / B, with its standard error."""
    error = math.sqrt(noise.covariance[0][0]) / size
    return Figure(say(f"E‖ĝ − g‖², batch {size}, {where}", f"E‖ĝ − g‖²，批次 {size}，{where}"), noise.noise / size,
                  error=error, samples=size * (noise.freedom + 1))  # fmt: skip


def _own_chart(say: Say, curves: Sequence[Curve]) -> Chart:
    return Chart(say("The noise of your gradient, by batch size", "你的梯度的噪声与批次大小"),
                 say("batch size B", "批次大小 B"), "E‖ĝ − g‖²", tuple(curves), log_x=True, log_y=True)  # fmt: skip
