"""`adaptive`: each weight its own step. A long valley, a crescent, and the burst that small gradients pile up for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from unstuck.chapters.drawn import lines
from unstuck.chapters.optimizers import RULES, Raced, raced
from unstuck.claims import Claim
from unstuck.lecture.parts import Parts, Say, Tick, claim
from unstuck.lecture.plane import Path, Place, descend, surface
from unstuck.optim.adagrad import ADAGRAD
from unstuck.optim.adam import ADAM
from unstuck.optim.rmsprop import RMSPROP
from unstuck.optim.rule import Rule
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem
from unstuck.records import Chart, Curve, Figure

LEVEL = 1e-6
"""Curvature along the valley, over that across it: plain descent's rate must stay below 2."""
FAR: Place = (-30.0, 1.0)
STEPS, MANY = 1000, 100_000
VALLEY_RATES: dict[str, tuple[Rule, float]] = {
    "SGD": (SGD, 1.9), "AdaGrad": (ADAGRAD, 2.0), "RMSProp": (RMSPROP, 0.05), "Adam": (ADAM, 0.1)
}  # fmt: skip

STEEP, HORN, BEND, BRIEF = 20.0, (-1.5, 3.0), 400, 0.9
"""The crescent: how steep its sides are, where the way begins (high on a side), updates, and RMSProp's α."""
RATES = tuple(10 ** (k / 2) for k in range(-6, 1))
FIRST = 10

QUIET = 1e-3
"""A burst begins where |y| has been below."""
ADAGRAD_FROM, ADAGRAD_RATE, ADAGRAD_STEPS = (-250.0, 1.0), 0.3, 800
RMSPROP_FROM, RMSPROP_RATE, RMSPROP_STEPS, FORGET = (-8.0, 1.0), 0.01, 700, 0.95
DECAY = 0.995
CLOSE, WARM = (-8.0, 0.01), 20


class Burst(NamedTuple):
    """After |y| first fell below `QUIET`: how far it is flung out again, and the step at which that begins (None: it
    stays below)."""

    peak: float
    begins: int | None


def valley(x: Tensor, y: Tensor) -> Tensor:
    """(10⁻⁶ x² + y²) / 2: convex, a million times flatter along than across."""
    return 0.5 * (LEVEL * x**2 + y**2)


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """(1 − x)² + 20 (y − x²)²: a bent valley; which weight has the large gradient changes on the way (Rosenbrock)."""
    return (1 - x) ** 2 + STEEP * (y - x**2) ** 2


def shown(say: Say) -> Parts:
    """The textbook case: four rules in a valley, two on a crescent at seven rates each, and the bursts."""
    ways = {name: descend(valley, FAR, rule, STEPS, lr=lr) for name, (rule, lr) in VALLEY_RATES.items()}
    bent = {
        "AdaGrad": at_its_best(lambda lr: descend(crescent, HORN, ADAGRAD, BEND, lr=lr)),
        "RMSProp": at_its_best(lambda lr: descend(crescent, HORN, RMSPROP, BEND, lr=lr, alpha=BRIEF)),
    }
    piled, forgot = mean_adagrad(), forgetful()
    return Parts(
        claims=(*_along(say, ways), *_bent(say, bent), *_bursts(say, piled, forgot), *_warm(say)),
        charts=(_left(say, ways), _crescent(say, bent), *_burst_charts(say, piled, forgot)),
    )


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's training raced with plain descent, momentum, AdaGrad, RMSProp and Adam, each at its best rate.

    Raises NotMeasurable without an optimizer whose rate can be changed, or where no race fits the budget.
    """
    race = raced(problem, budget_s, tick, among=RULES)
    best = {sweep.name: sweep for sweep in race.rivals}
    if not best:
        return Parts(notes=(say(f"A race of five optimizers does not fit {budget_s:.0f} s; a larger --budget lets it.",
                                f"{budget_s:.0f} 秒不够五种优化器比赛，请给更大的 --budget。"),))  # fmt: skip
    figures = {
        name: Figure(say(f"{name} at {sweep.best:.2g}, loss", f"{name}，学习率 {sweep.best:.2g}，损失"),
                     sweep.reached.mean, error=sweep.reached.error, samples=sweep.reached.seeds)
        for name, sweep in best.items()
    }  # fmt: skip
    first = next(name for name in best if name in {"adagrad", "rmsprop", "adam"})  # the rivals stand best first
    says = say("The best of the adaptive rules ends lower than plain descent, each at its best rate.",
               "各用最好的学习率，最好的自适应方法最后的损失低于普通梯度下降。")  # fmt: skip
    return Parts((claim(says, figures[first], "<", figures["sgd"]),), tuple(figures.values()), (_raced(say, race),))


def at_its_best(walk: Callable[[float], Path]) -> Path:
    """The way at that one of the rates that ends lowest."""
    ways = map(walk, RATES)
    return min(ways, key=lambda way: float(way.losses[-1].nan_to_num(math.inf)))


def mean_adagrad() -> tuple[Path, Path]:
    """AdaGrad as in the lecture's figure, and with the rate decaying as 1/√t.

        lecture     α g_t / √(1/t Σ g²)  =  √t · α g_t / √(Σ g²)
        torch       α g_t / √(Σ g²)          the mean has become a sum: the decay is in it already
    """
    whole = descend(valley, ADAGRAD_FROM, ADAGRAD, ADAGRAD_STEPS, lambda t: math.sqrt(t + 1), lr=ADAGRAD_RATE)
    return whole, descend(valley, ADAGRAD_FROM, ADAGRAD, ADAGRAD_STEPS, lr=ADAGRAD_RATE)


def forgetful() -> tuple[Path, Path]:
    """RMSProp, and with a rate that decays by half a percent a step."""
    whole = descend(valley, RMSPROP_FROM, RMSPROP, RMSPROP_STEPS, lr=RMSPROP_RATE, alpha=FORGET)
    return whole, descend(
        valley, RMSPROP_FROM, RMSPROP, RMSPROP_STEPS, lambda t: DECAY**t, lr=RMSPROP_RATE, alpha=FORGET
    )


def burst(path: Path) -> Burst:
    """The largest |y| after the first quiet step, and the last quiet step before it grew past `QUIET` again."""
    y = path.places[:, 1].abs()
    quiet = int((y < QUIET).nonzero()[0])
    loud = (y[quiet:] >= QUIET).nonzero()
    return Burst(float(y[quiet:].max()), quiet + int(loud[0]) - 1 if len(loud) else None)


def own_rate(path: Path, step: int) -> float:
    """α / σ of y in the lecture's AdaGrad: what it multiplies the gradient with at the update after `step` others."""
    return ADAGRAD_RATE / float(path.slopes[: step + 1, 1].square().mean().sqrt())


