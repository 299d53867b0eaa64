"""Which parameters the loss reaches: who is used in the forward pass, who gets a gradient, and where the path is cut.

One forward and one backward pass from the initial state. A *cut* is a call that takes what needs a gradient and gives
values that do not: `detach`, `.data`, `.numpy()`, `argmax`, a call inside `torch.no_grad()`.

Whether weights are fresh or were trained before is told from their spectrum: mixing the entries of a fresh matrix
leaves its largest singular value as it was, while training adds directions that stand out of the bulk (Martin &
Mahoney 2021, "Implicit self-regularization in deep neural networks"): `structure` is the ratio of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.problem import Problem
from unstuck.rewriting import CallKey
from unstuck.sandbox import sandbox
from unstuck.tape import tensors_in
from unstuck.trace import Seen, Trace, trace

STRUCTURED = 1.25
"""Ratio of singular values above which a matrix counts as trained: 20 fresh CNNs, LSTMs and MLPs gave at most 1.22 in
their smallest matrix and 1.0 to 1.1 in larger ones; one epoch on Fashion-MNIST gave 1.4 to 2.2 in the larger ones."""

READERS = frozenset({"numpy", "tolist", "__array__", "item"})
"""Calls that hand values to Python or NumPy: what is made of them there has no graph."""

FLAT = frozenset({"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "frac_"})
"""Calls whose derivative is 0 wherever it exists: gradients pass as zeros."""

LARGEST = 4_000_000
ITERATIONS = 40


@dataclass(frozen=True)
class Parameter:
    """One parameter. `gradient`: norm of its gradient, nan where there is none; `used`: a call of the forward takes it;
    `held`: the recipe's optimizer holds it; `structure`: see above, nan where it is no matrix."""

    name: str
    entries: int
    held: bool
    trainable: bool
    used: bool
    gradient: float
    structure: float


@dataclass(frozen=True)
class Cut:
    """A call (or all switches of a block) that cuts the path from parameters to the loss.

    `undone`: leaving it out keeps the values (or, of a `flat` call whose derivative is 0, nearly so).
    """

    keys: tuple[CallKey, ...]
    where: str
    site: str
    undone: bool
    upstream: frozenset[str]
    flat: bool = False

    @property
    def name(self) -> str:
        """The call's plain name, `no_grad` for the switch."""
        return "no_grad" if self.keys[0][0] == "_set_grad_enabled" else self.keys[0][0]


@dataclass(frozen=True)
class Reach:
    """Parameters in the model's order, cuts in the order of the calls, lines that make new layers in every pass."""

    parameters: tuple[Parameter, ...]
    cuts: tuple[Cut, ...]
    anew: tuple[str, ...]
    loss_has_graph: bool

    def named(self, names: tuple[str, ...] | frozenset[str]) -> tuple[Parameter, ...]:
        """The parameters of these names."""
        return tuple(p for p in self.parameters if p.name in names)

    def share(self, parameters: tuple[Parameter, ...]) -> float:
        """Share of the model's entries that these parameters hold."""
        return sum(p.entries for p in parameters) / max(sum(p.entries for p in self.parameters), 1)


def structured(parameters: tuple[Parameter, ...]) -> bool:
    """True if the matrices among these look trained: their mean structure, weighted by entries, above STRUCTURED."""
    known = [p for p in parameters if math.isfinite(p.structure)]
    return sum(p.structure * p.entries for p in known) > STRUCTURED * sum(p.entries for p in known) > 0


def measure(problem: Problem) -> Reach:
    """One traced forward pass, one backward pass, and two power iterations a matrix."""
    with sandbox(0):
        model = problem.twin()
        held = {n for _, names in problem.optimizer.groups for n in names} if problem.optimizer is not None else set()
        seen = trace(problem, model, problem.data[0])
        loss = seen.loss.mean()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        taken = {id(t) for call in seen.calls for t in tensors_in((call.args, call.kwargs))}
        parameters = tuple(
            Parameter(
                name, p.numel(), name in held, p.requires_grad, id(p) in taken, _norm(p.grad), structure(p.detach())
            )
            for name, p in model.named_parameters()
        )
        return Reach(parameters, _cuts(seen, model), _anew(seen, model), loss.requires_grad)


