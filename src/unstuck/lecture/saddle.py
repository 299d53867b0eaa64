"""`saddle`: L = (1 − w₁w₂)², where descent stops although the loss could fall, and the way out along u."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unstuck.claims import Claim
from unstuck.curvature.point import Point, classify
from unstuck.landscape import critical
from unstuck.lecture.parts import Parts, Say, Tick, claim
from unstuck.lecture.plane import Loss, Path, Place, descend, field, gradient, hessian, surface
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem
from unstuck.records import Arrow, Chart, Figure

WIDE = (-2.0, 2.0)
ORIGIN = (0.0, 0.0)
STUCK: Place = (-1.2, 1.2)
"""Here w₁ = −w₂: the gradient has no part along u, and descent walks straight up to the saddle."""
STEPS, RATE, ASIDE, NEAR = 200, 0.05, 0.1, 0.1


class TwoWeights(nn.Module):
    """The lecture's network: one neuron after another, ŷ = w₂ w₁ x."""

    def __init__(self, w1: float = 0.0, w2: float = 0.0) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.tensor(w1)), nn.Parameter(torch.tensor(w2))

    def forward(self, x: Tensor) -> Tensor:
        """ŷ [samples, 1]."""
        return self.w2 * self.w1 * x


def two_weights(x: Tensor, y: Tensor) -> Tensor:
    """L(w₁, w₂) = (1 − w₁w₂)²."""
    return (1 - x * y) ** 2


def monkey(x: Tensor, y: Tensor) -> Tensor:
    """x³ − 3xy²: down three ways, with a Hessian of zeros at the origin."""
    return x**3 - 3 * x * y**2


def bowl(x: Tensor, y: Tensor) -> Tensor:
    """x² + y⁴: a minimum whose Hessian is that of `ridge`."""
    return x**2 + y**4


def ridge(x: Tensor, y: Tensor) -> Tensor:
    """x² − y⁴: no minimum, with the Hessian of `bowl`."""
    return x**2 - y**4


def shown(say: Say) -> Parts:
    """The textbook case: 400 steps on two weights, and one certified verdict."""
    values, vectors = torch.linalg.eigh(hessian(two_weights, ORIGIN))
    u = vectors[:, 0] * vectors[0, 0].sign()
    stuck = descend(two_weights, STUCK, SGD, STEPS, lr=RATE)
    out = descend(two_weights, (float(ASIDE * u[0]), float(ASIDE * u[1])), SGD, STEPS, lr=RATE)
    return Parts(
        claims=(*_at_origin(say, values), *_ways(say, stuck, out), *_hard(say)),
        figures=_certified(say),
        charts=(_picture(say, stuck, out, u), _field(say), _courses(say, stuck, out), *_hard_pictures(say)),
    )


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The same question on the user's training: what kind of point it was left at, and the way out of a saddle."""
    report = critical(problem, budget_s, tick=tick)
    assert report.point is not None
    point, claims = report.point, []
    if point.verdict == "saddle" and point.escape_loss is not None:
        before, after = Figure(say("loss here", "此处的损失"), point.loss), point.escape_loss
        says = say("A step along u brings the loss down.", "沿 u 走一步，损失就下降。")
        claims.append(claim(says, Figure(say("after the step", "走一步之后"), after), "<", before))
    return Parts(tuple(claims), report.figures, report.charts, (report.headline,))


def _at_origin(say: Say, values: Tensor) -> tuple[Claim, ...]:
    slope = Figure(say("gradient's norm at the origin", "原点的梯度范数"), float(gradient(two_weights, ORIGIN).norm()))
    low = Figure(say("smaller eigenvalue", "较小的特征值"), float(values[0]))
    high = Figure(say("larger eigenvalue", "较大的特征值"), float(values[1]))
    tiny, zero = Figure(say("rounding", "舍入误差"), 1e-12), Figure(say("zero", "零"), 0.0)
    return (
        claim(say("The origin is a critical point.", "原点是临界点。"), slope, "<", tiny),
        claim(say("The loss bends down along one way,", "沿一个方向，损失向下弯，"), low, "<", zero),
        claim(say("and up along the other: a saddle.", "沿另一个方向向上弯：这是鞍点。"), high, ">", zero),
    )


def _ways(say: Say, stuck: Path, out: Path) -> tuple[Claim, ...]:
    end = Figure(say("its loss at the end", "最后的损失"), float(stuck.losses[-1]))
    escaped = Figure(say("loss at the end", "最后的损失"), float(out.losses[-1]))
    most = Figure(say("nearly the loss of the saddle", "接近鞍点处的损失"), 0.99)
    little = Figure(say("a millionth", "百万分之一"), 1e-6)
    return (
        claim(say("Plain descent from w₁ = −w₂ is stuck at it.", "从 w₁ = −w₂ 出发，普通梯度下降停在鞍点。"),
              end, ">", most),
        claim(say("After a small step along u its loss goes to zero.", "先沿 u 走一小步，损失就降到零。"),
              escaped, "<", little),
    )  # fmt: skip


