"""Reports as a diagnosis would write them."""

from __future__ import annotations

import math

import msgspec
import pytest

from unstuck.records import Chapter, Chart, Cost, Curve, Figure, Finding, RemedyLine, Report, Skipped, Verdict

STEPS = tuple(float(step) for step in range(0, 301, 10))


@pytest.fixture
def sick() -> Report:
    return Report(
        healthy=False,
        headline="The network cannot learn: its softmax is applied twice, so the loss stays above 1.46.",
        target="train.py --epochs 3",
        findings=(
            Finding(
                "softmax-applied-twice",
                "problem",
                0.97,
                "5 (Softmax), loss at train.py:31",
                "CrossEntropyLoss expects logits and applies softmax itself, but the model already ends in one.",
                (
                    Figure("sum of each output row", 1.0, error=1e-7, samples=640),
                    Figure("lowest loss this can reach", 1.461),
                    Figure("loss now", 1.7532, error=0.0042, samples=640),
                    Figure("gradient lost at the output", 87.2, "%", 1.3, 640),
                    Figure("a fifth figure", 5.0),
                ),
                RemedyLine("drop-softmax", "Leave out the softmax.", "model = nn.Sequential(*list(model)[:-1])"),
                Verdict("cured", "train accuracy", 0.31, 0.94, (0.60, 0.66), 400, 3),
            ),
            Finding(
                "dead-units",
                "problem",
                0.55,
                "1 (ReLU)",
                "Four of five units output 0 for every sample, so they get no gradient.",
                (Figure("dead units", 81, "%", samples=640),),
                RemedyLine("leaky-relu", "Use a leaky ReLU.", "nn.LeakyReLU(0.01)"),
                Verdict(why="the budget of 60 s was used"),
            ),
            Finding("unscaled-inputs", "warning", 0.4, "input", "The inputs run from 0 to 16."),
        ),
        figures=(Figure("training loss", 1.7532, error=0.0042, samples=640),),
        skipped=(Skipped("range of learning rates", "no time left"), Skipped("linear reference", "no time left")),
        cost=Cost(0.013, 21.0, 33.1),
        charts=(_loss(), _layers(), _groups(), _race()),
    )


@pytest.fixture
def healthy() -> Report:
    return Report(
        headline="This training is healthy: the loss falls steadily.",
        target="digits.py",
        figures=(Figure("train accuracy", 0.971, error=0.004, samples=1797), Figure("a linear model reaches", 0.953)),
        cost=Cost(0.004, 12.2),
    )


@pytest.fixture
def lecture(healthy: Report) -> Report:
    """A report whose charts are all in its chapters."""
    return msgspec.structs.replace(healthy, chapters=(_steps(), _batches()))


def _loss() -> Chart:
    falling = tuple(2.3 * math.exp(-step / 400) for step in STEPS)
    levels = (Figure("chance predicts", 2.303), Figure("always the mean", 2.301))
    return Chart("Training loss", "step", "loss", (Curve("loss", STEPS, falling),), levels)


def _layers() -> Chart:
    norms = {"0 (Linear)": 0.0, "2 (Linear)": 3.2e-4, "4 (Linear)": 0.041}
    bars = tuple(Curve(name, (0.0,), (norm,)) for name, norm in norms.items())
    return Chart("Gradient norm per layer", "layer", "gradient norm", bars, bars=True, log_y=True)


def _groups() -> Chart:
    first, last = Curve("first step", (0.0, 1.0), (0.1, 0.7)), Curve("last step", (0.0, 1.0), (0.2, None))
    return Chart("Activations per layer", "layer", "share of dead units", (first, last), bars=True)


def _race() -> Chart:
    def lane(name: str, top: float) -> Curve:
        y = tuple(top * (1 - math.exp(-step / 60)) for step in STEPS)
        return Curve(name, STEPS, y, tuple(v - 0.02 for v in y), tuple(v + 0.02 for v in y))

    lanes = (lane("as it is", 0.31), lane("placebo", 0.32), lane("without the second softmax", 0.94))
    return Chart("Race", "step", "train accuracy", lanes, note="Bands are 95 % intervals over 3 seeds.")


def _steps() -> Chapter:
    code = "optimizer = torch.optim.SGD(model.parameters(), lr=0.32, momentum=0.9, weight_decay=0.0001, nesterov=True)"
    return Chapter(
        "steps",
        "Steps: the learning rate and the optimizer",
        (
            "In 200 updates SGD learns at rates from 0.032 to 1; 0.001 is below them. It comes to 1.71 ± 0.02.",
            "Momentum, at steps of the same length for a steady gradient: β = 0.9: 1.66 ± 0.03; β = 0.99: diverges.",
        ),
        (Figure("present rate", 0.001), Figure("loss after 200 updates at it", 1.71, error=0.02, samples=3)),
        (_rates(), _momenta()),
        RemedyLine("change-learning-rate", "train with lr=0.32, 320 times the present rate", code),
    )


def _batches() -> Chapter:
    sizes = (16.0, 32.0, 64.0)
    noise = Curve("noise", sizes, tuple(8 / size for size in sizes))
    chart = Chart("Noise by batch size", "batch size", "noise / signal", (noise,), log_x=True, log_y=True)
    said = "The gradient of a batch of 32 points within 41° of the gradient of all samples."
    return Chapter("batches", "Batches: how many samples a step needs", (said,), charts=(chart,))


def _rates() -> Chart:
    """One of the rates has a band that reaches below zero, which a logarithmic axis cannot show."""
    rates = tuple(10 ** (k / 2) for k in range(-8, 1))
    losses = tuple(2.3 / (1 + 300 * rate) for rate in rates)
    low = (*(0.8 * loss for loss in losses[:-1]), -0.1)
    curve = Curve("SGD", rates, losses, low, tuple(1.2 * loss for loss in losses))
    other = Curve("adam", rates[:3], losses[2:5])
    levels = (Figure("before any update", 2.3),)
    return Chart("Loss by learning rate", "rate", "loss", (curve, other), levels, log_x=True, log_y=True)


def _momenta() -> Chart:
    bars = (Curve("0.9", (0.0,), (1.66,)), Curve("0.99", (0.0,), (None,)))
    return Chart("Momentum β: loss after 200 updates", "momentum β", "loss", bars, bars=True)
