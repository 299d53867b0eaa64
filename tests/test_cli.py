"""The command, in real processes: the script runs as python would run it, and the report follows."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from unstuck.cli import divide, duration

TRAINING = """
import sys, os
import torch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(256, 6); y = (x[:, 0] + x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for step in range(120):
    i = torch.randint(0, 256, (32,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x[i]), y[i])
    loss.backward()
    optimizer.step()
    {inside}
print("loss", loss.item(), "arguments", sys.argv[1:], __name__, os.getcwd())
{after}
"""


def unstuck(folder, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "unstuck", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=180, env=environment, **options,
    )  # fmt: skip


def write(folder, inside="pass", after="", name="train.py"):
    path = folder / name
    path.write_text(textwrap.dedent(TRAINING).replace("{inside}", inside).replace("{after}", after))
    return path


def report(folder):
    return json.loads((folder / "out" / "report.json").read_text())


QUICK = ("--budget", "6s", "--no-cure", "--out", "out")


def test_a_script_runs_as_under_python_and_is_reported(tmp_path):
    write(tmp_path)
    done = unstuck(tmp_path, "run", *QUICK, "--json", "copy.json", "train.py", "--epochs", "3", "--steps", "9")
    plain = subprocess.run([sys.executable, "train.py", "--epochs", "3", "--steps", "9"], cwd=tmp_path,
                           capture_output=True, text=True)  # fmt: skip
    assert done.stdout.startswith(plain.stdout)
    assert done.returncode == 0
    found = report(tmp_path)
    assert found["schema"] == "unstuck.report/1"
    assert found["healthy"] is not any(f["severity"] == "problem" for f in found["findings"])
    assert json.loads((tmp_path / "copy.json").read_text()) == found
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!")


def test_a_module_runs_with_m(tmp_path):
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    write(package)
    done = unstuck(tmp_path, "run", *QUICK, "-m", "mypackage.train", "--epochs", "3")
    assert "arguments ['--epochs', '3'] __main__" in done.stdout
    assert report(tmp_path)["figures"]


def test_the_exit_code_is_the_scripts(tmp_path):
    write(tmp_path, after="sys.exit(7)")
    assert unstuck(tmp_path, "run", *QUICK, "train.py").returncode == 7


def test_an_exception_shows_its_own_traceback_and_what_was_seen(tmp_path):
    write(tmp_path, inside="assert step < 60, 'too far'")
    done = unstuck(tmp_path, "run", *QUICK, "train.py")
    assert "AssertionError: too far" in done.stderr
    assert "unstuck" not in done.stderr.split("AssertionError")[0]
    assert done.returncode == 1
    assert any(s["probe"] == "the script" for s in report(tmp_path)["skipped"])
    assert report(tmp_path)["figures"]


def test_so_many_steps(tmp_path):
    write(tmp_path)
    done = unstuck(tmp_path, "run", *QUICK, "--steps", "30", "train.py")
    assert "loss" not in done.stdout.splitlines()[0]
    assert any("30 optimizer steps" in s["why"] for s in report(tmp_path)["skipped"])


TWO = """
for rate in (0.5, 0.25):
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    print("after", rate)
"""


def test_of_several_trainings_one_can_be_asked_for(tmp_path):
    write(tmp_path, after=TWO)
    done = unstuck(tmp_path, "run", *QUICK, "train.py")
    assert "after 0.25" in done.stdout and "training 3 of the script is examined" in " ".join(done.stdout.split())
    done = unstuck(tmp_path, "run", *QUICK, "--training", "2", "train.py")
    assert "after 0.5" in done.stdout and "after 0.25" not in done.stdout
    assert any("after training 2" in part["why"] for part in report(tmp_path)["skipped"])


def test_a_script_without_a_training_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "train.py").write_text("print('nothing here')")
    done = unstuck(tmp_path, "run", *QUICK, "train.py")
    assert done.returncode == 0
    assert "backward()" in done.stdout
    assert "Traceback" not in done.stderr


def test_fail_on_problem(tmp_path):
    write(tmp_path, inside="optimizer.param_groups[0]['lr'] = 0.0")
    (tmp_path / "stuck.py").write_text((tmp_path / "train.py").read_text().replace("optimizer.step()", "pass"))
    done = unstuck(tmp_path, "run", *QUICK, "--fail-on", "problem", "stuck.py")
    assert done.returncode == (3 if not report(tmp_path)["healthy"] else 0)


def test_interrupted_once_it_examines(tmp_path):
    write(tmp_path, inside="step == 40 and (print('now', flush=True), __import__('time').sleep(30))")
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "unstuck", "run", *QUICK, "train.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background inherits "ignore"
    )  # fmt: skip
    assert child.stdout.readline().strip() == "now"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "Traceback" not in errors
    assert any("interrupted" in s["why"] for s in report(tmp_path)["skipped"])


def test_a_problem_written_down_is_examined(tmp_path):
    (tmp_path / "model.py").write_text(
        "import torch, unstuck\nfrom torch import nn\n"
        "x = torch.randn(256, 4); y = (x[:, 0] > 0).long()\n"
        "net = nn.Linear(4, 2)\n"
        "def problem():\n"
        "    return unstuck.Problem(net, nn.CrossEntropyLoss(), list(zip(x.split(32), y.split(32))),\n"
        "                           optimizer=torch.optim.SGD(net.parameters(), 0.1))\n"
    )
    done = unstuck(tmp_path, "examine", *QUICK, "model.py:problem")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["figures"]
    assert [chapter["id"] for chapter in report(tmp_path)["chapters"]] == ["steps", "batches", "loss", "normalization"]
    assert "Steps: the learning rate and the optimizer" in done.stdout
    assert "Batches: noise, time, and the right size" in done.stdout
    after = unstuck(tmp_path, "examine", "model.py:problem", *QUICK, "--no-chapters")
    assert after.returncode == 0, after.stderr
    assert report(tmp_path)["chapters"] == []


def test_a_script_is_examined_at_length(tmp_path):
    write(tmp_path)
    done = unstuck(tmp_path, "examine", "--budget", "15s", "--out", "out", "train.py", "--epochs", "3")
    assert done.returncode == 0, done.stderr
    assert "arguments ['--epochs', '3']" in done.stdout
    steps, batches, *_ = report(tmp_path)["chapters"]
    assert any("SGD learns at rates from" in sentence for sentence in steps["sentences"])
    assert any("an epoch is shortest at" in sentence for sentence in batches["sentences"])
    assert any(figure["name"].startswith("critical batch size") for figure in batches["figures"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "missing.py"), "there is no file 'missing.py'"),
        (("run", "--budget", "soon", "train.py"), "--budget: expected a time such as 60s or 2m, got 'soon'"),
        (("run", "--training", "0", "train.py"), "--training must be 1 or more, got 0"),
        (("examine", "nothing"), "there is no file 'nothing'; give a script, or FILE:NAME of a Problem"),
        (("examine", "missing.py:x"), "there is no file 'missing.py'"),
        (("examine", "train.py:x"), "defines no 'x'"),
        (("examine", "train.py:model"), "must be an unstuck.Problem, got"),
        (("explain", "bad-luck"), "there is no cause 'bad-luck'"),
    ],
)
def test_bad_input_is_said_clearly(tmp_path, arguments, message):
    (tmp_path / "train.py").write_text("model = 3")
    done = unstuck(tmp_path, *arguments)
    assert message in done.stderr
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_explain_and_schema(tmp_path):
    assert "How it is told" in unstuck(tmp_path, "explain", "dead-units").stdout
    assert "learning-rate-too-high" in unstuck(tmp_path, "explain").stdout
    assert "$defs" in json.loads(unstuck(tmp_path, "schema").stdout)


def test_what_follows_the_target_belongs_to_the_script():
    assert divide(["--budget", "9s", "a.py", "--budget", "x"]) == (["--budget", "9s", "a.py"], ["--budget", "x"])
    assert divide(["--no-cure", "-m", "p.t", "-m"]) == (["--no-cure", "--module", "p.t"], ["-m"])
    assert divide(["--out=x", "a.py"]) == (["--out=x", "a.py"], [])
    assert divide(["--help"]) == (["--help"], [])


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("2m", 120), ("1.5m", 90), ("45", 45)])
def test_durations(text, seconds):
    assert duration(text) == seconds


def test_the_lecture_lists_its_experiments_and_makes_one(tmp_path):
    listed = unstuck(tmp_path, "lecture", "--lang", "zh")
    assert listed.returncode == 0 and "saddle" in listed.stdout and "鞍点" in listed.stdout
    made = unstuck(tmp_path, "lecture", "saddle,softmax", "--out", "out")
    assert made.returncode == 0 and "20 of 20 claims held" in made.stdout, made.stdout + made.stderr
    written = json.loads((tmp_path / "out" / "lecture.json").read_text())
    assert [one["id"] for one in written["experiments"]] == ["saddle", "softmax"]
    assert (tmp_path / "out" / "lecture.html").stat().st_size > 1e6


def test_an_experiment_is_made_on_a_script_with_its_own_arguments(tmp_path):
    write(tmp_path)
    made = unstuck(
        tmp_path, "lecture", "softmax", "--budget", "5s", "--out", "out", "--on", "train.py", "--epochs", "3"
    )
    assert made.returncode == 0 and "arguments ['--epochs', '3'] __main__" in made.stdout, made.stdout + made.stderr
    experiment = json.loads((tmp_path / "out" / "lecture.json").read_text())["experiments"][0]
    assert experiment["target"] == "train.py" and experiment["figures"] and experiment["charts"]


def test_the_lecture_refuses_what_it_does_not_know(tmp_path):
    for arguments, said in (
        (("hill",), "there is no experiment 'hill'; there are saddle,"),
        (("saddle", "--on", "nothing.py"), "there is no file 'nothing.py'"),
    ):
        done = unstuck(tmp_path, "lecture", *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
