"""The patients: plain scripts that know nothing of us, a sick and a healthy one for each cause; some go through the
real command here, all of them in `make bench-diagnosis`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unstuck.rules import RULES

GALLERY = Path(__file__).parent / "gallery"
SCRIPTS = sorted(GALLERY.glob("[!_]*/*.py"))
FASHION = Path("/usr/share/datasets/fashion-mnist").is_dir()

QUICK = (
    "softmax-over-one-output/tumour_mlp",
    "activation-loss-mismatch/digits_gru",
    "output-range-mismatch/tumour_size",
    "symmetric-initialization/",
    "learning-rate-too-high/digits_mlp_sgd",
    "nonfinite-data/tumour_logs",
    "unscaled-inputs/wine_mlp",
)
"""Patients that need no more than a few seconds of training."""


def patients(kind):
    return [s for s in SCRIPTS if s.stem.endswith(kind) and f"{s.parent.name}/{s.stem}".startswith(QUICK)]


def diagnose(script, folder):
    done = subprocess.run(
        [sys.executable, "-m", "unstuck", "run", "--budget", "25s", "--out", str(folder), str(script)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=folder,
    )  # fmt: skip
    return done, json.loads((folder / "report.json").read_text())


def needs_fashion(script):
    return "fashion-mnist" in script.read_text()


def test_every_cause_in_the_gallery_is_one_a_rule_tells():
    known = {rule.cause for rule in RULES}
    assert {s.parent.name for s in SCRIPTS} <= known


def test_every_sick_script_has_a_healthy_look_alike():
    sick = {s.with_stem(s.stem.removesuffix("_sick")) for s in SCRIPTS if s.stem.endswith("_sick")}
    healthy = {s.with_stem(s.stem.removesuffix("_healthy")) for s in SCRIPTS if s.stem.endswith("_healthy")}
    assert sick == healthy
    assert len(sick) >= 30


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: f"{s.parent.name}/{s.stem}")
def test_a_patient_knows_nothing_of_us(script):
    text = script.read_text()
    assert not re.search(r"\b(unstuck|sick|healthy|broken|buggy|patient)\b", text, re.IGNORECASE)
    compile(text, str(script), "exec")


@pytest.mark.parametrize("script", patients("_sick"), ids=lambda s: f"{s.parent.name}/{s.stem}")
def test_a_sick_script_is_told_its_cause_among_the_first_three(script, tmp_path):
    if needs_fashion(script) and not FASHION:
        pytest.skip("needs Debian's dataset-fashion-mnist")
    _, report = diagnose(script, tmp_path)
    assert script.parent.name in [finding["cause"] for finding in report["findings"]][:3]
    assert not report["healthy"]


@pytest.mark.parametrize("script", patients("_healthy"), ids=lambda s: f"{s.parent.name}/{s.stem}")
def test_a_healthy_script_is_called_healthy(script, tmp_path):
    if needs_fashion(script) and not FASHION:
        pytest.skip("needs Debian's dataset-fashion-mnist")
    _, report = diagnose(script, tmp_path)
    assert report["healthy"], report["findings"]


UNUSUAL = sorted(GALLERY.glob("_unreplayable/*.py"))
HEAVY = {"hf_trainer", "lightning_own_loop", "gradient_accumulation"}


@pytest.mark.parametrize("script", UNUSUAL, ids=lambda s: s.stem)
def test_what_cannot_be_replayed_ends_with_a_report_and_no_traceback_of_ours(script, tmp_path):
    if needs_fashion(script) and not FASHION:
        pytest.skip("needs Debian's dataset-fashion-mnist")
    budget = "10s" if script.stem in HEAVY else "8s"
    done = subprocess.run(
        [sys.executable, "-m", "unstuck", "run", "--budget", budget, "--out", str(tmp_path), str(script)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["headline"]
    assert "src/unstuck" not in done.stderr
    if script.stem in {"exception_in_loop", "missing_file"}:
        assert "Traceback" in done.stderr
        assert done.returncode == 1
    else:
        assert done.returncode == 0
