"""`normalization`: inputs of one scale, and the same idea inside of a network: BatchNorm, its batch, and its test time.

    x̃ = (x − μ) / σ        μ, σ: of a feature over the data; of a channel over the batch; in a test, over the past

Two weights on inputs of 1, 2, … and 100, 200, … have a long valley for a loss, and a round bowl once both inputs are
normalized. A batch of B estimates μ with an error of σ/√B: that is the noise that BatchNorm trains with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unstuck.chapters import normalization as normalization_chapter
from unstuck.chapters.drawn import heights, lines
from unstuck.claims import Claim
from unstuck.evidence import Evidence
from unstuck.lecture.batch_norm import (
    DRAWS,
    MOMENTUM,
    SIZES,
    TOGETHER,
    BatchNorm,
    accuracy,
    batch_noise,
    recalibrated,
    train,
)
from unstuck.lecture.digits import PIXELS, Digits, digits
from unstuck.lecture.parts import Parts, Say, Tick, claim, of_chapter
from unstuck.lecture.plane import Loss, Path, descend, hessian, surface
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem
from unstuck.race.trials import Level, level
from unstuck.records import Chart, Curve, Figure

FEATURES = torch.tensor([[1, 200], [2, 500], [3, 100], [4, 400], [5, 300]], dtype=torch.float64)
BEST = torch.tensor([3.0, 0.01], dtype=torch.float64)
ACROSS, UP, START = (-2.0, 8.0), (-3.0, 5.0), (-1.0, 3.0)
STEPS, SHARE = 100, 0.75
"""Descent takes this share of 2/λmax, the rate beyond which it diverges."""

TRAINED, UPDATES, SEEDS = 512, 150, range(6)
SLOW = 1e-3
"""A momentum too small for 150 updates: of the old statistics 86 % are left."""


def shown(say: Say, seeds: Sequence[int] = SEEDS, updates: int = UPDATES) -> Parts:
    """Two weights in closed form, and small networks on digits, each with as many starts as there are seeds."""
    ways = [descend(loss, START, SGD, STEPS, lr=stable(loss)) for loss in (raw, normalized)]
    data = digits(TRAINED)
    noise = batch_noise(data)
    trained = {size: [train(data, size, MOMENTUM, seed, updates) for seed in seeds] for size in (2, TOGETHER)}
    tests = at_test_time(data, trained[TOGETHER], seeds, updates)
    return Parts(
        claims=(*_inputs(say, ways), *_noisy(say, noise), *_training(say, data, trained), *_tests(say, tests)),
        charts=(*_surfaces(say, ways), _noise_chart(say, noise), _by_size(say, data, trained[TOGETHER]),
                _tests_chart(say, tests)),
    )  # fmt: skip


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's own normalization layers, or what they would do: the chapter on batch normalization."""
    evidence = Evidence(problem.loop, problem, problem.optimizer)
    return of_chapter(normalization_chapter.chapter(problem, evidence, budget_s, tick))