def _along(say: Say, ways: dict[str, Path]) -> tuple[Claim, ...]:
    x = {name: abs(float(way.places[-1, 0])) for name, way in ways.items()}
    far, rate = abs(FAR[0]), VALLEY_RATES["SGD"][1]
    known = far * (1 - rate * LEVEL) ** STEPS
    left = say(f"distance left after {STEPS} updates", f"{STEPS} 次更新之后还剩的路程")
    little = Figure(say("a hundredth of the way", "全程的百分之一"), far / 100)
    return (
        claim(say("Plain descent has hardly moved along the valley,", "普通梯度下降沿山谷几乎没有动，"),
              Figure(left, x["SGD"]), ">", Figure(say("99 % of the way", "全程的 99%"), 0.99 * far)),
        claim(say("as theory says;", "与理论一致；"),
              Figure(say("difference to x₀ (1 − α·10⁻⁶)ᵗ", "与 x₀ (1 − α·10⁻⁶)ᵗ 之差"), abs(x["SGD"] - known)), "<",
              Figure(say("rounding", "舍入误差"), 1e-9)),
        claim(say("after 100 000 it would still have most of the way to go.",
                  "即使 100 000 次更新之后，大半路程仍未走完。"),
              Figure(say("share left, by the same formula", "按同一公式还剩的比例"), (1 - rate * LEVEL) ** MANY), ">",
              Figure(say("half", "一半"), 0.5)),
        *(claim(say(f"{name} is there.", f"{name} 已经到了。"), Figure(left, x[name]), "<", little)
          for name in ("AdaGrad", "RMSProp", "Adam")),
    )  # fmt: skip


def _bent(say: Say, bent: dict[str, Path]) -> tuple[Claim, ...]:
    squares = bent["AdaGrad"].slopes[:-1].square()
    early = float((squares[:FIRST].sum(0) / squares.sum(0)).min())
    return (
        claim(say("On a crescent AdaGrad never forgets the steep start:",
                  "在月牙形的山谷里，AdaGrad 忘不掉陡峭的开头："),
              Figure(say(f"share of the first {FIRST} gradients in its sum", f"前 {FIRST} 个梯度占总和的比例"), early),
              ">",
              Figure(say("half", "一半"), 0.5)),
        claim(say("RMSProp forgets it, and comes ten times as low.", "RMSProp 会忘，损失降到十分之一以下。"),
              Figure(say("loss at its best rate", "最好的学习率下的损失"), float(bent["RMSProp"].losses[-1])), "<",
              Figure(say("a tenth of AdaGrad's", "AdaGrad 的十分之一"), float(bent["AdaGrad"].losses[-1]) / 10)),
    )  # fmt: skip


