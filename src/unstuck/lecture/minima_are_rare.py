"""`minima-are-rare`: critical points of a small network on digits; how many ways of each lead up, against its loss."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unstuck.census import FEWEST, correlation, distinct, searched
from unstuck.claims import Claim
from unstuck.curvature.found import CRITICAL, Found
from unstuck.curvature.measure import measurable
from unstuck.errors import NotMeasurable
from unstuck.lecture.parts import Parts, Say, Tick, claim, share
from unstuck.problem import Problem, state_of
from unstuck.records import Chart, Curve, Figure
from unstuck.training import Training

CLASSES, SAMPLES, INPUTS, HIDDEN = 5, 100, 20, 4
DECAY, RATE, UPDATES = 0.05, 0.05, 100
"""Weight decay is in the loss: without it many critical points lie at infinity (of 16 searches 5 arrived at a decay of
0.02, 15 at this one)."""
SEARCHES, BUDGET_S = 40, 60.0
PRODUCTS = 300
"""With the Hessian, that one step of a search makes at most."""
FEW = 0.25
"""Minima are called rare where fewer than a quarter of the points are some."""


class Net(nn.Module):
    """20 → 4 tanh → 5, no biases: 100 weights. Gives the outputs and the weight decay."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.randn(INPUTS, HIDDEN) / INPUTS**0.5)
        self.out = nn.Parameter(torch.randn(HIDDEN, CLASSES) / HIDDEN**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [samples, classes], and the sum of squares of all weights."""
        return torch.tanh(x @ self.into) @ self.out, self.into.square().sum() + self.out.square().sum()


def squared(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Squared error against the targets [samples, classes], and half the decay times the squares of all weights."""
    given, squares = output
    return (given - target).square().sum(1).mean() + DECAY / 2 * squares


def digits(seed: int = 0) -> Problem:
    """A hundred handwritten digits, 0 to 4, in their 20 main components; the network before and after 100 updates."""
    pixels, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    few = labels < CLASSES
    centred = pixels[few] - pixels[few].mean(0)
    main = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:INPUTS].T
    x = (main / main[:, 0].std())[:SAMPLES].float()
    y = nn.functional.one_hot(labels[few][:SAMPLES], CLASSES).float() - 1 / CLASSES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net()
    problem = Problem(net, squared, [(x, y)], optimizer=torch.optim.Adam(net.parameters(), lr=RATE))
    run = Training(problem)
    run.advance(UPDATES)
    return replace(problem, last=state_of(run.model))


