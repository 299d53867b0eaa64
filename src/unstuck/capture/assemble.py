"""From what watching kept to a frozen Problem: copies, names, a checked tape, rows, a recipe, the facts of the loop.

After this nothing refers to a live object. What cannot be had is said in `Captured.skipped`, and the rest still works.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unstuck.capture.draws import redraws, validation
from unstuck.capture.facts import facts, schedule
from unstuck.capture.hidden import hidden, names_of, register
from unstuck.capture.optimizers import foreign, optimizer_of, together
from unstuck.capture.origin import rows_of
from unstuck.capture.seen import Form, Seen
from unstuck.capture.watch import Watch
from unstuck.criterion import prepared
from unstuck.errors import UnstuckError
from unstuck.loop import Loop
from unstuck.problem import Problem, TapeProgram, load_state, state_of
from unstuck.recipe import OptimizerRecipe
from unstuck.records import Skipped
from unstuck.rows import Rows
from unstuck.sandbox import sandbox
from unstuck.tape import Tape

REPLAY_TOLERANCE = 1e-4
"""Relative difference of a replayed loss from the recorded one that still counts as the same.

Replays agree to the last bit on one thread; reductions over several threads move the sixth digit."""

HELD_OUT = 0.2


@dataclass(frozen=True)
class Captured:
    """What could be made of a watched run: the problem (None where no loss replays), the loop, what is missing."""

    problem: Problem | None
    loop: Loop
    skipped: tuple[Skipped, ...]
    overhead: float | None
    recipe: OptimizerRecipe | None = None


def assemble(watch: Watch) -> Captured:
    """The frozen problem of a finished watch. Costs a copy of the model, one replay, one trace; seconds at most."""
    seen, skipped = watch.seen, []
    overhead = watch.meter.overhead if watch.meter.began is not None else None
    watch.trainings.end()
    skipped += _other_trainings(watch)
    form = _primary(seen)
    if form is None:
        loop = facts(seen, None, {}, _loose_names(seen), watch)
        skipped += [Skipped("tape", why) for why in dict.fromkeys(seen.trouble)]
        return Captured(None, loop, tuple(skipped), overhead)
    try:
        with sandbox(0):
            captured = _assemble(watch, form, overhead)
            return replace(captured, skipped=(*skipped, *captured.skipped))
    except (UnstuckError, RuntimeError, TypeError, AttributeError, ValueError, NotImplementedError, KeyError) as error:
        skipped.append(Skipped("copy of the training", f"{type(error).__name__}: {error}"))
        return Captured(None, facts(seen, form, {}, _loose_names(seen), watch), tuple(skipped), overhead)


def _other_trainings(watch: Watch) -> list[Skipped]:
    number, wanted = watch.trainings.number, watch.only or 0
    if wanted > number:
        return [Skipped(f"training {wanted}", f"the script makes {number}; the last one is examined")]
    if number == 1:
        return []
    return [Skipped("the trainings before", f"training {number} of the script is examined; --training N: another one")]


def _assemble(watch: Watch, form: Form, overhead: float | None) -> Captured:
    seen, skipped = watch.seen, []
    live = _whole(seen, form)
    modules = {id(m): n for n, m in live.named_modules(remove_duplicate=False)}
    names = {id(p): n for n, p in live.named_parameters()}
    buffers = {id(b): n for n, b in live.named_buffers()}
    unregistered = hidden(live)
    more_names, more_modules = names_of(live, unregistered)
    names, modules = more_names | names, more_modules | modules
    twin = _copy(live)
    register(twin, hidden(twin))
    last = state_of(twin)
    initial = {(names | buffers)[i]: value for i, (_, value) in seen.initial.items() if i in names or i in buffers}
    load_state(twin, initial)
    program = TapeProgram(_named(form.tape, modules, names))
    loop = facts(seen, form, modules, names, watch)
    why = _replays(program, twin, form, modules, loop, seen, names | buffers)
    if why:
        return Captured(None, loop, (Skipped("replay of the loss", why),), overhead)
    optimizer, line = optimizer_of(seen, names)
    recipe = together(seen, optimizer, names, line) if optimizer is not None else None
    loop = replace(loop, hidden=tuple(more_names.values()), foreign=foreign(optimizer, names))
    course = schedule(loop.lrs, recipe.lr if recipe else 0.0)
    if recipe is not None and (peak := max(course, default=1.0)) > 1:
        # A one-cycle schedule begins far below what it trains at: the recipe's rate is the peak.
        recipe, course = recipe.scaled(peak), tuple(factor / peak for factor in course)
    loop = replace(loop, schedule=course)
    problem = Problem(
        model=twin,
        loss=program,
        data=tuple(leaves for _, index, leaves in seen.batches if seen.forms[index] is form) or (form.leaves,),
        optimizer=recipe,
        last=last,
        loop=loop,
        recorded=tuple(sorted(((s, leaves) for s, i, leaves in seen.batches if seen.forms[i] is form), key=_first)),
        model_name=next((seen.names[id(r)] for r in form.roots if id(r) in seen.names), "model"),
    )
    problem = prepared(problem)
    problem, missing = _with_rows(problem, form)
    size = problem.rows.batch if problem.rows is not None else loop.batch_size
    problem = replace(problem, redraws=redraws(form, size), validation=validation(seen, form, size))
    skipped += missing
    return Captured(problem, loop, tuple(skipped), overhead, recipe)


def _primary(seen: Seen) -> Form | None:
    """The form of tape recorded most often (the earliest of equals)."""
    if not seen.forms:
        return None
    counts = [sum(index == i for _, index, _ in seen.batches) for i in range(len(seen.forms))]
    return seen.forms[counts.index(max(counts))]


class Bundle(nn.Module):
    """Several models (or loose parameters) that one loss is made of, as one module."""


def _whole(seen: Seen, form: Form) -> nn.Module:
    """One live module that holds every root and loose parameter of the tape (the live ones are not changed)."""
    loose = [int(key) for _, key in form.tape.parameters]
    roots = [r for r in form.roots if not any(r is not o and r in set(o.modules()) for o in form.roots)]
    held = {id(p) for r in roots for p in r.parameters()}
    tensors = {i: t for i, (t, _) in seen.initial.items() if i in loose and i not in held}
    if len(roots) == 1 and not tensors:
        return _unwrapped(roots[0])
    bundle = Bundle()
    for place, root in enumerate(roots):
        bundle.add_module(seen.names.get(id(root), f"model{place}").replace(".", "_"), _unwrapped(root))
    for place, tensor in enumerate(tensors.values()):
        # Registered as is: a plain tensor is no nn.Parameter, and must keep its identity until it is copied.
        bundle._parameters[f"tensor{place}"] = tensor  # type: ignore[assignment]
    return bundle


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = getattr(module, "_orig_mod", None)  # torch.compile
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = module.module
    return inner if isinstance(inner, nn.Module) else module


def _copy(live: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {id(m._trainer): None for m in live.modules() if getattr(m, "_trainer", None) is not None}
    memo |= {id(p.grad): None for p in live.parameters() if p.grad is not None}
    twin = copy.deepcopy(live, memo)
    for module in twin.modules():
        for name, tensor in list(module._parameters.items()):
            if tensor is not None and not isinstance(tensor, nn.Parameter):
                module._parameters[name] = nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
    return twin


def _named(tape: Tape, modules: Mapping[int, str], names: Mapping[int, str]) -> Tape:
    by_key = {str(i): n for i, n in modules.items()}
    steps = tuple(
        step if step.module is None else replace(step, module=by_key.get(step.module, "")) for step in tape.steps
    )
    return replace(tape, steps=steps, parameters=tuple((n, names[int(key)]) for n, key in tape.parameters))


def _replays(
    program: TapeProgram,
    twin: nn.Module,
    form: Form,
    modules: Mapping[int, str],
    loop: Loop,
    seen: Seen,
    names: Mapping[int, str],
) -> str:
    """'' if the tape gives the recorded loss on the recorded state; else what it gave."""
    model = copy.deepcopy(twin)
    if form.step:
        known = dict(seen.snapshots).get(form.step)
        if known is None:
            return ""
        load_state(model, {names[i]: t for i, t in known.items() if i in names})
    flags = {modules[i]: flag for i, flag in form.training.items() if i in modules}
    for name, module in model.named_modules():
        module.training = flags.get(name, module.training)
    torch.set_rng_state(form.rng)
    problem = Problem(model, program, (form.leaves,), loop=replace(loop, autocast=form.autocast))
    with torch.no_grad():
        value = float(problem.value(model, form.leaves).detach().float().mean())
    gap = abs(value - form.loss)
    if gap <= REPLAY_TOLERANCE * max(abs(form.loss), 1e-8) or (value != value and form.loss != form.loss):
        return ""
    return f"on the recorded state the loss was {form.loss:.6g}, its replay gives {value:.6g}"


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _loose_names(seen: Seen) -> dict[int, str]:
    """Names of the parameters of everything that ran, where no copy could be made."""
    names: dict[int, str] = {}
    for place, root in enumerate(seen.roots.values()):
        prefix = "" if len(seen.roots) == 1 else seen.names.get(id(root), f"model{place}") + "."
        own = {id(p): prefix + n for n, p in root.named_parameters()}
        names = {i: prefix + n for i, n in names_of(root, hidden(root))[0].items()} | own | names
    return names


def _takes(problem: Problem, rows: Rows) -> bool:
    """True if the loss can be computed on as many rows as are held out (tables of factors have one row for each)."""
    _, held = rows.split(HELD_OUT, torch.Generator().manual_seed(0))
    try:
        with sandbox(0), torch.no_grad():
            problem.value(problem.twin(), rows.batches(held, min(rows.batch, len(held)))[0])
    except Exception:  # whatever the user's program raises on fewer rows
        return False
    return True


def _with_rows(problem: Problem, form: Form) -> tuple[Problem, list[Skipped]]:
    """More batches where they can be drawn; training and held-out ones apart."""
    rows, why = rows_of(problem, form)
    if rows is not None and not _takes(problem, rows):
        rows, why = None, "the loss takes all rows at once: batches of some of them do not replay"
    if rows is None:
        keep = len(problem.data) - len(problem.data) // 4
        missing = [Skipped("more batches", why)] if why else []
        return replace(problem, data=problem.data[:keep], held_out=problem.data[keep:]), missing
    generator = torch.Generator().manual_seed(0)
    train, held = rows.split(HELD_OUT, generator)
    size = min(rows.batch, len(train))
    return replace(
        problem, data=rows.batches(train, size), held_out=rows.batches(held, min(size, len(held))), rows=rows
    ), []
