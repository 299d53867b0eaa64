"""`unstuck race`: the report of a race over settings, and the command in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import jsonschema
import msgspec
import pytest
import torch
from tests.race.test_contest import problem
from torch import nn

import unstuck
from unstuck.cli import main
from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.race.contest import Result
from unstuck.race.grid import Setting
from unstuck.records import Report, schema
from unstuck.report.html import page
from unstuck.report.terminal import text
from unstuck.tuning import margin, ranking, tune

MODEL = """
import torch, unstuck
from torch import nn
torch.manual_seed(0)
x = torch.randn(512, 8); y = (x[:, 0] * x[:, 1] > 0).long()
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
problem = unstuck.Problem(net, nn.CrossEntropyLoss(), list(zip(x.split(16), y.split(16))))
"""
SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
x = torch.randn(512, 8); y = (x[:, 0] * x[:, 1] > 0).long()
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(60):
    i = torch.randint(0, 512, (16,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x[i]), y[i]).backward()
    optimizer.step()
print("trained")
"""


@pytest.fixture(scope="module")
def report() -> Report:
    return tune(problem(800), ("sgd", "adam"), "1e-4:1:5", (16, 64), steps=80, seeds=3, target="here")


def result(lr: float, seed: int, score: float, steps: int = 8, diverged: bool = False) -> Result:
    return Result(Setting("sgd", lr, 16), seed, (steps,), (0.5,), (score,), diverged)


def test_the_report_ranks_every_setting_and_gives_the_best_as_code(report: Report) -> None:
    assert len(report.race) == 20 and report.race[0].outcome == "finished" and report.race[0].seeds == 3
    finished = [line for line in report.race if line.seeds == 3]
    assert [line.score for line in finished] == sorted((line.score for line in finished), reverse=True)
    best = report.race[0]
    assert report.best.code == f"{best.code}\nbatch_size = {best.batch_size}" and "torch.optim." in report.best.code
    assert report.headline.startswith(f"Best of 20 settings: {best.optimizer}, lr {best.lr:.3g}, batches of ")
    assert report.race[0].score > 0.8 and not report.unexplained
    assert len(report.notes) == 2 and all("a lane and step takes" in note for note in report.notes)


def test_its_charts_are_curves_and_a_map_for_each_optimizer(report: Report) -> None:
    train, held_out, *maps = report.charts
    assert {curve.name.split(",")[0] for curve in train.curves} == {"sgd", "adam"}
    assert all(0 <= y <= 1 for curve in held_out.curves for y in curve.y)
    assert [chart.title.split(":")[0] for chart in maps] == [c.name.split(",")[0] for c in train.curves]
    for chart in maps:
        assert chart.heat and [row.name for row in chart.curves] == ["16", "64"]
        assert all(row.x == (1e-4, 1e-3, 1e-2, 0.1, 1.0) for row in chart.curves)
    cells = {(chart.title.split(":")[0], x, row.name): y
             for chart in maps for row in chart.curves for x, y in zip(row.x, row.y, strict=True)}  # fmt: skip
    for line in report.race:
        assert cells[line.optimizer, line.lr, str(line.batch_size)] == (
            None if line.outcome == "diverged" else line.score
        )


def test_it_survives_json_and_stands_on_terminal_and_page(report: Report) -> None:
    raw = report.to_json()
    jsonschema.validate(json.loads(raw), schema())
    assert msgspec.json.decode(raw, type=Report) == report
    said, shown = text(report), page(report)
    assert report.best.code.splitlines()[0] in said and "16 of 20; all are in the report" in said
    assert '"heatmap"' in shown and shown.count('<td class="value">sgd</td>') == 10
    assert report.best.code.splitlines()[0] in shown


def test_ranking_puts_finished_before_stopped_before_diverged() -> None:
    results = [result(0.1, 0, 0.7), result(0.1, 1, 0.9), result(0.2, 0, 0.99, steps=4), result(0.3, 0, 0.5, steps=1),
               result(0.4, 0, 0.0, diverged=True), result(0.5, 0, 0.75), result(0.5, 1, 0.75)]  # fmt: skip
    ranked = ranking(results, 8)
    assert [line.lr for line in ranked] == [0.1, 0.5, 0.2, 0.3, 0.4]
    assert [line.outcome for line in ranked] == ["finished", "finished", "stopped", "stopped", "diverged"]
    assert ranked[0].score == pytest.approx(0.8) and ranked[0].error == pytest.approx(0.1)


def test_the_margin_is_that_of_paired_differences() -> None:
    scores = {0.1: (0.80, 0.90, 0.85), 0.2: (0.78, 0.87, 0.84)}
    results = [result(lr, seed, score) for lr, each in scores.items() for seed, score in enumerate(each)]
    first, second = ranking(results, 8)
    apart, half = margin(results, first, second)
    differences = torch.tensor([0.02, 0.03, 0.01], dtype=torch.float64)
    assert apart == pytest.approx(0.02) and half == pytest.approx(4.30265 * float(differences.std()) / 3**0.5, rel=1e-4)
    alone = [r for r in results if r.seed == 0]
    assert margin(alone, *ranking(alone, 8)) is None


def test_what_is_not_known_is_not_claimed() -> None:
    case = problem()
    one = tune(case, ("sgd",), "0.01,0.1", steps=16, seeds=1)
    assert one.headline.endswith("with one seed it is not known how sure that is.")
    wild = tune(case, ("sgd",), "1e30,1e31", steps=16, seeds=2)
    assert wild.headline.startswith("Undecided: none of 2 settings") and wild.unexplained and wild.best is None
    single = tune(case, ("sgd",), [0.1, 1e30], steps=16, seeds=2)
    assert single.headline == "Best of 2 settings: sgd, lr 0.1; no other came through 16 steps."
    same = tune(case, ("sgd",), [0.1, 0.1001], steps=16, seeds=3, full=True)
    assert "is as good within" in same.headline or "is not told apart from it, within" in same.headline


