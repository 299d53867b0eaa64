"""The same eigenvalues from other libraries, each asked as its documentation says.

A peer may be given a hand where it fails or is wrong as it comes; the table says so (`help`):

    attention     fused attention switched to its plain kernel: the fused one has no second derivative
    LayerNorm     written out in plain arithmetic: its forward-over-reverse derivative is wrong
    weights       batches weighed by their samples: otherwise a ragged last batch counts as much as a full one

`stop` is "own" where the peer stops by itself at a tolerance, "given" where it was told the number of iterations, the
smallest that reaches the tolerance (found beforehand, against the reference).
"""

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import hessian_eigenthings
import landscaper
import numpy as np
import pyhessian
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

TOP = 10
ENDS = {"min": (("SA", 1),), "max": (("LA", 1),), "both": (("SA", 1), ("LA", 1)), "top": (("LA", TOP),)}
PATIENCE = 1000
"""Iterations that a peer may take at most, where it wants to know: never the reason why it stops."""


class Unable(Exception):
    """The peer has no function for this task."""


@dataclass(frozen=True)
class Task:
    """`want`: min, max, both or top; the tolerances are relative."""

    want: str
    least: float = 1e-2
    most: float = 1e-3

    @property
    def title(self):
        return {
            "min": f"λmin to {self.least:g}",
            "max": f"λmax to {self.most:g}",
            "both": f"λmin to {self.least:g} and λmax to {self.most:g}",
            "top": f"{TOP} largest to {self.most:g}",
        }[self.want]


@dataclass(frozen=True)
class Peer:
    """`solve(subject, task, seed, steps)` gives eigenvalues, ascending: [min], [max], [min, max] or the largest."""

    name: str
    stop: str
    solve: Callable
    needs: tuple


@dataclass(frozen=True)
class Subject:
    """What a peer works on: the model (its own copy) and the batches; `weighed`: with weights by samples."""

    model: nn.Module
    loss: nn.Module
    batches: list
    weighed: bool

    @property
    def parameters(self):
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def size(self):
        return sum(p.numel() for p in self.parameters)


def helps(peer, case):
    """What hand this peer can be given on this case, as words."""
    norm = any(isinstance(module, nn.LayerNorm) for module in case.model.modules())
    ragged = len({len(x) for x, _ in case.batches}) > 1
    applies = {"attention": case.fused, "LayerNorm": norm, "weights": ragged}
    return tuple(need for need in peer.needs if applies[need])


def subject(case, help=()):
    """The case as a peer gets it, with this help."""
    model = copy.deepcopy(case.model)
    return Subject(
        written_out(model) if "LayerNorm" in help else model, case.loss, list(case.batches), "weights" in help
    )


def helping(help):
    """The context of a call with this help."""
    return sdpa_kernel(SDPBackend.MATH) if "attention" in help else contextlib.nullcontext()


class PlainNorm(nn.Module):
    """LayerNorm over the last dimension in plain arithmetic."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps) * self.weight + self.bias


def written_out(model):
    """The model with every LayerNorm in plain arithmetic."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, PlainNorm(child))
    return model


def start(size, seed, dtype=torch.float32):
    """The random start that every Lanczos here gets, so that a number of iterations means the same to each."""
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def curvlinops_operator(subject, check=True):
    return HessianLinearOperator(
        subject.model, subject.loss, subject.parameters, subject.batches, check_deterministic=check
    )


def curvlinops_own(subject, task, seed, steps):
    """SciPy's eigsh, restarted Lanczos, stops at the task's tolerance; an end a call."""
    operator, first = curvlinops_operator(subject).to_scipy(), start(subject.size, seed).numpy()
    values = []
    for which, count in ENDS[task.want]:
        tolerance = task.least if which == "SA" else task.most
        values += list(eigsh(operator, count, which=which, tol=tolerance, v0=first, return_eigenvectors=False))
    return values


def curvlinops_given(subject, task, seed, steps):
    """One round of so many products without a restart, and what it holds then (any tolerance is met). Without the check
    for determinism: who knows the number of iterations knows that too."""
    operator, first = curvlinops_operator(subject, check=False).to_scipy(), start(subject.size, seed).numpy()
    which, count = ("BE", 2) if task.want == "both" else ENDS[task.want][0]
    steps = max(steps, count + 2)
    with_basis = {"ncv": steps, "maxiter": 1, "tol": 1e6}
    return sorted(eigsh(operator, count, which=which, v0=first, return_eigenvectors=False, **with_basis))


