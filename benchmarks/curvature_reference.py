"""What the eigenvalues truly are: a long Lanczos run in float64, held against another library's product and solver.

Slow (minutes a problem), so it is kept in a file under the problem's own key. With it the smallest number of products
that reaches each tolerance from each of the starts: what a peer is told that is "given the number of iterations".
"""

import json
from dataclasses import dataclass, field

import numpy as np
import torch
from curvature_peers import TOP, Subject, curvlinops_operator, helping, start, subject
from scipy.sparse.linalg import eigsh

from unstuck.curvature.product import Hessian
from unstuck.linalg.lanczos import lanczos

LONG = 600
RESIDUAL = 1e-6
AGREE = 1e-5
CLOSE = 1e-4
HELP = ("attention", "LayerNorm")


@dataclass(frozen=True)
class Reference:
    """λmin and the ten largest, ascending. `apart`: largest relative difference of the two ways. `steps`: the smallest
    number of products from which on a task is done from every start, by what it wants."""

    least: float
    top: list
    products: int
    apart: float
    steps: dict = field(default_factory=dict)

    def errors(self, want, values):
        """Relative errors: of [λmin], [λmax], [λmin, λmax], or the worst of the largest."""
        values = np.asarray(values, dtype=float)
        if len(values) != {"both": 2, "top": TOP}.get(want, 1):
            return [float("inf")]
        if want == "top":
            return [float(np.abs(values / self.top - 1).max())]
        truth = {"min": [self.least], "max": [self.top[-1]], "both": [self.least, self.top[-1]]}[want]
        return [float(abs(value / true - 1)) for value, true in zip(values, truth, strict=True)]

    def right(self, task, values):
        """True if all are within the task's tolerance."""
        allowed = {"min": [task.least], "both": [task.least, task.most]}.get(task.want, [task.most])
        errors = self.errors(task.want, values)
        return len(errors) == len(allowed) and all(e <= a for e, a in zip(errors, allowed, strict=True))


def reference(case, tasks, starts, cache):
    """From the cache, or computed and kept there."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    truth = known.get(case.key) or _computed(case)
    if truth["apart"] > AGREE:
        raise SystemExit(f"{case.name}: the two ways to the reference are {truth['apart']:.1e} apart; no figure stands")
    steps = truth.setdefault("steps", {})
    if str(starts) not in steps:
        steps[str(starts)] = _steps(case, tasks, starts, Reference(**truth))
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({**known, case.key: truth}, indent=1))
    return Reference(**{**truth, "steps": steps[str(starts)]})


def _computed(case):
    least, top, products = _long(case)
    return {"least": least, "top": top, "products": products, "apart": _apart(case, least, top)}


def _long(case):
    hessian = Hessian(case.problem(), double=True)

    def enough(ritz):
        here = len(ritz.values)
        ends = [0, *range(here - TOP, here)]
        return here > 2 * TOP and float(ritz.residuals[ends].max()) < RESIDUAL * ritz.scale and here % 10 == 0

    ritz = lanczos(hessian, start(hessian.size, 1000, torch.float64), enough, LONG)
    return float(ritz.values[0]), ritz.values[-TOP:].tolist(), ritz.products


def _apart(case, least, top):
    """Relative difference to curvlinops and eigsh in float64 (another product, another solver, another start)."""
    plain = subject(case, HELP)
    batches = [(x.double() if x.is_floating_point() else x, y) for x, y in plain.batches]
    wide = Subject(plain.model.double(), plain.loss, batches, weighed=False)
    first = start(wide.size, 2000, torch.float64).numpy()
    with helping(HELP):
        operator = curvlinops_operator(wide, check=False).to_scipy()
        options = {"v0": first, "tol": CLOSE, "return_eigenvectors": False}
        largest = np.sort(eigsh(operator, TOP, which="LA", ncv=4 * TOP, **options))
        smallest = eigsh(operator, 1, which="SA", ncv=6 * TOP, **options)[0]
    return float(max(np.abs(largest / top - 1).max(), abs(smallest / least - 1)))


def _steps(case, tasks, starts, truth):
    hessian, worst = Hessian(case.problem()), {task.want: 0 for task in tasks}
    for seed in range(starts):
        first = {}

        def enough(ritz, first=first):
            values = ritz.values.tolist()
            ends = {"min": values[:1], "max": values[-1:], "both": [values[0], values[-1]], "top": values[-TOP:]}
            for task in tasks:
                if task.want not in first and truth.right(task, ends[task.want]):
                    first[task.want] = ritz.products
            return len(first) == len(tasks)

        lanczos(hessian, start(hessian.size, seed), enough, LONG)
        worst = {want: max(steps, first.get(want, LONG)) for want, steps in worst.items()}
    return worst
