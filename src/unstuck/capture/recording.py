"""Recording a step: every torch call, with calls of modules that hold parameters as opaque entries.

The recorder is off most of the time. It runs from the end of a step (or from the first forward pass) to the backward,
steps aside while a module or a data set is at work, and leaves no hook behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.capture.hidden import hidden, parameters_of
from unstuck.capture.meter import PER_CALL_S, Meter
from unstuck.capture.seen import VALIDATION_CALLS, Seen
from unstuck.recorder import Call, Recorder, site

RECORD_LIMIT = 4000


class Recording:
    """The recorder and the hook that sees modules run. `rng`, `autocast`: as they were before the first module ran;
    `validating`: what is recorded is not a step but a validation pass; `whole`: a step from its beginning."""

    def __init__(self, seen: Seen, meter: Meter) -> None:
        self._seen, self._meter = seen, meter
        self._recorder: Recorder | None = None
        self._opaque = False
        self._hook: Any = None
        self.rng: Tensor | None = None
        self.autocast: tuple[str, torch.dtype] | None = None
        self.validating = self.whole = False

    @property
    def active(self) -> bool:
        """True while torch calls are kept."""
        return self._recorder is not None

    @property
    def calls(self) -> list[Call]:
        """What has been kept so far."""
        return self._recorder.calls if self._recorder is not None else []

    def arm(self) -> None:
        """The next forward pass of a module that holds parameters is seen."""
        if self._hook is None:
            self._hook = torch.nn.modules.module.register_module_forward_pre_hook(self._before_module)

    def disarm(self) -> None:
        """Modules run unseen."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def start(self, whole: bool = False) -> None:
        """Keep every torch call from here on; `whole`: this is where a step begins."""
        if self._recorder is None:
            self.rng, self.whole = None, whole
            self._recorder = Recorder(RECORD_LIMIT)
            self._recorder.__enter__()

    def stop(self) -> list[Call] | None:
        """The calls kept since `start`; None where nothing was recorded, or too much."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return None
        self._pop(recorder)
        self.disarm()
        if self.validating:
            self.validating = False
            self._seen.keep_validation(recorder.calls)
        self._meter.spent += len(recorder.calls) * PER_CALL_S
        return None if recorder.overflow else recorder.calls

    def _pop(self, recorder: Recorder) -> None:
        if _mode() is recorder:
            recorder.__exit__(None, None, None)
        else:
            recorder.limit = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What a dataset does to make a batch is not part of the step (two calls a sample would be the most of it)."""
        recorder, armed = self._recorder, self._hook is not None
        active = recorder is not None and _mode() is recorder
        if recorder is not None and active:
            recorder.__exit__(None, None, None)
        self.disarm()
        try:
            yield
        finally:
            if recorder is not None and active:
                recorder.__enter__()
            if armed:
                self.arm()

    def _before_module(self, module: nn.Module, args: Any) -> None:
        """The outermost call of a module that holds parameters becomes one opaque entry."""
        if self._opaque or isinstance(module, torch.jit.ScriptModule) or next(module.parameters(), None) is None:
            return
        if self._recorder is None and not torch.is_grad_enabled():
            return
        self._meter.begin()
        with self._meter.timed():
            self._enter(module)

    def _enter(self, module: nn.Module) -> None:
        if id(module) not in self._seen.roots:
            self._new_root(module)
        self.start()
        recorder = self._recorder
        assert recorder is not None
        if self.rng is None:
            self.rng, self.autocast = torch.get_rng_state(), _autocast_now()
        self._opaque = True
        grad = torch.is_grad_enabled()
        self._pop(recorder)
        self.disarm()
        handle: Any = None

        def leave(inner: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            handle.remove()
            self._opaque = False
            if self._recorder is recorder:
                recorder.calls.append(Call(module, args, dict(kwargs), output, site(2), "", grad))
                if self.validating and len(recorder.calls) > VALIDATION_CALLS:
                    self.stop()
                    return
                recorder.__enter__()
                self.arm()

        handle = module.register_forward_hook(leave, with_kwargs=True, always_call=True)

    def _new_root(self, module: nn.Module) -> None:
        self._seen.roots[id(module)] = module
        self._seen.keep_initial([*module.parameters(), *module.buffers(), *parameters_of(hidden(module))])
        frame: Any = sys._getframe(2)
        while frame is not None:
            for name, value in list(frame.f_locals.items()):
                if value is module and name not in {"self", "module", "mod", "args", "input"}:
                    self._seen.names.setdefault(id(module), name)
            frame = frame.f_back


def _mode() -> Any:
    return torch.overrides._get_current_function_mode()  # type: ignore[attr-defined]


def _autocast_now() -> tuple[str, torch.dtype] | None:
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None
