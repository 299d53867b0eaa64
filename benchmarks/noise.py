"""Does the interval around the critical batch size hold what it says? A linear model, where the truth is known.

    python benchmarks/noise.py --seeds 300

Inputs x ~ N(0, C), targets y = w·x + ε, ε ~ N(0, σ²), squared error of a torch.nn.Linear at a distance δ from w. One
sample's gradient is 2x(x·δ − ε), and

    ‖G‖² = 4 ‖Cδ‖²,    tr Σ = 4 [(δ·Cδ + σ²) tr C + ‖Cδ‖²],    critical batch size = tr Σ / ‖G‖²

Each seed draws data anew; the probe that `unstuck` runs measures it in float32. A row counts how many of its intervals
at 95 % held the truth; `bounded`: how many had a finite upper end (near the optimum the gradient may be zero for all
that is known, and the interval has to say so).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from unstuck.linalg.ratio import Ratio
from unstuck.probes.noise import measure
from unstuck.problem import Problem

TARGET = 0.93
DIMENSIONS, SPREADS = (10, 100, 1000), (0.0, 2.0)
DISTANCES = ((1.0, 0.1), (1.0, 1.0), (0.2, 1.0))
"""δ and σ: far from the optimum, between, near."""
SAMPLES, BATCH = 2048, 32


def linear(seed: int, columns: int, decades: float, distance: float, sigma: float) -> tuple[Problem, float]:
    """A problem and its critical batch size. C has eigenvalues over so many decades."""
    variances = torch.logspace(0, -decades, columns)
    w = torch.ones(columns) * distance / math.sqrt(columns)  # the model stands at 0: δ = −w
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, columns, generator=generator) * variances.sqrt()
    y = x @ w + sigma * torch.randn(SAMPLES, generator=generator)
    model = nn.Linear(columns, 1, bias=False)
    nn.init.zeros_(model.weight)
    data = list(zip(x.split(BATCH), y[:, None].split(BATCH), strict=True))
    signal = float((variances * w).square().sum())
    noise = float(((variances * w * w).sum() + sigma**2) * variances.sum()) + signal
    return _all(Problem(model, nn.MSELoss(), data[:64])), noise / signal


def _all(problem: Problem) -> Problem:
    """A problem written down holds a quarter of its batches out; nothing of it matters here."""
    from dataclasses import replace

    return replace(problem, data=(*problem.data, *problem.held_out), held_out=())


def row(seeds: int, columns: int, decades: float, distance: float, sigma: float) -> dict[str, float]:
    """One case over all seeds."""
    began, held, bounded, widths = time.process_time(), 0, 0, []
    truth = math.nan
    for seed in range(seeds):
        problem, truth = linear(seed, columns, decades, distance, sigma)
        scale: Ratio = measure(problem).points[0].scale
        held += scale.low <= truth <= scale.high
        bounded += math.isfinite(scale.high)
        widths.append(scale.high / max(scale.low, 1e-12))
    return {
        "columns": columns, "decades": decades, "distance": distance, "sigma": sigma, "critical": truth,
        "covered": held / seeds, "bounded": bounded / seeds, "width": sorted(widths)[seeds // 2],
        "cpu_ms": 1000 * (time.process_time() - began) / seeds,
    }  # fmt: skip


def main() -> None:
    """Print a row for each case, and whether the target was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'columns':>8}{'decades':>9}{'distance':>10}{'sigma':>7}{'critical':>10}{'covered':>9}{'bounded':>9}"
          f"{'high/low':>10}{'cpu ms':>8}")  # fmt: skip
    rows = []
    for columns, decades, (distance, sigma) in itertools.product(DIMENSIONS, SPREADS, DISTANCES):
        rows.append(found := row(options.seeds, columns, decades, distance, sigma))
        print(f"{columns:8}{decades:9.0f}{distance:10g}{sigma:7g}{found['critical']:10.3g}{found['covered']:9.3f}"
              f"{found['bounded']:9.2f}{found['width']:10.3g}{found['cpu_ms']:8.1f}", flush=True)  # fmt: skip
    least = min(found["covered"] for found in rows)
    print(f"\nleast coverage {least:.3f} of {options.seeds} seeds, target {TARGET}: "
          f"{'met' if least >= TARGET else 'MISSED'}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