def _hard(say: Say) -> tuple[Claim, ...]:
    largest = float(hessian(monkey, ORIGIN).abs().max())
    same = float((hessian(bowl, ORIGIN) - hessian(ridge, ORIGIN)).abs().max())
    tiny, zero = Figure(say("rounding", "舍入误差"), 1e-12), Figure(say("zero", "零"), 0.0)
    return (
        claim(say("The monkey saddle's Hessian is zero: it says nothing,", "猴鞍面的黑塞矩阵为零：它什么也没说，"),
              Figure(say("largest entry", "最大元素"), largest), "<", tiny),
        claim(say("yet close by the loss is lower.", "但附近的损失更低。"),
              Figure(say("lowest loss within 0.1", "半径 0.1 内的最低损失"), lowest_around(monkey, NEAR)), "<", zero),
        claim(say("x² + y⁴ and x² − y⁴ have one Hessian,", "x² + y⁴ 与 x² − y⁴ 的黑塞矩阵相同，"),
              Figure(say("their difference", "两者之差"), same), "<", tiny),
        claim(say("but only one of them can be descended from the origin.", "但只有一个能从原点继续下降。"),
              Figure(say("lowest of x² − y⁴ within 0.1", "x² − y⁴ 在半径 0.1 内的最低值"), lowest_around(ridge, NEAR)),
              "<", Figure(say("lowest of x² + y⁴", "x² + y⁴ 的最低值"), lowest_around(bowl, NEAR))),
    )  # fmt: skip


def lowest_around(loss: Loss, radius: float) -> float:
    """The lowest height on a circle around the origin (360 places)."""
    angles = torch.arange(360, dtype=torch.float64) * (math.pi / 180)
    return float(loss(radius * angles.cos(), radius * angles.sin()).min())


def _certified(say: Say) -> tuple[Figure, ...]:
    """What `unstuck critical` says of the same network, from products with its Hessian alone."""
    ones = torch.ones(1, 1)
    point = classify(Problem(TwoWeights(), nn.MSELoss(), [(ones, ones)]))
    verdict = say(f"unstuck critical: {point.verdict}, λmin", f"unstuck critical：{_name(point)}，λmin")
    return (
        Figure(verdict, point.ends.least.high),
        Figure("λmax", point.ends.most.low),
    )


def _name(point: Point) -> str:
    return {"saddle": "鞍点", "minimum": "极小值"}.get(point.verdict, point.verdict)


def _picture(say: Say, stuck: Path, out: Path, u: Tensor) -> Chart:
    return Chart(
        say("(1 − w₁w₂)² from above: two valleys, a saddle between them", "从上方看 (1 − w₁w₂)²：两条山谷，中间是鞍点"),
        "w₁", "w₂",
        (stuck.curve(say("plain descent, stuck", "普通梯度下降，停住")),
         out.curve(say("after a step along u", "沿 u 走一步之后"))),
        surface=surface(two_weights, say("loss", "损失"), WIDE, WIDE, log=True),
        arrows=(Arrow(0.0, 0.0, 0.6 * float(u[0]), 0.6 * float(u[1]), "u (λ = −2)"),
                Arrow(0.0, 0.0, 0.6 * float(u[0]), -0.6 * float(u[1]), "λ = +2")),
    )  # fmt: skip


def _field(say: Say) -> Chart:
    return Chart(
        say("Against the gradient: where descent is drawn to", "负梯度方向：梯度下降往哪里走"), "w₁", "w₂",
        surface=surface(two_weights, say("loss", "损失"), WIDE, WIDE, log=True), arrows=field(two_weights, WIDE, WIDE),
        note=say("Longer arrows, steeper slopes (by the square root).", "箭头越长，坡越陡（按平方根缩放）。"),
    )  # fmt: skip


def _courses(say: Say, stuck: Path, out: Path) -> Chart:
    names = say("plain descent", "普通梯度下降"), say("after a step along u", "沿 u 走一步之后")
    curves = stuck.course(names[0]), out.course(names[1])
    return Chart(say("The loss over the steps", "损失随步数的变化"), say("step", "步"), say("loss", "损失"), curves)


def _hard_pictures(say: Say) -> tuple[Chart, ...]:
    cases = (
        (say("Monkey saddle, x³ − 3xy²", "猴鞍面 x³ − 3xy²"), monkey),
        (say("Degenerate: x² − y⁴", "退化点：x² − y⁴"), ridge),
    )
    return tuple(
        Chart(title, "x", "y", surface=surface(loss, say("height", "高度"), (-1.0, 1.0), (-1.0, 1.0)))
        for title, loss in cases
    )
