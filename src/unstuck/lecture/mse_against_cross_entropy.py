"""`mse-against-cross-entropy`: two losses of one softmax, and descent from the corner where both are worst.

    p = softmax(y₁, y₂, −1000),   target (1, 0, 0)
    cross-entropy   −ln p₁              ∂/∂y₁ = −(1 − p₁)
    squared error   Σ (pᵢ − tᵢ)²        ∂/∂y₁ = −4 p₁ (1 − p₁)²        (p₃ = 0, so that p₂ = 1 − p₁)

Where the answer is wrong for certain, p₁ ≈ 0, the first slope is −1 and the second is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unstuck.chapters import loss as loss_chapter
from unstuck.claims import Claim
from unstuck.evidence import Evidence
from unstuck.lecture.parts import Parts, Say, Tick, claim, of_chapter
from unstuck.lecture.plane import Path, Place, descend, gradient, surface
from unstuck.optim.adam import ADAM
from unstuck.optim.rule import Rule
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem
from unstuck.records import Chart, Curve, Figure

THIRD = -1000.0
WIDE = (-11.0, 11.0)
CORNER: Place = (-10.0, 10.0)
FAR: Place = (-20.0, 20.0)
"""Twice as far out: there squared error's gradient is far below Adam's ε, 1e-8."""
STEPS, RATE, EARLY = 400, 0.2, 10


class Ways(NamedTuple):
    """Where one optimizer goes on either loss, from one start."""

    entropy: Path
    squared: Path


def log_softmax(x: Tensor, y: Tensor) -> Tensor:
    """ln p [3, …] of the outputs (x, y, −1000)."""
    return torch.stack([x, y, torch.full_like(x, THIRD)]).log_softmax(0)


def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """−ln p₁."""
    return -log_softmax(x, y)[0]


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """(p₁ − 1)² + p₂² + p₃²."""
    p = log_softmax(x, y).exp()
    return (p[0] - 1) ** 2 + p[1] ** 2 + p[2] ** 2


def slopes(place: Place) -> tuple[float, float]:
    """The norms of the two gradients by their formulas: √2 (1 − p₁), and 4√2 p₁ (1 − p₁)²."""
    right = float(torch.tensor(place[0] - place[1], dtype=torch.float64).sigmoid())
    return 2**0.5 * (1 - right), 4 * 2**0.5 * right * (1 - right) ** 2


def descents(start: Place, rule: Rule) -> Ways:
    """400 steps on either loss."""
    return Ways(*(descend(loss, start, rule, STEPS, lr=RATE) for loss in (cross_entropy, squared_error)))


def shown(say: Say) -> Parts:
    """The lecture's example: descents of 400 steps."""
    plain, adam = descents(CORNER, SGD), descents(CORNER, ADAM)
    ahead = _overtaken(adam)
    return Parts(
        claims=(*_at_corner(say), *_plain(say, plain), *_adam(say, adam), *_far(say)),
        charts=(*_surfaces(say, plain, adam), _courses(say, plain, adam), _slopes(say)),
        notes=(
            say(f"With Adam squared error is not slower all the way: from step {ahead} on it is ahead. Its gradient "
                "grows as it goes, and Adam divides by the smaller ones of the past.",
                f"用 Adam 时，平方误差并非一路都慢：从第 {ahead} 步起它反而领先。"
                "它的梯度越走越大，而 Adam 除以的是过去较小的梯度。"),
        ) if ahead < STEPS else (),
    )  # fmt: skip


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """Both losses on the user's network, from his start: the chapter on the loss."""
    evidence = Evidence(problem.loop, problem, problem.optimizer)
    return of_chapter(loss_chapter.chapter(problem, evidence, budget_s, tick))


def _overtaken(adam: Ways) -> int:
    """The first step at which squared error's y₁ is above that of cross-entropy; all of them where it never is."""
    ahead = adam.squared.places[:, 0] > adam.entropy.places[:, 0]
    return int(ahead.nonzero()[0]) if bool(ahead.any()) else STEPS


def _at_corner(say: Say) -> tuple[Claim, ...]:
    entropy, squared = (float(gradient(loss, CORNER).norm()) for loss in (cross_entropy, squared_error))
    off = max(abs(a / b - 1) for a, b in zip((entropy, squared), slopes(CORNER), strict=True))
    return (
        claim(say("In the corner squared error's gradient is less than a thousandth of cross-entropy's.",
                  "在角落里，平方误差的梯度不到交叉熵梯度的千分之一。"),
              Figure(say("squared error's gradient", "平方误差的梯度"), squared), "<",
              Figure(say("a thousandth of cross-entropy's", "交叉熵梯度的千分之一"), entropy / 1000)),
        claim(say("Automatic differentiation and the formulas agree on both.", "两个梯度上，自动求导与公式一致。"),
              Figure(say("relative difference", "相对差"), off), "<", Figure(say("a millionth", "百万分之一"), 1e-6)),
    )  # fmt: skip