def eigenthings_operator(subject):
    loss, samples = subject.loss, sum(len(x) for x, _ in subject.batches)
    if not subject.weighed:
        return hessian_eigenthings.HessianOperator(
            subject.model, subject.batches, hessian_eigenthings.supervised_loss(loss)
        )
    share = len(subject.batches) / samples
    return hessian_eigenthings.HessianOperator(
        subject.model, subject.batches, lambda model, batch: loss(model(batch[0]), batch[1]) * len(batch[0]) * share
    )


def eigenthings_given(subject, task, seed, steps):
    """Its Lanczos with so many steps."""
    return _eigenthings(eigenthings_operator(subject), task, seed, steps)[0]


def eigenthings_own(subject, task, seed, steps):
    """Its Lanczos does not stop by itself, but says what has converged: twice as many steps until all has."""
    operator, steps = eigenthings_operator(subject), 2 * TOP
    while True:
        values, converged = _eigenthings(operator, task, seed, steps)
        if converged or steps >= PATIENCE:
            return values
        steps *= 2


def _eigenthings(operator, task, seed, steps):
    def ask(which, count, tolerance):
        return hessian_eigenthings.lanczos(
            operator, k=count, max_iter=steps, tol=tolerance, which=which, seed=seed, reorthogonalize=True
        )

    if task.want == "both":
        result = ask("LA", steps, task.most)
        values, residuals = result.eigenvalues, result.residuals
        good = residuals[0] <= task.most * abs(values[0]) and residuals[-1] <= task.least * abs(values[-1])
        return [float(values[-1]), float(values[0])], bool(good)
    which, count = ("SA", 1) if task.want == "min" else ("LA", TOP if task.want == "top" else 1)
    result = ask(which, count, task.least if task.want == "min" else task.most)
    return sorted(result.eigenvalues.tolist()), bool(result.converged.all())


def eigenthings_power(subject, task, seed, steps):
    """Deflated power iteration: the largest in magnitude."""
    result = hessian_eigenthings.deflated_power_iteration(
        eigenthings_operator(subject), k=_largest(task), max_iter=PATIENCE, tol=task.most, seed=seed
    )
    return sorted(result.eigenvalues.tolist())


def pyhessian_power(subject, task, seed, steps):
    """Deflated power iteration: the largest in magnitude."""
    torch.manual_seed(seed)
    computer = pyhessian.hessian(subject.model, subject.loss, dataloader=subject.batches, cuda=False)
    return sorted(computer.eigenvalues(maxIter=PATIENCE, tol=task.most, top_n=_largest(task))[0])


def landscaper_power(subject, task, seed, steps):
    """Deflated power iteration on cached graphs."""
    torch.manual_seed(seed)
    computer = landscaper.PyHessian(subject.model, subject.loss, subject.batches, "cpu", try_cache=True)
    return sorted(computer.eigenvalues(maxIter=PATIENCE, tol=task.most, top_n=_largest(task))[0])


def landscaper_density(subject, task, seed, steps):
    """The nodes of its spectral density (Lanczos with so many steps, on cached graphs)."""
    torch.manual_seed(seed)
    computer = landscaper.PyHessian(subject.model, subject.loss, subject.batches, "cpu", try_cache=True)
    return _ends(np.real(computer.density(iter=steps, n_v=1)[0][0]), task)


def pyhessian_density(subject, task, seed, steps):
    """The nodes of its spectral density (Lanczos with so many steps)."""
    torch.manual_seed(seed)
    computer = pyhessian.hessian(subject.model, subject.loss, dataloader=subject.batches, cuda=False)
    return _ends(np.real(computer.density(iter=steps, n_v=1)[0][0]), task)


def _ends(nodes, task):
    nodes = np.sort(np.asarray(nodes, dtype=float))
    return {"min": nodes[:1], "max": nodes[-1:], "both": nodes[[0, -1]], "top": nodes[-TOP:]}[task.want].tolist()


def _largest(task):
    if task.want in ("min", "both"):
        raise Unable("has no smallest eigenvalue")
    return TOP if task.want == "top" else 1


@contextlib.contextmanager
def silent():
    """Without the peers' progress bars."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


PEERS = (
    Peer("curvlinops + eigsh", "own", curvlinops_own, ("attention", "LayerNorm")),
    Peer("hessian-eigenthings lanczos", "own", eigenthings_own, ("attention", "weights")),
    Peer("hessian-eigenthings power", "own", eigenthings_power, ("attention", "weights")),
    Peer("pyhessian power", "own", pyhessian_power, ("attention",)),
    Peer("landscaper power", "own", landscaper_power, ("attention",)),
    Peer("curvlinops + eigsh", "given", curvlinops_given, ("attention", "LayerNorm")),
    Peer("hessian-eigenthings lanczos", "given", eigenthings_given, ("attention", "weights")),
    Peer("pyhessian density", "given", pyhessian_density, ("attention",)),
    Peer("landscaper density", "given", landscaper_density, ("attention",)),
)
