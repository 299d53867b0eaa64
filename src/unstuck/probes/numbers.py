"""Where numbers stop being finite, and what half precision loses.

The first call that makes a value which is not finite from values that are is named with its module: in the forward
pass, or (a square root at 0, say) in the backward pass of a call whose own result was fine. It is looked for on the
state where the training was left; where that is broken already, a copy is trained from the initial state until it
breaks, and the last sound state is examined.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unstuck.problem import Batch, Problem
from unstuck.rewriting import CallKey
from unstuck.sandbox import sandbox
from unstuck.tape import tensors_in
from unstuck.trace import Seen, Trace, trace
from unstuck.training import Training

LOOK_S = 6.0
STRIDE = 20
HALVES = frozenset({torch.float16, torch.bfloat16})


@dataclass(frozen=True)
class Origin:
    """The call that made the first value that is not finite. `low`, `high`: range of its input; `step`: of the copy's
    training, 0 where the training was left; `summed`: the result is summed, as for a softmax by hand."""

    key: CallKey
    where: str
    site: str
    path: str
    backward: bool
    low: float
    high: float
    step: int
    summed: bool = False


@dataclass(frozen=True)
class Numbers:
    """`broken`: a loss or a parameter of the user's run was not finite; `inputs_finite`: what it was fed was.
    `origin`: the call to blame, where it was found.

    halved, flushed, stalled   share of parameters in half precision; of gradient entries that are 0 in half precision
                               and not in float32; of entries with a gradient that one step leaves as they were
    overflown                  the loss times its scale is so large that its gradients are not finite, though without
                               the scale they are: a scaler takes no step then, and backs off
    """

    broken: bool
    inputs_finite: bool
    origin: Origin | None
    halved: float
    flushed: float
    stalled: float
    dtype: str
    overflown: bool = False


def measure(problem: Problem) -> Numbers:
    """Free for a sound training in float32; else up to LOOK_S seconds of training, two traced passes, two gradients."""
    with sandbox(0):
        last = problem.twin(last=True)
        broken = not all(map(math.isfinite, problem.loop.losses)) or not _finite(last.parameters())
        origin = _origin(problem, last) if broken else None
        halved, dtype = _halved(problem, last)
        flushed, stalled = _lost(problem) if dtype else (0.0, 0.0)
        overflown = bool(dtype) and _overflows(problem)
    batches = [batch for _, batch in problem.recorded] + list(problem.data)
    inputs_finite = not broken or _finite(t for b in batches for t in tensors_in(b) if t.is_floating_point())
    return Numbers(broken, inputs_finite, origin, halved, flushed, stalled, dtype, overflown)


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors)


def _origin(problem: Problem, last: nn.Module) -> Origin | None:
    if _finite(last.parameters()):
        batches = [batch for _, batch in reversed(problem.recorded)][:8] + list(problem.data[:24])
        for batch in batches:
            found = blame(problem, problem.twin(last=True), batch, 0)
            if found is not None:
                return found
    return _by_training(problem)


def _by_training(problem: Problem) -> Origin | None:
    """Train a copy until it breaks, then go back to the last sound state and examine the step from there."""
    deadline, limit = time.perf_counter() + LOOK_S, max(problem.loop.steps, problem.loop.backwards, 100)
    run = Training(problem)
    kept = copy.deepcopy(run)
    while time.perf_counter() < deadline and run.steps < 2 * limit:
        kept = copy.deepcopy(run)
        run.advance(STRIDE)
        if run.diverged or not _finite(run.model.parameters()):
            break
    else:
        return None
    while kept.steps <= run.steps:
        before = copy.deepcopy(kept)
        kept.advance(1)
        if kept.diverged or not _finite(kept.model.parameters()):
            torch.manual_seed(before.seed * 1_000_003 + before.steps)
            return blame(problem, before.model, before.next_batch(), kept.steps)
    return None


def blame(problem: Problem, model: nn.Module, batch: Batch, step: int) -> Origin | None:
    """The call that makes the first value that is not finite, forward or backward; None where all are finite."""
    model.zero_grad()
    seen = trace(problem, model, batch)
    call = next((c for c in seen.calls if _breaks(c)), None)
    backward = call is None
    if call is None and seen.loss.requires_grad and bool(seen.loss.isfinite().all()):
        call = _broken_backward(seen)
    if call is None:
        return None
    inputs = [t.detach().float() for t in tensors_in((call.args, call.kwargs)) if t.is_floating_point() and t.numel()]
    low, high = (float(inputs[0].min()), float(inputs[0].max())) if inputs else (float("nan"), float("nan"))
    summed = any(reader.name in {"sum", "logsumexp", "mean"} for reader in seen.readers(call))
    return Origin(call.key, call.where, call.site, call.path, backward, low, high, step, summed)


def _breaks(call: Seen) -> bool:
    made = [t for t in tensors_in(call.output) if t.is_floating_point()]
    took = [t for t in tensors_in((call.args, call.kwargs)) if t.is_floating_point()]
    masking = call.name in {"full", "full_like", "masked_fill", "masked_fill_", "fill_", "log_softmax_mask", "triu"}
    # A mask of −inf before a softmax is meant so.
    return not masking and bool(took) and not _finite(made) and _finite(took)


def _broken_backward(seen: Trace) -> Seen | None:
    """The last call whose result's gradient is finite while its input's is not."""
    tensors = list({id(t): t for t in seen.linked.tensors if t.requires_grad and t.is_floating_point()}.values())
    grads = torch.autograd.grad(seen.loss.mean(), tensors, allow_unused=True)
    by_id = {id(t): g for t, g in zip(tensors, grads, strict=True) if g is not None}

    def of(tree: object) -> list[Tensor]:
        return [by_id[id(t)] for t in tensors_in(tree) if id(t) in by_id]

    for call in reversed(seen.calls):
        after, before = of(call.output), of((call.args, call.kwargs))
        if after and before and _finite(after) and not _finite(before):
            return call
    return None


def _halved(problem: Problem, model: nn.Module) -> tuple[float, str]:
    """Share of parameter entries in half precision, and the half type in use ('' for none)."""
    entries = [(p.numel(), p.dtype) for p in model.parameters()]
    half = sum(n for n, dtype in entries if dtype in HALVES) / max(sum(n for n, _ in entries), 1)
    used = [dtype for _, dtype in entries if dtype in HALVES]
    if not used and problem.loop.autocast is not None:
        used = [problem.loop.autocast[1]]
    return half, str(used[0]).removeprefix("torch.") if used else ""


def _lost(problem: Problem) -> tuple[float, float]:
    """Gradient entries that half precision flushes to 0; entries that a step does not move although it should.

    Where the training was left: there gradients and steps are small.
    """
    problem = replace(problem, model=problem.twin(last=True))
    narrow = _gradients(problem, problem.loop.loss_scale)
    try:
        wide = _gradients(in_float32(problem))
        lost = sum(int(((n == 0) & (wide[k] != 0)).sum()) for k, n in narrow.items() if k in wide)
        flushed = lost / max(sum(int((w != 0).sum()) for w in wide.values()), 1)
    except (RuntimeError, TypeError):  # the forward pass itself asks for half precision
        flushed = float("nan")
    return flushed, _stalled(problem, narrow)


def _overflows(problem: Problem) -> bool:
    if problem.loop.loss_scale <= 1:
        return False
    at_end = replace(problem, model=problem.twin(last=True))
    scaled, plain = _gradients(at_end, problem.loop.loss_scale), _gradients(at_end)
    return not _finite(scaled.values()) and _finite(plain.values())


def _gradients(problem: Problem, scale: float = 1.0) -> dict[str, Tensor]:
    model = problem.twin()
    value = problem.value(model, problem.data[0]).mean()
    if not value.requires_grad:
        return {}
    (value * scale).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _stalled(problem: Problem, gradients: dict[str, Tensor]) -> float:
    if problem.optimizer is None or not problem.loop.stepping:
        return 0.0
    run = Training(problem)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.advance(1)
    own = dict(run.model.named_parameters())
    moving = [(own[n].detach() == before[n])[g != 0] for n, g in gradients.items() if own[n].dtype in HALVES]
    count = sum(m.numel() for m in moving)
    return sum(int(m.sum()) for m in moving) / count if count else 0.0


def in_float32(problem: Problem) -> Problem:
    """The problem with its model, floating inputs and loss in float32, and casts to half left out."""
    model = problem.twin().float()

    def widen(batches: Iterable[Batch]) -> tuple[Batch, ...]:
        return tuple(
            tuple(x.float() if isinstance(x, Tensor) and x.dtype in HALVES else x for x in batch) for batch in batches
        )

    last = {name: t.float() if t.dtype in HALVES else t for name, t in problem.last.items()}
    loop = replace(problem.loop, autocast=None)
    with torch.no_grad():
        seen = trace(problem, problem.twin(), problem.data[0])
    casts = {call.key: _kept for call in seen.calls if _narrows(call)}
    return replace(
        problem,
        model=model,
        last=last,
        loop=loop,
        data=widen(problem.data),
        held_out=widen(problem.held_out),
        validation=widen(problem.validation),
        rewrites={**problem.rewrites, **casts},
    )


def _narrows(call: Seen) -> bool:
    made = [t for t in tensors_in(call.output) if t.dtype in HALVES]
    return bool(made) and call.name in {"half", "bfloat16", "to", "type"}


def _kept(function: object, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> Tensor:
    return args[0].float()
