"""The doors: a watched script, a target `FILE:NAME`, a loop of the user's own. All end in `diagnose`."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unstuck.capture.assemble import Captured, assemble
from unstuck.capture.script import Ended, run_script
from unstuck.capture.watch import Watch
from unstuck.errors import BadArgument, NotReplayable, StopTraining, TargetNotFound
from unstuck.problem import Problem
from unstuck.records import Report, Skipped
from unstuck.sandbox import sandbox

INTERRUPTED = 130


def run_and_examine(
    target: str,
    arguments: Sequence[str],
    module: bool = False,
    steps: int | None = None,
    budget_s: float = 60.0,
    cure: bool = True,
    share: float = 0.02,
    progress: Any = None,
    training: int | None = None,
) -> tuple[Report, int]:
    """Run a script under watch, examine what was seen, and return the report with the script's exit code.

    Of several trainings the last one, or number `training` (1, …): there the script stops.
    """
    with _own_objects_set_aside(), Watch(share=share, steps=steps, only=training) as watch:
        ended = run_script(target, arguments, module)
    try:
        with progress as tick:
            return _examined(watch, ended, target, budget_s, cure, tick), ended.code
    except KeyboardInterrupt:
        print("unstuck: interrupted again, no report", file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextmanager
def _own_objects_set_aside() -> Iterator[None]:
    """Garbage collections inside the block pass over what was imported before it: some 200 000 objects, 0.07 s for each
    full collection in the midst of the script's training. The script's own objects are collected as ever."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _examined(
    watch: Watch, ended: Ended, target: str, budget_s: float, cure: bool, tick: Callable[[str, float], None]
) -> Report:
    captured = assemble(watch)
    skipped = list(captured.skipped)
    if ended.how:
        skipped.append(Skipped("the script", f"{ended.how}; what was seen until then is examined"))
    if not watch.seen.backwards and not watch.seen.made:
        skipped.append(Skipped("training", "no call of backward() and no optimizer step was seen while the script ran"))
    return judge(captured, skipped, target, budget_s, cure, tick)


def judge(
    captured: Captured,
    skipped: Sequence[Skipped],
    target: str,
    budget_s: float,
    cure: bool,
    tick: Callable[[str, float], None] = lambda what, share: None,
) -> Report:
    """The report on what was captured; leaves no trace in any RNG stream."""
    # Not before the script has run: it need not share its memory and caches with what examines it.
    from unstuck.diagnose import diagnose

    with sandbox():
        return diagnose(
            captured.problem,
            captured.loop,
            captured.recipe,
            skipped,
            captured.overhead,
            target,
            budget_s,
            cure,
            tick,
        )


def load_target(target: str, command: str = "examine") -> Problem:
    """The Problem that `FILE:NAME` names; NAME may be a function without arguments that returns one.

    Raises TargetNotFound when file or name do not exist, BadArgument when it is no Problem.
    """
    path, _, name = target.rpartition(":")
    if not path:
        raise TargetNotFound(f"{command}: expected FILE:NAME such as model.py:problem, got {target!r}")
    if not Path(path).is_file():
        raise TargetNotFound(f"{command}: there is no file {path!r}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise TargetNotFound(f"{command}: {path} defines no {name!r}")
    found = getattr(module, name)
    if callable(found) and not isinstance(found, Problem):
        found = found()
    if not isinstance(found, Problem):
        raise BadArgument(f"{command}: {target} must be an unstuck.Problem, got {type(found).__name__}")
    return found


def problem_of(
    target: str, arguments: Sequence[str] = (), steps: int | None = None, command: str = "critical"
) -> tuple[Problem, tuple[Skipped, ...]]:
    """The Problem that `FILE:NAME` names, or that is seen while a script runs; and what of the script was left out.

    Raises TargetNotFound and BadArgument like `load_target`, NotReplayable where the script's loss cannot be replayed.
    """
    if ":" in target:
        return load_target(target, command), ()
    if not Path(target).is_file():
        raise TargetNotFound(f"{command}: there is no file {target!r}; give a script, or FILE:NAME of a Problem")
    with _own_objects_set_aside(), Watch(steps=steps) as watched:
        ended = run_script(target, arguments)
    captured = assemble(watched)
    if captured.problem is None:
        reasons = "; ".join(f"{part.probe}: {part.why}" for part in captured.skipped)
        raise NotReplayable(f"{command}: no training of {target} could be replayed ({reasons or 'none was seen'})")
    how = f"{ended.how}; what was seen until then is examined"
    return captured.problem, (*captured.skipped, *([Skipped("the script", how)] if ended.how else []))


class watch:
    """Watch a loop of your own: `with unstuck.watch(model, optimizer) as w: …; w.report()`.

    model, optimizer   what is trained (checked for type; everything in the process that trains is seen)
    share              most that watching may cost, as a share of the training's time

    A loss that is not finite does not stop the loop. Raises BadArgument for a model or optimizer that is none.
    """

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None, share: float = 0.02
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise BadArgument(f"watch: `model` must be a torch.nn.Module, got {type(model).__name__}")
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise BadArgument(f"watch: `optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        self._watch = Watch(share=share, stop_on_nonfinite=False)
        self._optimizer = optimizer

    def __enter__(self) -> watch:
        self._watch.__enter__()
        if self._optimizer is not None:
            self._watch.seen.optimizers[id(self._optimizer)] = (self._optimizer, "")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool:
        self._watch.__exit__(kind, *rest)
        return kind is StopTraining

    def report(self, budget_s: float = 60.0, cure: bool = True) -> Report:
        """Examine what was seen so far (inside the block or after it). The live training is not touched."""
        with self._watch.suspended():
            captured = assemble(self._watch)
            return judge(captured, captured.skipped, "watch", budget_s, cure)