def _plain(say: Say, plain: Ways) -> tuple[Claim, ...]:
    return (
        claim(say("Plain descent on squared error does not leave the corner;",
                  "用平方误差，普通梯度下降离不开这个角落；"),
              _way(say, plain.squared), "<", Figure(say("a hundredth", "百分之一"), 0.01)),
        claim(say("on cross-entropy it arrives, with the same rate and as many steps.",
                  "用交叉熵，同样的学习率、同样的步数，它走到了。"),
              _right(say, plain.entropy), ">", Figure(say("nearly certain", "几乎确定"), 0.99)),
    )  # fmt: skip


def _adam(say: Say, adam: Ways) -> tuple[Claim, ...]:
    early = [float(_travelled(path)[EARLY]) for path in (adam.squared, adam.entropy)]
    return (
        claim(say("With Adam squared error gets there too,", "换成 Adam，平方误差也能走到，"),
              _right(say, adam.squared), ">", Figure(say("nearly certain", "几乎确定"), 0.99)),
        claim(say("although it starts off slower.", "只是起步更慢。"),
              Figure(say(f"its way in {EARLY} steps", f"它前 {EARLY} 步走过的距离"), early[0]), "<",
              Figure(say("cross-entropy's", "交叉熵走过的距离"), early[1])),
    )  # fmt: skip


def _far(say: Say) -> tuple[Claim, ...]:
    entropy, squared = descents(FAR, SGD).entropy, descents(FAR, ADAM).squared
    return (
        claim(say("Twice as far out even Adam stands still on squared error: its gradient is lost beside ε = 1e-8;",
                  "起点再远一倍，平方误差连 Adam 也走不动：梯度比 ε = 1e-8 还小得多；"),
              _way(say, squared), "<", Figure(say("a hundredth", "百分之一"), 0.01)),
        claim(say("plain descent on cross-entropy arrives from there as well.",
                  "而用交叉熵，普通梯度下降从那里也能走到。"),
              _right(say, entropy), ">", Figure(say("nearly certain", "几乎确定"), 0.99)),
    )  # fmt: skip


def _travelled(path: Path) -> Tensor:
    return (path.places - path.places[0]).square().sum(1).sqrt()


def _way(say: Say, path: Path) -> Figure:
    return Figure(say(f"how far it came in {STEPS} steps", f"{STEPS} 步走过的距离"), float(_travelled(path)[-1]))


def _right(say: Say, path: Path) -> Figure:
    """p₁ at the end of the way."""
    end = path.places[-1]
    return Figure(say("probability of the right class", "正确类别的概率"), float(log_softmax(end[0], end[1])[0].exp()))


def _surfaces(say: Say, plain: Ways, adam: Ways) -> tuple[Chart, ...]:
    names = say("plain descent", "普通梯度下降"), say("Adam", "Adam")
    note = say("Both ways begin in the corner y₁ = −10, y₂ = 10.", "两条路都从角落 y₁ = −10、y₂ = 10 出发。")
    return (
        Chart(say("Squared error: a plateau around the corner, and no slope to follow",
                  "平方误差：角落周围是平台，没有坡可走"), "y₁", "y₂",
              (adam.squared.curve(names[1]), plain.squared.curve(names[0])),
              surface=surface(squared_error, say("loss", "损失"), WIDE, WIDE), note=note),
        Chart(say("Cross-entropy: a slope all the way from the corner", "交叉熵：从角落起一路都是坡"), "y₁", "y₂",
              (plain.entropy.curve(names[0]),),
              surface=surface(cross_entropy, say("loss", "损失"), WIDE, WIDE)),
    )  # fmt: skip


def _courses(say: Say, plain: Ways, adam: Ways) -> Chart:
    ways = (
        (say("cross-entropy, plain", "交叉熵，普通"), plain.entropy),
        (say("squared error, plain", "平方误差，普通"), plain.squared),
        (say("cross-entropy, Adam", "交叉熵，Adam"), adam.entropy),
        (say("squared error, Adam", "平方误差，Adam"), adam.squared),
    )
    steps = tuple(map(float, range(STEPS // 2 + 1)))
    curves = tuple(Curve(name, steps, tuple(path.places[: len(steps), 0].tolist())) for name, path in ways)
    title = say("The right class's output y₁: three rise, one stays", "正确类别的输出 y₁：三条上升，一条不动")
    return Chart(title, say("step", "步"), "y₁", curves)


def _slopes(say: Say) -> Chart:
    along = torch.linspace(*CORNER, 81, dtype=torch.float64).tolist()
    each = [slopes((y, -y)) for y in along]
    curves = tuple(
        Curve(name, tuple(along), tuple(pair[k] for pair in each))
        for k, name in enumerate((say("cross-entropy", "交叉熵"), say("squared error", "平方误差")))
    )
    return Chart(
        say("The gradient on the way from wrong (left) to right: squared error's is small at both ends",
            "从错（左）到对（右）一路上的梯度：平方误差在两端都很小"),
        say("y₁ (and y₂ = −y₁)", "y₁（且 y₂ = −y₁）"), say("norm of the gradient", "梯度的范数"), curves, log_y=True,
    )  # fmt: skip
