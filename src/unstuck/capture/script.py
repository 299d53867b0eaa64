"""Running a user's script in this process as `python script.py` would, with its own arguments."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass

from unstuck.errors import StopTraining


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code, and in words ("" when it ran through)."""

    code: int
    how: str = ""


def run_script(target: str, arguments: Sequence[str], module: bool = False) -> Ended:
    """Execute a script (or with `module` a module) as `__main__`; its traceback is printed as Python prints it."""
    try:
        _run_module(target, arguments) if module else _run_file(target, arguments)
    except StopTraining as stop:
        return Ended(0, str(stop))
    except SystemExit as exit_:
        return Ended(_exit_code(exit_.code), "")
    except KeyboardInterrupt:
        return Ended(130, "it was interrupted")
    except BaseException as error:
        _print_traceback(error)
        return Ended(1, f"it raised {type(error).__name__}")
    return Ended(0)


def _run_file(path: str, arguments: Sequence[str]) -> None:
    main = types.ModuleType("__main__")
    main.__dict__.update({"__file__": path, "__builtins__": __builtins__, "__cached__": None})
    sys.argv = [path, *arguments]
    sys.path[0:0] = [os.path.dirname(os.path.realpath(path))]
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, main.__dict__)


def _run_module(name: str, arguments: Sequence[str]) -> None:
    sys.argv = [name, *arguments]
    sys.path[0:0] = [os.getcwd()]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    print(code, file=sys.stderr)
    return 1


def _print_traceback(error: BaseException) -> None:
    """The traceback without our own frames at its top."""
    trace = error.__traceback__
    ours = os.path.dirname(os.path.dirname(__file__))
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((ours, "<frozen runpy")):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace if trace is not None else None)