def test_a_metric_that_is_constant_decides_nothing() -> None:
    x = torch.randn(128, 4)
    data = [(batch, torch.zeros(16, dtype=torch.long)) for batch in x.split(16)]
    case = Problem(nn.Linear(4, 3), nn.CrossEntropyLoss(), data)
    report = tune(case, ("sgd", "adam"), [0.1, 0.5], steps=24, seeds=3)
    assert "is as good within 0" in report.headline


def test_targets_that_are_all_the_same_are_said() -> None:
    model, x = nn.Linear(4, 2), torch.randn(64, 4)
    for y in (torch.zeros(64).long(), (x[:, 0] > 0).long()):
        data = list(zip(x.split(8), y.split(8), strict=True))
        case = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
        notes = tune(case, ("sgd",), (0.1, 0.01), steps=8, seeds=1).notes
        assert any("Every held-out target is the same" in note for note in notes) == (not y.any())


def test_what_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"race: `problem` must be an unstuck\.Problem, got Linear"):
        tune(nn.Linear(2, 1))
    with pytest.raises(BadArgument, match="`steps` must be at least 1, got 0"):
        tune(problem(), ("sgd",), "0.1", steps=0)
    assert unstuck.tune is tune


# --- the command ------------------------------------------------------------------------------------------------------

QUICK = ("--optimizers", "sgd,adam", "--lr", "1e-3:1:4", "--steps", "40", "--out", "out")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "unstuck", "race", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "80"}


def read(folder) -> Report:
    return msgspec.json.decode((folder / "out" / "report.json").read_bytes(), type=Report)


def test_a_problem_that_was_written_down(folder) -> None:
    done = subprocess.run(command("model.py:problem", *QUICK, "--batch-size", "16,32"), cwd=folder, capture_output=True,
                          text=True, timeout=180, env=environment())  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = read(folder)
    assert len(report.race) == 16 and report.headline in " ".join(done.stdout.split())
    assert report.target == "model.py:problem" and (folder / "out" / "race.sqlite").is_file()


def test_a_script_is_run_and_its_training_begun_anew_with_each_setting(folder) -> None:
    done = subprocess.run(command(*QUICK, "--seeds", "2", "train.py", "--lr", "5"), cwd=folder, capture_output=True,
                          text=True, timeout=180, env=environment())  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained\n") and len(read(folder).race) == 8


def test_a_race_that_is_killed_ends_with_the_same_result(folder) -> None:
    # In float64 and with tame rates: whichever executor is timed to be fastest gives the same.
    exact = MODEL.replace("(512, 8)", "(512, 8).double()").replace("nn.Linear(16, 2))", "nn.Linear(16, 2)).double()")
    (folder / "model.py").write_text(exact)
    long = ("--optimizers", "sgd,momentum,adam", "--lr", "1e-4:0.01:8", "--steps", "400", "--seeds", "4", "--full")
    arguments = command("model.py:problem", *long, "--out", "out")
    race = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    record = folder / "out" / "race.sqlite"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not seeds_in(record):
        time.sleep(0.05)
    race.send_signal(signal.SIGKILL)
    race.wait()
    finished = seeds_in(record)
    assert 1 <= finished < 4 and not (folder / "out" / "report.json").exists()
    for out in ("out", "whole"):
        done = subprocess.run(command("model.py:problem", *long, "--out", out), cwd=folder, capture_output=True,
                              text=True, timeout=180, env=environment())  # fmt: skip
        assert done.returncode == 0, done.stderr
    resumed, whole = (msgspec.json.decode((folder / out / "report.json").read_bytes(), type=Report)
                      for out in ("out", "whole"))  # fmt: skip
    assert [(line.optimizer, line.lr) for line in resumed.race] == [(line.optimizer, line.lr) for line in whole.race]
    assert [line.score for line in resumed.race] == pytest.approx([line.score for line in whole.race], abs=1e-6)


def test_an_interrupted_race_says_how_to_go_on(folder) -> None:
    def interruptible() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it

    long = ("--lr", "1e-3:1:8", "--steps", "4000", "--seeds", "9", "--full", "--out", "out")
    race = subprocess.Popen(command("model.py:problem", *long), cwd=folder, stdout=subprocess.DEVNULL, text=True,
                            stderr=subprocess.PIPE, env=environment(), preexec_fn=interruptible)  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (folder / "out" / "race.sqlite").exists():
        time.sleep(0.05)
    time.sleep(1.0)
    race.send_signal(signal.SIGINT)
    said = race.communicate(timeout=60)[1]
    assert race.returncode == 130 and "interrupted; the same command with --out out goes on from there" in said
    assert "Traceback" not in said


def seeds_in(record) -> int:
    import sqlite3

    try:
        return sqlite3.connect(f"file:{record}?mode=ro", uri=True).execute("SELECT count(*) FROM seeds").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.py",), "race: there is no file 'missing.py'"),
        (("model.py:nothing",), "race: "),
        (("model.py:problem", "--optimizers", "lion"), "`optimizers` must be some of sgd"),
        (("model.py:problem", "--lr", "1e-4;1"), "`lr` must be rates such as"),
        (("model.py:problem", "--batch-size", "16;32"), "--batch-size: expected whole numbers such as 16,64,256"),
        (("model.py:problem", "--batch-size", "4096"), "`batch_size` 4096 is too large"),
        (("model.py:problem", "--steps", "0"), "`steps` must be at least 1"),
    ],
)
def test_bad_input_is_said_clearly(folder, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "model", None)
    with pytest.raises(SystemExit) as stop:
        main(["race", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err
