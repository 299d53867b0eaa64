"""Contract 7: imports go one way. And torch is imported only by the commands that need it."""

import ast
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unstuck"

# Downwards only: each may import itself and what stands before it.
ORDER = (
    "errors",
    "records",
    "claims",
    "progress",
    "sandbox",
    "recipe",
    "recorder",
    "tape",
    "rewriting",
    "rows",
    "loop",
    "problem",
    "trace",
    "criterion",
    "training",
    "linalg",
    "curvature",
    "optim",
    "probes",
    "evidence",
    "remedies",
    "rules",
    "explain",
    "race",
    "chapters",
    "charts",
    "settle",
    "diagnose",
    "landscape",
    "census",
    "tuning",
    "report",
    "capture",
    "run",
    "scale",
    "store",
    "lecture",
    "cli",
)
EXEMPT = ("__init__.py", "__main__.py")


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module that a `from … import` names, dots resolved."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def imported(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything the module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module, is_package)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def stage(dotted: str) -> str | None:
    """'unstuck.probes.loss.measure' → 'probes'; None for what is not ours; '' for the package itself."""
    parts = [*dotted.split("."), ""]
    return parts[1] if parts[0] == "unstuck" else None


def complaint(own: str, other: str | None) -> str | None:
    if other is None or other == own:
        return None
    if own not in ORDER:
        return "has no place in ORDER itself"
    if other not in ORDER:
        return "imports from the package itself, or from a module that has no place in ORDER"
    return "imports upwards" if ORDER.index(other) > ORDER.index(own) else None


def source_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name not in EXEMPT)


def test_every_module_has_its_place() -> None:
    stages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in source_files()}
    assert stages <= set(ORDER)


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    names = path.relative_to(PACKAGE).with_suffix("").parts
    is_package = names[-1] == "__init__"
    module = ".".join(["unstuck", *(names[:-1] if is_package else names)])
    found = [
        f"{path}:{line}: {dotted}: {why}"
        for line, dotted in imported(ast.parse(path.read_text()), module, is_package)
        if (why := complaint(stage(module) or "", stage(dotted)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("import torch", False),
        ("from unstuck.problem import Problem", False),
        ("from .loss import history", False),
        ("from ..records import Figure", False),
        ("from .. import records", False),
        ("def f():\n    from unstuck.race import verdict", True),
        ("from ..rules import base", True),
        ("import unstuck.cli", True),
        ("from unstuck import watch", True),
        ("from unstuck.helpers import thing", True),
    ],
)
def test_the_check_itself(line: str, wrong: bool) -> None:
    names = imported(ast.parse(line), "unstuck.probes.gradients")
    assert any(complaint("probes", stage(dotted)) for _, dotted in names) == wrong


def help_seconds() -> float:
    """CPU time: on a free machine that is the time a user waits, and on a busy one it stays so."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "unstuck", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_within_400_ms() -> None:
    assert statistics.median(help_seconds() for _ in range(5)) <= 0.4


def test_help_imports_no_torch() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['unstuck', '--help']\n"
        "try:\n    runpy.run_module('unstuck', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
