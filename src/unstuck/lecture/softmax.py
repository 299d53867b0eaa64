"""`softmax`: what it makes of a network's outputs, and what comes back through it.

    pᵢ = exp(zᵢ) / Σⱼ exp(zⱼ),       pᵢ / pⱼ = exp(zᵢ − zⱼ),       ∂(−ln p_t)/∂zᵢ = pᵢ − [i = t]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from unstuck.claims import Claim
from unstuck.criterion import prepared
from unstuck.errors import NotMeasurable
from unstuck.lecture.answers import answers
from unstuck.lecture.parts import Parts, Say, Tick, claim, unmeasured
from unstuck.linalg.moments import of
from unstuck.problem import Problem
from unstuck.records import Chart, Curve, Figure

LOGITS = (3.0, 1.0, -3.0)
"""The lecture's example."""
ROWS, CLASSES, SCALE, SHIFT = 1000, 5, 3.0, 100.0
COLD, WARM, HOT = 0.1, 1.0, 100.0
ROUNDING = 1e-12
SURE = 0.99
"""A sample whose largest probability is above this counts as saturated."""
BINS = 10


def shown(say: Say) -> Parts:
    """The lecture's three outputs, and the same laws on a thousand random rows, all in float64."""
    rows = SCALE * torch.randn(ROWS, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Parts(
        claims=(*_shares(say, rows), *_gaps(say, rows), _two_classes(say), *_temperatures(say), _slope(say, rows)),
        charts=(*_example(say), _sigmoid(say), _over_temperature(say), _slope_chart(say)),
    )


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's own outputs where the training was left: how spread they are, and how sure the probabilities."""
    try:
        log_p, labels = answers(prepared(problem))
    except NotMeasurable as error:
        return unmeasured(say, str(error))
    p, right = log_p.exp(), log_p.argmax(1) == labels
    mistakes = (p - one_hot(labels, p.shape[1])).norm(dim=1)
    claims = (_unmoved(say, log_p), *_by_mistake(say, mistakes[~right], mistakes[right]))
    return Parts(claims, _own_figures(say, log_p, right), (_sureness(say, p.amax(1), right),))


def _shares(say: Say, rows: Tensor) -> tuple[Claim, ...]:
    p = torch.softmax(rows, 1)
    off, moved = float((p.sum(1) - 1).abs().max()), int((p.argmax(1) != rows.argmax(1)).sum())
    return (
        claim(say("Every output is above 0,", "每个输出都大于 0，"),
              Figure(say("smallest of all", "最小的输出"), float(p.min())), ">", _zero(say)),
        claim(say("and below 1;", "且小于 1；"),
              Figure(say("what the largest lacks of 1", "最大的输出离 1 还差"), 1 - float(p.max())), ">", _zero(say)),
        claim(say("together they are 1.", "加起来等于 1。"),
              Figure(say("largest distance of a sum from 1", "和与 1 的最大偏差"), off), "<", _rounding(say)),
        claim(say("The largest stays the largest.", "最大的仍然最大。"),
              Figure(say("rows in which another one became the largest", "最大项换了位置的行数"), moved), "<",
              Figure(say("one", "一"), 1.0)),
        _unmoved(say, rows),
    )  # fmt: skip


def _unmoved(say: Say, rows: Tensor) -> Claim:
    change = float((torch.softmax(rows + SHIFT, 1) - torch.softmax(rows, 1)).abs().max())
    return claim(
        say(f"Adding {SHIFT:g} to all logits changes nothing.", f"所有 logit 同时加 {SHIFT:g}，结果不变。"),
        Figure(say("largest change of a probability", "概率的最大变化"), change), "<", _rounding(say),
    )  # fmt: skip


def _gaps(say: Say, rows: Tensor) -> tuple[Claim, ...]:
    p = torch.softmax(rows, 1)
    off = float(((p[:, :1] / p[:, 1:]).log() - (rows[:, :1] - rows[:, 1:])).abs().max())
    first, second, _ = torch.softmax(torch.tensor(LOGITS, dtype=torch.float64), 0).tolist()
    return (
        claim(say("The ratio of two probabilities is exp of the difference of their logits,",
                  "两个概率之比，等于两个 logit 之差的指数，"),
              Figure(say("largest difference of the logarithms", "取对数后的最大偏差"), off), "<", _rounding(say)),
        claim(say("so that a lead grows: of 3 and 1 the first is three times the second before, and more after.",
                  "所以差距被拉大：3 和 1，之前是三倍，之后不止。"),
              Figure(say("ratio after the softmax", "softmax 之后之比"), first / second), ">",
              Figure(say("before", "之前之比"), LOGITS[0] / LOGITS[1])),
    )  # fmt: skip


def _two_classes(say: Say) -> Claim:
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    off = float((_against_zero(z) - z.sigmoid()).abs().max())
    return claim(
        say("With two classes, softmax of (z, 0) is the sigmoid of z.",
            "只有两类时，(z, 0) 的 softmax 就是 z 的 sigmoid。"),
        Figure(say("largest difference", "最大差"), off), "<", _rounding(say),
    )  # fmt: skip


def _temperatures(say: Say) -> tuple[Claim, ...]:
    cold, warm, hot = (float(_at(heat).max()) for heat in (COLD, WARM, HOT))
    most = say("largest probability", "最大概率")
    return (
        claim(say(f"Divided by {COLD:g} first, the logits give a choice that is nearly hard;",
                  f"先把 logit 除以 {COLD:g}，就几乎是一锤定音；"),
              Figure(most, cold), ">", Figure(say("as they are", "原样"), warm)),
        claim(say(f"divided by {HOT:g}, nearly equal shares.", f"除以 {HOT:g}，几乎平分。"),
              Figure(say("largest probability above a third by", "最大概率超出三分之一"), hot - 1 / 3), "<",
              Figure(say("two hundredths", "百分之二"), 0.02)),
    )  # fmt: skip


def _slope(say: Say, rows: Tensor) -> Claim:
    labels = torch.arange(len(rows)) % rows.shape[1]
    z = rows.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(z, labels, reduction="sum"), z)
    off = float((slope - (torch.softmax(rows, 1) - one_hot(labels))).abs().max())
    return claim(
        say("The gradient of cross-entropy through it is p − t: what it says, less what is true.",
            "交叉熵经过它的梯度是 p − t：它说的，减去真实的。"),
        Figure(say("largest difference from automatic differentiation", "与自动求导的最大差"), off), "<",
        _rounding(say),
    )  # fmt: skip