def structure(weight: Tensor) -> float:
    """Largest singular value over that of the same entries mixed; nan for vectors, tiny and huge matrices."""
    matrix = weight.flatten(1).float() if weight.dim() > 1 else weight.reshape(1, -1).float()
    if min(matrix.shape) < 4 or matrix.numel() > LARGEST or not bool(matrix.isfinite().all()):
        return float("nan")
    generator = torch.Generator().manual_seed(0)
    mixed = matrix.flatten()[torch.randperm(matrix.numel(), generator=generator).to(matrix.device)].view_as(matrix)
    bulk = largest(mixed)
    return largest(matrix) / bulk if bulk > 0 else float("nan")


def largest(matrix: Tensor) -> float:
    """Largest singular value by power iteration on MᵀM; a few per cent low where no direction stands out."""
    vector = torch.ones(matrix.shape[1], device=matrix.device)
    vector += torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).to(matrix.device)
    for _ in range(ITERATIONS):
        vector = matrix.T @ (matrix @ (vector / vector.norm().clamp_min(1e-30)))
    return float(vector.norm().sqrt())


def _norm(grad: Tensor | None) -> float:
    return float(grad.float().norm()) if grad is not None else float("nan")


def _cuts(seen: Trace, model: nn.Module) -> tuple[Cut, ...]:
    """Calls where the need for a gradient ends, each with the parameters upstream of it."""
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    above: dict[int, frozenset[str]] = {}
    found: dict[CallKey, Cut] = {}
    switches: list[Seen] = []
    for call in seen.calls:
        if call.name == "_set_grad_enabled":
            switches = [*switches, call] if call.args[:1] == (False,) else []
        numbers = seen.linked.reads(call.index)
        upstream = frozenset().union(*(above.get(n, frozenset()) for n in numbers)) | {
            names[id(seen.linked.tensors[n])] for n in numbers if id(seen.linked.tensors[n]) in names
        }
        above.update(dict.fromkeys(seen.linked.writes[call.index], upstream))
        if upstream and _ends_here(call):
            flat = call.name.rstrip("_") in FLAT
            blamed = [call] if flat or not switches else switches
            key = blamed[0].key
            known = found[key].upstream if key in found else frozenset()
            undone = flat or _undone(blamed[0], call, seen)
            keys = tuple(c.key for c in blamed)
            found[key] = Cut(keys, call.where, blamed[0].site, undone, known | upstream, flat)
    return tuple(found.values())


def _ends_here(call: Seen) -> bool:
    """True if something that needs a gradient went in, and values without any came out."""
    needed = any(t.requires_grad for t in tensors_in((call.args, call.kwargs)))
    if not needed or call.name in {"_set_grad_enabled", "shape", "device", "dtype", "grad", "requires_grad", "is_leaf"}:
        return False
    made = tensors_in(call.output)
    if call.name.rstrip("_") in FLAT:
        return True
    return call.name in READERS if not made else not any(t.requires_grad for t in made)


def _undone(blamed: Seen, call: Seen, seen: Trace) -> bool:
    """True if leaving the blamed call out keeps all values: a switch of the mode, or the same values handed on.

    Not where the values leave torch next: NumPy refuses tensors with a graph.
    """
    if any(reader.name in READERS for reader in seen.readers(call)):
        return False
    if blamed.name == "_set_grad_enabled":
        return True
    source, made = tensors_in(call.args)[:1], tensors_in(call.output)
    return bool(source and made) and source[0].shape == made[0].shape and torch.equal(source[0], made[0])


def _anew(seen: Trace, model: nn.Module) -> tuple[str, ...]:
    """Where the forward pass takes trainable leaves that the model does not hold: layers made in the forward pass."""
    own = {id(p) for p in model.parameters()}
    made = {
        call.site if not call.path else call.where
        for call in seen.calls
        for t in tensors_in((call.args, call.kwargs))
        if t.is_leaf and t.requires_grad and id(t) not in own and not call.name.endswith("_")
    }
    return tuple(sorted(site.rsplit("/", 1)[-1] for site in made))