def shown(say: Say, seed: int = 0) -> Parts:
    """The textbook case: 40 searches by Newton-MR, in about 10 s."""
    return told(say, searched(digits(seed), SEARCHES, BUDGET_S, seed=seed))


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The same around the user's training. Raises NotMeasurable where the problem has no Hessian, and where not even a
    step of one search fits the budget."""
    hessian, _ = measurable(problem, double=True)
    began = time.perf_counter()
    hessian(torch.ones(hessian.size, dtype=hessian.flat.dtype, device=hessian.flat.device))
    step_s = min(hessian.size + 1, PRODUCTS) * (time.perf_counter() - began)
    if step_s > budget_s:
        raise NotMeasurable(
            f"minima-are-rare: one step of a search takes some {step_s:.0f} s, and it takes many; a smaller network, "
            f"or a --budget far above {budget_s:.0f} s for it alone, would do"
        )
    return told(say, searched(problem, SEARCHES, budget_s, tick=tick))


def told(say: Say, found: Sequence[Found]) -> Parts:
    """What the searches found: claims about the distinct critical points, and every search as a dot."""
    apart = distinct(found)
    return Parts(_claims(say, apart), _figures(say, found, apart), (_chart(say, found),), _notes(say, found, apart))


def ratio(point: Found) -> float:
    """The minimum ratio: positive eigenvalues over all."""
    return point.shares.positive.estimate


def doubt(rho: float, points: int) -> float:
    """The standard error of a rank correlation, (1 − ρ²) · 1.03 / √(n − 3) (Fieller, Hartley & Pearson 1957)."""
    return (1 - rho**2) * 1.03 / math.sqrt(points - 3)


def _claims(say: Say, apart: Sequence[Found]) -> tuple[Claim, ...]:
    if correlation(apart) is None:
        return ()
    n, half = len(apart), len(apart) // 2
    rho = float(spearmanr(list(map(ratio, apart)), [point.loss for point in apart]).statistic)
    minima = sum(point.kind == "minimum" for point in apart)
    low, high = ([point.share for point in part] for part in (apart[:half], apart[-half:]))
    return (
        claim(say("The lower the loss of a critical point, the larger its minimum ratio.",
                  "临界点的损失越低，minimum ratio 越大。"),
              Figure(say("rank correlation of ratio and loss", "两者的秩相关系数"), rho, "", doubt(rho, n), n), "<",
              Figure(say("none", "不相关"), 0.0)),
        claim(say("Among the points of higher loss more ways lead down than among the others.",
                  "损失较高的一半，向下的方向更多。"),
              _mean(say("share of ways down, higher half", "向下方向的比例，较高的一半"), high), ">",
              _mean(say("lower half", "较低的一半"), low)),
        claim(say("True minima are rare among the critical points.", "在临界点里，真正的极小值很少。"),
              share(say("share of minima", "极小值的比例"), minima, n), "<",
              Figure(say("a quarter", "四分之一"), FEW)),
    )  # fmt: skip


def _mean(name: str, values: Sequence[float]) -> Figure:
    """The mean with its standard error."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Figure(name, fmean(values), error=error, samples=len(values))


def _figures(say: Say, found: Sequence[Found], apart: Sequence[Found]) -> tuple[Figure, ...]:
    kinds = Counter(point.kind for point in apart)
    names = {"minimum": say("minima", "极小值"), "saddle": say("saddles", "鞍点"), "maximum": say("maxima", "极大值"),
             "degenerate": say("degenerate", "退化点"), "undecided": say("undecided", "未定")}  # fmt: skip
    arrived = sum(point.outcome == CRITICAL for point in found)
    return (
        Figure(say("searches", "搜索次数"), len(found)),
        Figure(say("that ended at a critical point", "停在临界点的次数"), arrived),
        Figure(say("distinct critical points", "不同的临界点"), len(apart)),
        *(Figure(say(f"of these, {names[kind]}", f"其中{names[kind]}"), kinds[kind]) for kind in sorted(kinds)),
    )


def _chart(say: Say, found: Sequence[Found]) -> Chart:
    groups = (
        (say("critical point", "临界点"), [point for point in found if point.outcome == CRITICAL]),
        (say("stopped before", "提前停止"), [point for point in found if point.outcome != CRITICAL]),
    )
    return Chart(
        say("Loss against minimum ratio, at every point where a search ended",
            "每次搜索停下的地方：损失与 minimum ratio"),
        say("minimum ratio (share of positive eigenvalues)", "minimum ratio（正特征值的比例）"), say("loss", "损失"),
        tuple(
            Curve(name, tuple(map(ratio, points)), tuple(point.loss for point in points))
            for name, points in groups if points
        ),
        dots=True,
        note=say("At a ratio of 1 every way leads up: a minimum.", "比例为 1 时每个方向都向上：极小值。"),
    )  # fmt: skip


def _notes(say: Say, found: Sequence[Found], apart: Sequence[Found]) -> tuple[str, ...]:
    if correlation(apart) is not None:
        return ()
    return (say(
        f"Distinct critical points found: {len(apart)} (searches: {len(found)}). To say how loss and ratio go "
        f"together, {FEWEST} that differ in both are needed.",
        f"找到的不同临界点：{len(apart)} 个（搜索 {len(found)} 次）。至少要有 {FEWEST} 个损失和比例各不相同的点，"
        "才能说两者的关系。",
    ),)  # fmt: skip