def _by_mistake(say: Say, wrong: Tensor, right: Tensor) -> tuple[Claim, ...]:
    """The gradients' norms; no claim where either kind has fewer than two samples, and so no error."""
    if min(len(wrong), len(right)) < 2:
        return ()
    return (
        claim(say("Samples it gets wrong send back the larger gradients, p − t.", "答错的样本传回的梯度 p − t 更大。"),
              _mean(say("on those it gets wrong", "答错的样本"), wrong), ">",
              _mean(say("on those it gets right", "答对的样本"), right)),
    )  # fmt: skip


def _own_figures(say: Say, log_p: Tensor, right: Tensor) -> tuple[Figure, ...]:
    sure = log_p.exp().amax(1)
    return (
        _mean(say("standard deviation of a sample's logits", "一个样本的 logit 的标准差"), log_p.std(1)),
        _mean(say("largest probability, mean", "最大概率的均值"), sure),
        _mean(say(f"share of samples surer than {SURE:g}", f"最大概率超过 {SURE:g} 的样本占比"),
              (sure > SURE).double()),
        _mean(say("share of samples that it gets right", "答对的样本占比"), right.double()),
    )  # fmt: skip


def _mean(name: str, values: Tensor) -> Figure:
    """The mean over samples with its standard error."""
    found = of(values.double())
    return Figure(name, float(found.mean), error=float(found.standard_error), samples=found.count)


