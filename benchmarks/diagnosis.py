"""How often the diagnosis is right: every patient of tests/gallery through the real command.

A folder is named after its cause; `*_sick.py` in it has that cause, `*_healthy.py` is its look-alike that trains well.
Findings are ranked as the report has them, problems before warnings; notes do not count.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GALLERY = Path(__file__).parents[1] / "tests" / "gallery"
PROVEN = ("cured", "helped")


def patients(gallery, only):
    folders = sorted(path for path in gallery.iterdir() if path.is_dir() and not path.name.startswith("_"))
    if unknown := set(only or ()) - {folder.name for folder in folders}:
        sys.exit(f"no such cause in {gallery}: {', '.join(sorted(unknown))}")
    return [
        script
        for folder in folders
        if not only or folder.name in only
        for kind in ("sick", "healthy")
        for script in sorted(folder.glob(f"*_{kind}.py"))
    ]


def run(command, folder, timeout):
    """Exit code (None: timed out) and seconds; what the command printed goes to `output` in the folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    return code, time.perf_counter() - start


def ranked(report):
    """The findings that count, problems before warnings, otherwise in the report's order."""
    findings = [finding for finding in report["findings"] if finding["severity"] != "note"]
    return sorted(findings, key=lambda finding: finding["severity"] != "problem")


def judge(cause, report):
    """What the report says about this cause."""
    findings = ranked(report)
    causes = [finding["cause"] for finding in findings]
    rank = causes.index(cause) + 1 if cause in causes else None
    return {
        "found": causes[0] if causes else None,
        "causes": causes,
        "rank": rank,
        "verdict": findings[rank - 1]["verdict"]["outcome"] if rank else None,
        "problems": sum(finding["severity"] == "problem" for finding in findings),
    }


def diagnose(script, options):
    """One row: what was expected of this script, and what came out."""
    cause, kind = script.parent.name, script.stem.rsplit("_", 1)[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "report.json"
        watch = ["run", "--budget", options.budget, "--json", str(path), "--out", str(folder / "out")]
        code, seconds = run([sys.executable, "-m", "unstuck", *watch, str(script)], folder, options.timeout)
        row = {"cause": cause, "kind": kind, "script": script.name, "exit": code, "seconds": round(seconds, 1)}
        row["output"] = (folder / "output").read_text(errors="replace")[-3000:]
        report = json.loads(path.read_bytes()) if path.is_file() else None
    row["report"] = report is not None
    return {**row, **judge(cause, report or {"findings": []})}


def right(row, within):
    return row["rank"] is not None and row["rank"] <= within


def line(row):
    if not row["report"]:
        found = "no report: " + ("timed out" if row["exit"] is None else f"exit code {row['exit']}")
    else:
        found = row["found"] or "healthy"
    sick = row["kind"] == "sick"
    mark = "ok" if (right(row, 1) if sick else row["report"] and not row["problems"]) else "WRONG"
    rank = (row["rank"] if right(row, 3) else "-") if sick else ""
    expected = row["cause"] if sick else "healthy"
    return (
        f"{row['cause'] + '/' + row['script']:60.60} {expected:28} {found:28} {rank:>4} {row['verdict'] or '-':11} "
        f"{row['problems']:>8} {row['seconds']:6.1f} s  {mark}"
    )


def share(name, rows, holds, target):
    """One total: in how many rows it holds, against the share that should; (name, value, target, met)."""
    count = sum(map(holds, rows))
    value = f"{count}/{len(rows)}" + (f" = {count / len(rows):.1%}" if rows else "")
    return name, value, f">= {target:.0%}", count >= target * len(rows)


def totals(rows):
    sick = [row for row in rows if row["kind"] == "sick"]
    healthy = [row for row in rows if row["kind"] == "healthy"]
    alarms = sum(row["problems"] > 0 for row in healthy)
    silent = sum(not row["report"] for row in rows)
    seconds = statistics.median(row["seconds"] for row in rows)
    return [
        share("right cause first", sick, lambda row: right(row, 1), 0.90),
        share("in the first three", sick, lambda row: right(row, 3), 0.97),
        share("cure proven", sick, lambda row: row["verdict"] in PROVEN, 0.85),
        ("false alarms", f"{alarms}/{len(healthy)}", "0", alarms == 0),
        ("without a report", f"{silent}/{len(rows)}", "0", silent == 0),
        ("median time", f"{seconds:.1f} s", "<= 45 s", seconds <= 45),
    ]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="CAUSE")
    parser.add_argument("--gallery", type=Path, default=GALLERY, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time, one thread each")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--budget", default="40s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows, with each run's last output")
    return parser.parse_args()


def main():
    options = parse()
    scripts = patients(options.gallery.resolve(), options.only)
    if not scripts:
        sys.exit(f"no *_sick.py or *_healthy.py in the folders of {options.gallery}")
    print(f"{'patient':60} {'expected':28} {'found first':28} {'rank':>4} {'verdict':11} {'problems':>8} {'time':>8}")
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda script: diagnose(script, options), scripts):
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    results = totals(rows)
    print()
    for name, value, target, met in results:
        print(f"{name:20} {value:16} target {target:8} {'met' if met else 'MISSED'}")
    passed = all(met for *_, met in results)
    figures = ", ".join(f"{name} {value}" for name, value, *_ in results)
    print(f"diagnosis: {figures}: {'all targets met' if passed else 'targets MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
