"""`unstuck critical` in real processes: of a problem written down, and of a script that runs under watch."""

import json
import os
import subprocess
import sys

import jsonschema
import msgspec
import pytest

from unstuck.cli import main
from unstuck.records import Report, schema

PROBLEMS = """
import math, torch, unstuck
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(64, 1); y = x
class Product(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.full((2,), start))
    def forward(self, x):
        return self.w[0] * self.w[1] * x
data = list(zip(x.split(16), y.split(16)))
problem = unstuck.Problem(Product(), nn.MSELoss(), data)
def slope():
    return unstuck.Problem(Product(0.5), nn.MSELoss(), data)
def frozen():
    return unstuck.Problem(Product().requires_grad_(False), nn.MSELoss(), data)
def broken():
    return unstuck.Problem(Product(math.nan), nn.MSELoss(), data)
def wild():
    return unstuck.Problem(Product(), lambda out, y: torch.where(out.abs() > 0.5, math.inf, 1 - out * y).mean(), data)
model = 3
"""

SCRIPT = """
import sys
import torch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(256, 6); y = (x[:, 0] + x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for step in range(60):
    i = torch.randint(0, 256, (32,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x[i]), y[i])
    loss.backward()
    optimizer.step()
print("arguments", sys.argv[1:], step)
{after}
"""

QUICK = ("--budget", "5s", "--out", "out")


def unstuck(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "unstuck", "critical", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=180, env=environment,
    )  # fmt: skip


def here(folder, monkeypatch, *arguments):
    """The exit code of the same command without a process of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "model", None)
    with pytest.raises(SystemExit) as stop:
        main(["critical", *arguments])
    return stop.value.code


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.py").write_text(PROBLEMS)
    (tmp_path / "train.py").write_text(SCRIPT.replace("{after}", ""))
    (tmp_path / "idle.py").write_text("print('nothing here')")
    return tmp_path


def report(folder) -> Report:
    """The report on disk: valid against the schema, decoded, and the same again when it is encoded."""
    raw = (folder / "out" / "report.json").read_bytes()
    jsonschema.validate(json.loads(raw), schema())
    found = msgspec.json.decode(raw, type=Report)
    assert json.loads(found.to_json()) == json.loads(raw)
    page = (folder / "out" / "report.html").read_text()
    assert page.startswith("<!") and "</html>" in page
    return found


def test_a_saddle_that_was_written_down(folder):
    done = unstuck(folder, *QUICK, "--json", "copy.json", "model.py:problem")
    assert done.returncode == 0, done.stderr
    assert "This point is a saddle" in " ".join(done.stdout.split())
    assert "report: " in done.stdout and "Traceback" not in done.stderr
    found = report(folder)
    assert found.headline.startswith("This point is a saddle: λmin is in [")
    assert found.target == "model.py:problem" and found.point.verdict == "saddle"
    assert found.point.lambda_min[0] <= -2 * found.point.loss <= found.point.lambda_min[1]
    assert found.point.escape_loss < found.point.loss and found.point.bends_down
    assert found.charts and json.loads((folder / "copy.json").read_text()) == json.loads(found.to_json())


def test_options_may_follow_a_problem(folder, monkeypatch):
    assert here(folder, monkeypatch, "model.py:slope", *QUICK, "--tolerance", "0.1") == 0
    found = report(folder)
    assert found.headline.startswith("This is no critical point, the loss still falls: ")
    assert found.point.epsilon == pytest.approx(0.1 * max(found.point.lambda_max[1], -found.point.lambda_min[0]))


def test_a_script_runs_and_the_point_where_it_ended_is_examined(folder):
    done = unstuck(folder, *QUICK, "--failure", "0.05", "train.py", "--epochs", "3", "--out", "theirs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("arguments ['--epochs', '3', '--out', 'theirs'] 59\n")
    assert not (folder / "theirs").exists()
    found = report(folder)
    assert found.target == "train.py" and found.point.parameters == 74
    assert found.point.verdict in {"slope", "saddle", "minimum", "undecided"} and found.point.loss < 0.6


def test_where_a_script_began_and_only_so_many_steps(folder, monkeypatch, capsys):
    assert here(folder, monkeypatch, *QUICK, "--initial", "--steps", "20", "train.py") == 0
    assert "arguments" not in capsys.readouterr().out
    assert 0.6 < report(folder).point.loss < 1.2


def test_a_search_for_critical_points_around_a_script(folder):
    done = unstuck(folder, "--find", "6", "--method", "newton-mr", *QUICK, "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("arguments [] 59\n")
    found = report(folder)
    assert found.target == "train.py" and found.point is None and 1 <= len(found.found) <= 6
    assert found.headline in " ".join(done.stdout.split()) and "gradient" in done.stdout


def test_a_script_that_raises_is_examined_up_to_there(folder, monkeypatch):
    (folder / "train.py").write_text(SCRIPT.replace("{after}", "raise RuntimeError('of theirs')"))
    assert here(folder, monkeypatch, *QUICK, "train.py") == 0
    found = report(folder)
    assert any("it raised RuntimeError" in part.why for part in found.skipped)


def test_a_loss_that_is_infinite_further_off_makes_a_report_still(folder, monkeypatch):
    assert here(folder, monkeypatch, *QUICK, "model.py:wild") == 0
    assert report(folder).point.verdict == "saddle"


def test_bad_input_ends_a_process_with_a_word(folder):
    done = unstuck(folder, "missing.py")
    assert "critical: there is no file 'missing.py'" in done.stderr
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.py:x",), "there is no file 'missing.py'"),
        (("model.py:nothing",), "defines no 'nothing'"),
        (("model.py:model",), "must be an unstuck.Problem, got int"),
        (("idle.py",), "no training of idle.py could be replayed"),
        (("model.py:frozen",), "no trainable parameter"),
        (("model.py:broken",), "the loss is not finite"),
        (("--tolerance", "2", "model.py:problem"), "`tolerance` must be between 0 and 1, got 2.0"),
        (("--failure", "0", "model.py:problem"), "`failure` must be between 0 and 1, got 0.0"),
        (("--find", "0", "model.py:problem"), "`count` must be at least 1, got 0"),
        (("--budget", "soon", "model.py:problem"), "--budget: expected a time such as 60s or 2m, got 'soon'"),
    ],
)
def test_bad_input_is_said_clearly(folder, monkeypatch, capsys, arguments, message):
    assert here(folder, monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / ".unstuck").exists()