def _sureness(say: Say, sure: Tensor, right: Tensor) -> Chart:
    """How many samples there are of each largest probability, right ones and wrong ones."""
    place = (sure * BINS).long().clamp_max(BINS - 1)
    middles = tuple((k + 0.5) / BINS for k in range(BINS))
    counts = [torch.bincount(place[chosen], minlength=BINS).double() / len(sure) for chosen in (right, ~right)]
    names = say("right", "答对"), say("wrong", "答错")
    curves = tuple(Curve(n, middles, tuple(c.tolist())) for n, c in zip(names, counts, strict=True))
    return Chart(
        say("How sure it is, and whether it is right", "有多确定，又是否答对"), say("largest probability", "最大概率"),
        say("share of samples", "样本占比"), curves, bars=True,
    )  # fmt: skip


def _example(say: Say) -> tuple[Chart, ...]:
    p = torch.softmax(torch.tensor(LOGITS, dtype=torch.float64), 0).tolist()
    names = [f"y{k} = {z:g}" for k, z in zip("₁₂₃", LOGITS, strict=True)]

    def bars(values: list[float]) -> tuple[Curve, ...]:
        return tuple(Curve(name, (0.0,), (value,)) for name, value in zip(names, values, strict=True))

    class_ = say("class", "类别")
    return (
        Chart(say("First exp, which makes all of them positive…", "先取指数，全都变成正数……"), class_, "exp(y)",
              bars([math.exp(z) for z in LOGITS]), bars=True),
        Chart(say("…then shares of their sum: probabilities", "……再除以总和：成为概率"), class_,
              say("probability", "概率"), bars(p), bars=True),
    )  # fmt: skip


def _sigmoid(say: Say) -> Chart:
    z = torch.linspace(-6, 6, 61, dtype=torch.float64)
    x = tuple(z.tolist())
    curves = (
        Curve(say("softmax of (z, 0)", "(z, 0) 的 softmax"), x, tuple(_against_zero(z).tolist())),
        Curve(say("sigmoid of z", "z 的 sigmoid"), x, tuple(z.sigmoid().tolist())),
    )
    title = say("Two classes: the sigmoid and the softmax are one curve", "两个类别：sigmoid 与 softmax 是同一条曲线")
    return Chart(title, "z", say("probability", "概率"), curves)


def _over_temperature(say: Say) -> Chart:
    heats = torch.logspace(-1, 2, 31, dtype=torch.float64).tolist()
    each = [_at(heat).tolist() for heat in heats]
    curves = tuple(
        Curve(f"y{name} = {z:g}", tuple(heats), tuple(p[k] for p in each))
        for k, (name, z) in enumerate(zip("₁₂₃", LOGITS, strict=True))
    )
    return Chart(
        say("Temperature: cold makes it choose, hot makes it undecided", "温度：低温时非此即彼，高温时难分上下"),
        say("temperature T, in softmax(y / T)", "温度 T，softmax(y / T)"), say("probability", "概率"), curves,
        log_x=True,
    )  # fmt: skip


def _slope_chart(say: Say) -> Chart:
    z = torch.linspace(-8, 8, 65, dtype=torch.float64)
    p = _against_zero(z)
    curve = Curve("p − 1", tuple(z.tolist()), tuple((p - 1).tolist()))
    return Chart(
        say("What comes back to the right class: −1 where it is wrong, 0 where it is right",
            "传回正确类别的梯度：答错时是 −1，答对时是 0"),
        say("logit of the right class, the other at 0", "正确类别的 logit（另一类为 0）"),
        say("gradient of cross-entropy", "交叉熵的梯度"), (curve,),
    )  # fmt: skip


def _against_zero(z: Tensor) -> Tensor:
    """The first of softmax(z, 0)."""
    return torch.softmax(torch.stack([z, torch.zeros_like(z)]), 0)[0]


def _at(heat: float) -> Tensor:
    """The example's probabilities at a temperature."""
    return torch.softmax(torch.tensor(LOGITS, dtype=torch.float64) / heat, 0)


def _zero(say: Say) -> Figure:
    return Figure(say("zero", "零"), 0.0)


def _rounding(say: Say) -> Figure:
    return Figure(say("rounding", "舍入误差"), ROUNDING)
