"""Critical points found at high loss are saddles, and their index falls with the loss: on a small net and digits.

The published shape (Dauphin et al. 2014, Pennington & Bahri 2017) by today's code, with a distinction it lacked: Frye
et al. (2021) showed that such searches often end where the gradient is not zero but lies in the Hessian's kernel. They
begin on gradient-descent trajectories here, and around them. The net is an autoencoder 16-6-16 with tanh on digits
pooled to 4 × 4, its loss with a weight penalty: without one, critical points lie at infinity, or in continuous families
that Newton's method reaches slowly.

One line a search. Equal points (units may be permuted, their signs flipped) count once in the correlation. Fails unless
index and loss of the critical points are positively rank-correlated beyond chance.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections import Counter

import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn

from unstuck.curvature.flat import Flat
from unstuck.curvature.found import CRITICAL, FLAT, RAN_OUT
from unstuck.curvature.measure import measurable
from unstuck.curvature.search import search_from
from unstuck.problem import Problem, Program

PENALTY, ROWS, HIDDEN = 0.01, 300, 6
KEPT = (0, 5, 10, 20, 40, 80, 160, 400)
NOISES = (0.0, 0.1, 0.3, 0.6)
TOLERANCE, STEPS = 1e-6, 80
CHANCE = 0.01
SAME = 1e-5
LEAST = 8


class Penalized(Program):
    """Mean squared error, plus half the penalty times the squared length of all parameters."""

    def __call__(self, model, batch):
        inputs, target = batch
        square = sum(parameter.square().sum() for parameter in model.parameters())
        return nn.functional.mse_loss(model(inputs), target) + PENALTY / 2 * square


def digits():
    """[ROWS, 16], pooled 2 × 2, standardized (columns that hardly vary are left small)."""
    images = torch.tensor(load_digits().images[:ROWS]) / 16
    pooled = nn.functional.avg_pool2d(images[:, None], 2).flatten(1)
    return (pooled - pooled.mean(0)) / (pooled.std(0) + 0.1)


def problem():
    x = digits()
    net = nn.Sequential(nn.Linear(16, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 16)).double()
    return dataclasses.replace(Problem(net, nn.MSELoss(), [(x, x)]), loss=Penalized())


def trajectory(case, seed):
    """(step, parameters) along gradient descent with momentum from a fresh initialization."""
    torch.manual_seed(seed)
    model = case.twin()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    flat, optimizer = Flat(model), torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for step in range(KEPT[-1] + 1):
        if step in KEPT:
            yield step, flat.values()
        optimizer.zero_grad()
        case.value(model, case.data[0]).backward()
        optimizer.step()


def starts(case, count):
    """(step, noise, parameters): every noise on one trajectory each, in turn."""
    made = []
    for round_ in range(-(-count // len(KEPT))):
        noise, generator = NOISES[round_ % len(NOISES)], torch.Generator().manual_seed(round_)
        for step, values in trajectory(case, round_ // len(NOISES)):
            drawn = torch.randn(len(values), generator=generator, dtype=torch.float64)
            made.append((step, noise, values + noise * values.square().mean().sqrt() * drawn))
    return made[:count]


def distinct(points):
    """One of each: the same loss and the same index are the same point up to symmetry."""
    kept = []
    for point in sorted(points, key=lambda p: p.loss):
        if not kept or point.loss - kept[-1].loss > SAME or point.index != kept[-1].index:
            kept.append(point)
    return kept


def rival(hessian, start, point):
    """Descent on the squared gradient from the same start, for the price of Newton-MR at 300 products a step."""
    price = point.steps * 300
    return search_from(
        hessian, start, price, TOLERANCE, method="descent",
        stop=lambda spent=hessian.products: hessian.products - spent > price,
    )  # fmt: skip


def correlation(points):
    """Rank correlation of index and loss, and its two-sided p-value."""
    if len(points) < LEAST:
        return 0.0, 1.0
    found = spearmanr([p.loss for p in points], [p.share for p in points])
    return float(found.statistic), float(found.pvalue)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=32)
    parser.add_argument("--compare", action="store_true", help="descent on the squared gradient too, from each start")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = problem()
    hessian, _ = measurable(case, double=True)
    began, points, rivals = time.process_time(), [], []
    print(f"{hessian.size} parameters\n")
    print("from step  noise      loss  index  gradient  residual  steps  outcome")
    for step, noise, start in starts(case, arguments.searches):
        point = search_from(hessian, start, STEPS, TOLERANCE, dense=True)
        points.append(point)
        if arguments.compare:
            rivals.append(rival(hessian, start, point))
        print(f"{step:9} {noise:6.1f} {point.loss:9.5f} {100 * point.share:5.1f}% {point.gradient:9.1e} "
              f"{point.relative:9.2f} {point.steps:6}  {point.outcome}", flush=True)  # fmt: skip
    critical = [p for p in points if p.outcome == CRITICAL]
    apart = distinct(critical)
    (rho, chance), (rough, _) = correlation(apart), correlation(points)
    high = [p for p in apart if p.loss >= statistics.median(q.loss for q in apart)]
    saddles = sum(p.index > 0 for p in high)
    counts = Counter(p.outcome for p in points)
    print(f"\n{counts[CRITICAL]} critical ({len(apart)} distinct), {counts[FLAT]} gradient-flat, {counts[RAN_OUT]} "
          f"undecided of {len(points)}; rank correlation of index and loss {rho:.3f} (p = {chance:.1e}; "
          f"{rough:.3f} over all); saddles among the critical points of high loss {saddles}/{len(high)}; "
          f"{time.process_time() - began:.0f} s")  # fmt: skip
    if rivals:
        ends = Counter(p.outcome for p in rivals)
        print(f"descent on the squared gradient, for the products that 300 a step of Newton-MR are: {ends[CRITICAL]} "
              f"critical, {ends[FLAT]} gradient-flat, {ends[RAN_OUT]} undecided; median gradient "
              f"{statistics.median(p.gradient for p in rivals):.1e}, Newton-MR's "
              f"{statistics.median(p.gradient for p in points):.1e}")  # fmt: skip
    sys.exit(0 if rho > 0 and chance < CHANCE else 1)


if __name__ == "__main__":
    main()