def raw(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of w₁x₁ + w₂x₂ with the inputs as they are."""
    return _error(FEATURES, FEATURES @ BEST, x, y)


def normalized(x: Tensor, y: Tensor) -> Tensor:
    """The same with each input less its mean, over its standard deviation; the target less its mean."""
    target = FEATURES @ BEST
    return _error((FEATURES - FEATURES.mean(0)) / FEATURES.std(0, correction=0), target - target.mean(), x, y)


def stable(loss: Loss) -> float:
    """The rate: three quarters of 2/λmax."""
    return SHARE * 2 / float(torch.linalg.eigvalsh(hessian(loss, START))[-1])


def condition(loss: Loss) -> float:
    """λmax/λmin of the Hessian, the same everywhere."""
    least, most = torch.linalg.eigvalsh(hessian(loss, START))
    return float(most / least)


def at_test_time(
    data: Digits, right: Sequence[nn.Sequential], seeds: Sequence[int], updates: int
) -> dict[str, Level]:
    """Accuracy on unseen digits by running statistics that kept up (`right`), moved too slowly, or never moved; and of
    the last with statistics of all training samples put in. What was trained is the same network each time."""
    slow, never = ([train(data, TOGETHER, share, seed, updates) for seed in seeds] for share in (SLOW, 0.0))
    models = {"right": right, "slow": slow, "never": never, "exact": [recalibrated(model, data) for model in never]}
    return {name: level([accuracy(model, data) for model in found]) for name, found in models.items()}


def _error(features: Tensor, target: Tensor, x: Tensor, y: Tensor) -> Tensor:
    predicted = x[..., None] * features[:, 0] + y[..., None] * features[:, 1]
    return ((predicted - target) ** 2).mean(-1)


def _inputs(say: Say, ways: Sequence[Path]) -> tuple[Claim, ...]:
    left = float(ways[1].losses[-1] / ways[1].losses[0])
    share = say(f"share of the loss left after {STEPS} steps", f"{STEPS} 步之后剩下的损失占比")
    moved, due = float((ways[0].places[-1] - ways[0].places[0])[0].abs()), abs(float(BEST[0]) - START[0])
    return (
        claim(say("Normalized inputs turn a long valley into a bowl: the condition number falls a thousandfold.",
                  "输入归一化之后，狭长的山谷变成一只碗：条件数降到千分之一以下。"),
              Figure(say("λmax/λmin after", "归一化之后的 λmax/λmin"), condition(normalized)), "<",
              Figure(say("a thousandth of that before", "之前的千分之一"), condition(raw) / 1000)),
        claim(say("At three quarters of the largest stable rate, descent in the valley stands still along its floor;",
                  "学习率取稳定上限的四分之三，山谷里的梯度下降沿谷底几乎不动；"),
              Figure(say("way along w₁", "沿 w₁ 走过的距离"), moved), "<",
              Figure(say("a hundredth of the way it has to go", "应走距离的百分之一"), due / 100)),
        claim(say("in the bowl it arrives.", "在碗里它走到了底。"), Figure(share, left), "<",
              Figure(say("a millionth", "百万分之一"), 1e-6)),
    )  # fmt: skip


def _noisy(say: Say, noise: Sequence[float]) -> tuple[Claim, ...]:
    off = max(abs(found * size**0.5 - 1) for size, found in zip(SIZES, noise, strict=True))
    torch.manual_seed(0)
    alone = BatchNorm(PIXELS, 1)(torch.randn(TOGETHER, PIXELS))
    return (
        claim(say(f"The mean over a batch of B is off by σ/√B, for B = {SIZES[0]} to {SIZES[-1]};",
                  f"批次大小为 B 时，批均值的误差是 σ/√B（B = {SIZES[0]} 到 {SIZES[-1]}）；"),
              Figure(say("largest relative difference from that", "与之最大的相对差"), off, error=(2 * DRAWS) ** -0.5),
              "<", Figure(say("a tenth", "十分之一"), 0.1)),
        claim(say("with B = 1 every value is its own mean, and nothing gets through.",
                  "B = 1 时，每个值就是自己的均值，什么也传不过去。"),
              Figure(say("largest output", "最大的输出"), float(alone.abs().max())), "<",
              Figure(say("rounding", "舍入误差"), 1e-6)),
    )  # fmt: skip


def _training(say: Say, data: Digits, trained: dict[int, list[nn.Sequential]]) -> tuple[Claim, ...]:
    small, large = (level([accuracy(model, data) for model in models]) for models in trained.values())
    name = say("accuracy, statistics over", "准确率，统计量来自样本数")
    return (
        claim(say("Trained with the statistics of 2 samples at a time, a network does worse on unseen digits.",
                  "同一个网络，若统计量每次只来自 2 个样本，在没见过的数字上就更差。"),
              _figure(f"{name} {TOGETHER}", large), ">", _figure(f"{name} 2", small)),
    )  # fmt: skip


def _figure(name: str, found: Level) -> Figure:
    return Figure(name, found.mean, error=found.error)


def _tests(say: Say, tests: dict[str, Level]) -> tuple[Claim, ...]:
    right, slow, never, exact = (tests[name] for name in ("right", "slow", "never", "exact"))
    names = {name: say("accuracy, ", "准确率，") + said for name, said in _kinds(say).items()}
    return (
        claim(say(f"In a test, running statistics that moved too slowly (momentum {SLOW:g}) are wrong ones,",
                  f"测试时，移动得太慢（momentum {SLOW:g}）的滑动统计量是错的，"),
              _figure(names["right"], right), ">", _figure(names["slow"], slow)),
        claim(say("and so are those that never moved:", "从未更新过的也一样："),
              _figure(names["right"], right), ">", _figure(names["never"], never)),
        claim(say("the weights are good, exact statistics mend it.", "权重是好的，换上精确的统计量就恢复了。"),
              _figure(names["exact"], exact), ">",
              Figure(say("accuracy with the right ones, less two hundredths", "正确统计量下的准确率减百分之二"),
                     right.mean - 0.02, error=right.error)),
    )  # fmt: skip


def _kinds(say: Say) -> dict[str, str]:
    return {
        "right": say(f"momentum {MOMENTUM:g}", f"momentum {MOMENTUM:g}"),
        "slow": say(f"momentum {SLOW:g}", f"momentum {SLOW:g}"),
        "never": say("never updated", "从未更新"),
        "exact": say("never updated, then exact", "从未更新，后换成精确值"),
    }


def _surfaces(say: Say, ways: Sequence[Path]) -> tuple[Chart, ...]:
    name, loss = say("descent", "梯度下降"), say("loss", "损失")
    titles = (
        say("Inputs 1, 2, … and 100, 200, …: a valley, and descent stops at its floor",
            "输入是 1, 2, … 和 100, 200, …：一条山谷，梯度下降停在谷底"),
        say("Both inputs normalized: a bowl", "两个输入都归一化之后：一只碗"),
    )  # fmt: skip
    return tuple(
        Chart(title, "w₁", "w₂", (way.curve(name),), surface=surface(function, loss, ACROSS, UP, log=True))
        for title, way, function in zip(titles, ways, (raw, normalized), strict=True)
    )


def _noise_chart(say: Say, noise: Sequence[float]) -> Chart:
    sizes = tuple(map(float, SIZES))
    curves = (
        Curve(say("measured", "实测"), sizes, tuple(noise)),
        Curve("1/√B", sizes, tuple(size**-0.5 for size in SIZES)),
    )
    return Chart(
        say("How far a batch's mean is off: σ/√B", "批均值差多少：σ/√B"), say("batch size B", "批次大小 B"),
        say("error, in standard deviations σ", "误差（以标准差 σ 计）"), curves, log_x=True, log_y=True,
    )  # fmt: skip


def _by_size(say: Say, data: Digits, models: Sequence[nn.Sequential]) -> Chart:
    """The networks trained with statistics of 64, tested by the statistics of the test's own batches."""
    found = [level([accuracy(model, data, size) for model in models]) for size in SIZES]
    curve = lines(say("by the batch's own statistics", "用批次自己的统计量"), list(map(float, SIZES)), found)
    by_running = level([accuracy(model, data) for model in models]).mean
    return Chart(
        say("Tested by the batch's own statistics: in small company a digit is easily mistaken",
            "用批次自己的统计量测试：同批的样本太少，就容易认错"),
        say("samples in a batch", "批次大小"), say("accuracy", "准确率"), (curve,),
        (Figure(say("by running statistics", "用滑动统计量"), by_running),), log_x=True,
    )  # fmt: skip


def _tests_chart(say: Say, tests: dict[str, Level]) -> Chart:
    kinds = _kinds(say)
    bars = heights([(kinds[name], found.mean) for name, found in tests.items()])
    return Chart(
        say("One training, four sets of statistics for its test", "同一次训练，测试时用四种统计量"),
        say("running statistics", "滑动统计量"), say("accuracy on unseen digits", "没见过的数字上的准确率"),
        bars, bars=True,
    )  # fmt: skip
