"""The command line: `unstuck run`, `examine`, `critical`, `race`, `lecture`, `explain`, `schema`.

Imports torch only where it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from unstuck.records import Report

app = App(name="unstuck", help="Says why a neural network does not train, proves it, and shows the cure working.")

VALUED = frozenset(
    {"--steps", "--budget", "--out", "--json", "--fail-on", "--share", "--tolerance", "--failure", "--find",
     "--method", "--training", "--optimizers", "--lr", "--batch-size", "--seeds"}
)  # fmt: skip
"""Options of `run`, `critical` and `race` that take a value: needed to find where the script's own arguments begin."""

FAILED, INTERRUPTED = 3, 130


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `unstuck` command."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    if tokens[:1] == ["lecture"] and "--on" in tokens:
        end = tokens.index("--on") + 2
        tokens, _script_arguments[:] = tokens[:end], tokens[end:]
    if tokens[:1] in (["run"], ["critical"], ["race"], ["examine"]):
        ours, script = divide(tokens[1:])
        if tokens[0] != "run" and ours and ":" in ours[-1]:  # a problem has no arguments of its own
            ours, script = [*ours, *script], []
        _script_arguments[:] = script
        tokens = [tokens[0], *ours]
    app(tokens)


_script_arguments: list[str] = []


def divide(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options and the target, and the script's own arguments: everything after the target is the script's."""
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token == "-m":
            return [*tokens[:place], "--module", *tokens[place + 1 : place + 2]], list(tokens[place + 2 :])
        if not token.startswith("-"):
            return list(tokens[: place + 1]), list(tokens[place + 1 :])
        place += 2 if token in VALUED else 1
    return list(tokens), []


@app.command
def run(
    target: str,
    *,
    module: Annotated[bool, Parameter(name="--module", negative="")] = False,
    steps: int | None = None,
    budget: str = "60s",
    out: Path | None = None,
    json: Path | None = None,
    cure: Annotated[bool, Parameter(negative="--no-cure")] = True,
    fail_on: Literal["problem", "warning"] | None = None,
    share: float = 0.02,
    training: int | None = None,
) -> None:
    """Run a training script unchanged, watch it, and say why it does not train.

    `unstuck run [OPTIONS] train.py [ARGUMENTS OF THE SCRIPT]`, or `unstuck run [OPTIONS] -m package.module …`.

    Parameters
    ----------
    target
        The script (or with -m the module). What follows it belongs to the script.
    module
        The target is a module, as with `python -m` (-m does the same).
    steps
        Stop the script after so many optimizer steps, and examine.
    budget
        Time for examination and race together: 60s, 2m.
    out
        Folder for report.json and report.html; default .unstuck/runs/<when>-<script>.
    json
        Write the report's JSON here too.
    cure
        Race the remedies (--no-cure: examine only).
    fail_on
        Exit with 3 when there is a finding of this severity (or worse).
    share
        Most that watching may cost, as a share of the training's time.
    training
        Of a script that trains several models one after the other, the training to examine (1, 2, …; the script stops
        where the next one begins); default the last one.
    """
    seconds = duration(budget)
    if training is not None and training < 1:
        _refuse(f"run: --training must be 1 or more, got {training}")
    if not module and not Path(target).is_file():
        _refuse(f"run: there is no file {target!r}; give the path of a training script, or -m and a module's name")
    from unstuck.run import run_and_examine

    report, code = run_and_examine(
        target, _script_arguments, module, steps, seconds, cure, share, _progress(), training
    )
    _deliver(report, target, out, json)
    sys.exit(FAILED if _fails(report, fail_on) else code)


@app.command
def examine(
    target: str,
    *,
    budget: str = "60s",
    out: Path | None = None,
    json: Path | None = None,
    cure: Annotated[bool, Parameter(negative="--no-cure")] = True,
    chapters: Annotated[bool, Parameter(negative="--no-chapters")] = True,
    fail_on: Literal["problem", "warning"] | None = None,
) -> None:
    """Examine a training at length: what is wrong, and the lecture's chapters measured on your network.

    `unstuck examine model.py:problem`, or `unstuck examine [OPTIONS] train.py [ARGUMENTS OF THE SCRIPT]`: the script
    runs, watched, and its training is examined.

    Parameters
    ----------
    target
        FILE:NAME, where NAME is an unstuck.Problem or a function without arguments that returns one; or a training
        script. What follows a script belongs to it.
    budget
        Time for examination, race and chapters together: 60s, 2m.
    out
        Folder for report.json and report.html.
    json
        Write the report's JSON here too.
    cure
        Race the remedies (--no-cure: examine only).
    chapters
        Add the chapters (--no-chapters: all of the budget for what is wrong).
    fail_on
        Exit with 3 when there is a finding of this severity (or worse).
    """
    seconds = duration(budget)
    from unstuck.diagnose import examine as examine_problem
    from unstuck.errors import UnstuckError
    from unstuck.run import problem_of

    try:
        problem, skipped = problem_of(target, _script_arguments, command="examine")
        with _progress() as tick:
            report = examine_problem(problem, seconds, cure, tick, chapters, target, skipped)
    except UnstuckError as error:
        _refuse(str(error))
    _deliver(report, target, out, json)
    sys.exit(FAILED if _fails(report, fail_on) else 0)


@app.command
def critical(
    target: str,
    *,
    budget: str = "60s",
    tolerance: float = 0.01,
    failure: float = 0.01,
    initial: Annotated[bool, Parameter(negative="")] = False,
    find: int | None = None,
    method: Literal["newton-mr", "descent"] = "newton-mr",
    steps: int | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Is it a saddle or a minimum? The point where a training stands, with a certificate and the way out.

    `unstuck critical model.py:problem`, or `unstuck critical [OPTIONS] train.py [ARGUMENTS OF THE SCRIPT]`: the script
    runs, watched, and the point where it ended is examined.

    Parameters
    ----------
    target
        FILE:NAME of an unstuck.Problem, or a training script. What follows a script belongs to it.
    budget
        Time for the verdict, the spectrum and the charts together: 60s, 2m.
    tolerance
        Curvature smaller than this share of the largest counts as none.
    failure
        Probability with which the stated bounds may be wrong.
    initial
        Examine the point where the training began.
    find
        Search so many times for critical points around the way the training went, instead of examining where it stands:
        what kinds there are, and their index against their loss.
    method
        How the searches go: Newton-MR, or descent on the squared gradient (slower, for comparison).
    steps
        Stop the script after so many optimizer steps, and examine.
    out
        Folder for report.json and report.html.
    json
        Write the report's JSON here too.
    """
    seconds = duration(budget)
    from unstuck.census import critical_points
    from unstuck.errors import UnstuckError
    from unstuck.landscape import critical as of_point
    from unstuck.run import problem_of
    from unstuck.sandbox import sandbox

    try:
        problem, skipped = problem_of(target, _script_arguments, steps)
        with _progress() as tick, sandbox():
            if find is None:
                report = of_point(problem, seconds, tolerance, failure, not initial, target, skipped, tick)
            else:
                report = critical_points(problem, find, seconds, method, 0, target, skipped, tick)
    except UnstuckError as error:
        _refuse(str(error))
    _deliver(report, target, out, json)


@app.command
def race(
    target: str,
    *,
    optimizers: str = "sgd,momentum,adagrad,rmsprop,adam",
    lr: str = "1e-4:1:13",
    batch_size: str = "",
    steps: int = 500,
    seeds: int = 3,
    full: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Which optimizer, learning rate and batch size? Races them all on copies, and says which is best, and by how much.

    `unstuck race model.py:problem`, or `unstuck race [OPTIONS] train.py [ARGUMENTS OF THE SCRIPT]`: the script runs,
    watched, and its training is begun anew with each setting.

    Parameters
    ----------
    target
        FILE:NAME of an unstuck.Problem, or a training script. What follows a script belongs to it.
    optimizers
        Some of sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw.
    lr
        Learning rates: 0.1,0.01 or a range such as 1e-4:1:13 (from, to, how many).
    batch_size
        Batch sizes such as 16,64,256; left out: the present one.
    steps
        Updates that each setting makes.
    seeds
        Starts and orders of the data that the best settings are compared on.
    full
        Train every setting to the end with every seed; else the better ones go on.
    out
        Folder for report.json, report.html and the race's record. A race that was killed goes on there.
    json
        Write the report's JSON here too.
    """
    from unstuck.errors import UnstuckError
    from unstuck.run import problem_of
    from unstuck.sandbox import sandbox
    from unstuck.tuning import tune

    folder = out or _folder(target)
    sizes = _whole_numbers("--batch-size", batch_size)
    try:
        problem, skipped = problem_of(target, _script_arguments, command="race")
        with _progress() as tick, sandbox():
            names = tuple(name.strip() for name in optimizers.split(","))
            report = tune(problem, names, lr, sizes, steps, seeds, full, folder, target, skipped, tick)
    except UnstuckError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print(f"unstuck: interrupted; the same command with --out {folder} goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)
    _deliver(report, target, folder, json)


@app.command
def lecture(
    name: str | None = None,
    *,
    lang: Literal["en", "zh"] = "en",
    on: str | None = None,
    budget: str = "60s",
    out: Path | None = None,
) -> None:
    """The lecture's experiments: what it claims about training, measured and drawn, and whether it held here.

    `unstuck lecture all` makes them all, on one page; `unstuck lecture` lists them. `unstuck lecture momentum --on
    train.py [ARGUMENTS OF THE SCRIPT]` makes one on your own training. Exit code 3 where a claim did not hold.

    Parameters
    ----------
    name
        An experiment, several with commas between them, or all.
    lang
        en or zh.
    on
        FILE:NAME of an unstuck.Problem, or a training script. What follows a script belongs to it.
    budget
        Time for the experiments on your training together: 60s, 2m.
    out
        Folder for lecture.json and lecture.html; default .unstuck/runs/<when>-lecture.
    """
    seconds = duration(budget)
    from rich.console import Console

    from unstuck.errors import UnstuckError
    from unstuck.lecture import experiments
    from unstuck.report.lecture import outcome, render, write
    from unstuck.run import problem_of

    console = Console()
    if name is None:
        console.print(experiments.table(lang))
        return
    try:
        ids = experiments.named(name)
        problem, _ = problem_of(on, _script_arguments, command="lecture") if on is not None else (None, ())
        with _progress() as tick:
            made = experiments.perform(ids, lang, problem, seconds, on or "", tick)
    except UnstuckError as error:
        _refuse(str(error))
    sys.stdout.flush()
    render(made, console)
    try:
        _, page = write(made, out or _folder("lecture"))
    except OSError as error:
        _refuse(f"the page could not be written to {error.filename!r}: {error.strerror}; give another --out")
    print(f"page: {page}")
    sys.exit(FAILED if outcome(made) is False else 0)


@app.command
def explain(cause: str | None = None) -> None:
    """What a cause means, how it is told, and what cures it; without a name, the list of causes.

    Parameters
    ----------
    cause
        The id of a cause, such as dead-units.
    """
    from rich.console import Console

    from unstuck.explain import page, table

    console = Console()
    if cause is None:
        console.print(table())
        return
    text = page(cause)
    if text is None:
        _refuse(f"explain: there is no cause {cause!r}; `unstuck explain` lists them")
    console.print(text, highlight=False, markup=False)


@app.command
def schema() -> None:
    """Print the JSON schema of a report."""
    import msgspec

    from unstuck.records import schema as of_report

    print(msgspec.json.format(msgspec.json.encode(of_report()), indent=2).decode())


def duration(text: str) -> float:
    """Seconds of `60`, `60s`, `2m` or `1.5m`; anything else is refused."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in {"s", "m"} else (text, "s")
    try:
        seconds = float(number) * (60 if unit == "m" else 1)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        _refuse(f"--budget: expected a time such as 60s or 2m, got {text!r}")
    return seconds


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        _refuse(f"{option}: expected whole numbers such as 16,64,256, got {text!r}")
        return ()


def _folder(target: str) -> Path:
    """A folder of its own for this run."""
    from datetime import datetime

    file = target.split(":")[0]
    name = Path(file).stem if file.endswith(".py") else file
    return Path(".unstuck") / "runs" / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"


def _deliver(report: Report, target: str, out: Path | None, json: Path | None) -> None:
    from rich.console import Console

    from unstuck.report.html import write
    from unstuck.report.terminal import render

    folder = out or _folder(target)
    sys.stdout.flush()
    render(report, Console())
    try:
        _, page = write(report, folder)
        if json is not None:
            json.parent.mkdir(parents=True, exist_ok=True)
            json.write_bytes(report.to_json())
    except OSError as error:
        _refuse(
            f"the report could not be written to {error.filename!r}: {error.strerror}; give another --out or --json"
        )
    print(f"report: {page}")


def _fails(report: Report, fail_on: str | None) -> bool:
    severities = {"problem": {"problem"}, "warning": {"problem", "warning"}}.get(fail_on or "", set())
    return any(finding.severity in severities for finding in report.findings)


def _progress() -> Any:
    from unstuck.progress import Progress

    return Progress()


def _refuse(message: str) -> Any:
    print(f"unstuck: {message}", file=sys.stderr)
    sys.exit(2)