def _bursts(say: Say, piled: tuple[Path, Path], forgot: tuple[Path, Path]) -> tuple[Claim, ...]:
    (mean, total), (plain, decayed) = (tuple(map(burst, pair)) for pair in (piled, forgot))
    bound = Figure(say("100 times where it was quiet", "平静时的 100 倍"), 100 * QUIET)
    flung = say("farthest |y| after it was quiet", "平静之后 |y| 的最大值")
    before = own_rate(piled[0], mean.begins or 0)
    return (
        claim(say("AdaGrad with the mean of the squares bursts,", "用平方的平均，AdaGrad 会突然爆发，"),
              Figure(flung, mean.peak), ">", bound),
        claim(say("as the small gradients have made its step too long: α/σ times the curvature (1) is beyond 2.",
                  "因为积累下来的小梯度让步长过大：α/σ 乘以曲率（1）超过 2。"),
              Figure(say("α/σ just before", "爆发前的 α/σ"), before), ">", Figure(say("the edge", "临界值"), 2.0)),
        claim(say("A rate decaying as 1/√t mends it: that is torch's AdaGrad.",
                  "学习率按 1/√t 衰减就好了：这正是 torch 的 AdaGrad。"),
              Figure(flung, total.peak), "<", Figure(say("where it was quiet", "平静时"), QUIET)),
        claim(say("RMSProp bursts too,", "RMSProp 也会爆发，"), Figure(flung, plain.peak), ">",
              Figure(say("10 times where it was quiet", "平静时的 10 倍"), 10 * QUIET)),
        claim(say("and less with a decaying rate.", "学习率衰减之后，爆发变小。"), Figure(flung, decayed.peak), "<",
              Figure(say("half of that", "前者的一半"), plain.peak / 2)),
    )  # fmt: skip


def warmed() -> tuple[Path, Path]:
    """RMSProp's first steps from close to the bottom, without warm-up and with one over 20 updates."""
    whole = descend(valley, CLOSE, RMSPROP, WARM, lr=RMSPROP_RATE, alpha=FORGET)
    return whole, descend(valley, CLOSE, RMSPROP, WARM, lambda t: (t + 1) / WARM, lr=RMSPROP_RATE, alpha=FORGET)


def _warm(say: Say) -> tuple[Claim, ...]:
    cold, warm = warmed()
    step = abs(float(cold.places[1, 1] - cold.places[0, 1]))
    farthest = say("farthest |y| of the first 20 steps", "前 20 步 |y| 的最大值")
    return (
        claim(say("RMSProp's very first step is too long, as its mean still lacks gradients,",
                  "RMSProp 的第一步太大，因为平均里还没有几个梯度，"),
              Figure(say("first step over the rate; 1/√(1 − α) = 4.5", "第一步与学习率之比；1/√(1 − α) = 4.5"),
                     step / RMSPROP_RATE), ">", Figure(say("four", "四"), 4.0)),
        claim(say("and warm-up mends that.", "预热（warm-up）可以避免。"),
              Figure(farthest, float(warm.places[:, 1].abs().max())), "<",
              Figure(say("half of it without", "没有预热时的一半"), float(cold.places[:, 1].abs().max()) / 2)),
    )  # fmt: skip


def _left(say: Say, ways: dict[str, Path]) -> Chart:
    steps = tuple(map(float, range(STEPS + 1)))
    curves = tuple(Curve(name, steps, tuple(way.places[:, 0].abs().tolist())) for name, way in ways.items())
    return Chart(say("A valley a million times flatter along than across: the way that is left",
                     "沿谷底比横向平坦一百万倍的山谷：还剩的路程"),
                 say("update", "更新次数"), say("distance left", "还剩的路程"), curves)  # fmt: skip


def _crescent(say: Say, bent: dict[str, Path]) -> Chart:
    return Chart(
        say("A crescent: AdaGrad stops short, RMSProp goes on",
            "月牙形的山谷：AdaGrad 半路停下，RMSProp 继续前进"), "x", "y",
        tuple(bent[name].curve(name) for name in ("RMSProp", "AdaGrad")),
        surface=surface(crescent, say("loss", "损失"), (-2.0, 1.5), (-0.5, 3.3), log=True),
    )  # fmt: skip


def _burst_charts(say: Say, piled: tuple[Path, Path], forgot: tuple[Path, Path]) -> tuple[Chart, ...]:
    decay = say("with decay", "学习率衰减")
    return (
        Chart(
            say("AdaGrad with the mean of the squares bursts; with decay it does not",
                "用平方平均的 AdaGrad 会爆发；学习率衰减就不会"), "x", "y",
            (piled[0].curve(say("mean of the squares", "平方的平均")), piled[1].curve(decay)),
            surface=surface(valley, say("loss", "损失"), (-260.0, 20.0), (-2.0, 2.0)),
        ),
        Chart(
            say("RMSProp bursts once small gradients have piled up; with decay less and later",
                "小梯度积累之后 RMSProp 爆发；学习率衰减时更小也更晚"), say("update", "更新次数"), "|y|",
            (_aside(forgot[0], "RMSProp"), _aside(forgot[1], decay)), log_y=True,
        ),
    )  # fmt: skip


def _aside(path: Path, name: str) -> Curve:
    """|y| over the updates."""
    return Curve(name, tuple(map(float, range(len(path.places)))), tuple(path.places[:, 1].abs().tolist()))


def _raced(say: Say, race: Raced) -> Chart:
    curves = tuple(lines(sweep.name, sweep.rates, sweep.levels, 3 * abs(race.own.initial)) for sweep in race.rivals)
    return Chart(say(f"The loss after {race.plan.steps} updates, by learning rate",
                     f"{race.plan.steps} 次更新之后的损失，按学习率"),
                 say("learning rate", "学习率"), say("loss", "损失"), curves, log_x=True, log_y=True)  # fmt: skip
