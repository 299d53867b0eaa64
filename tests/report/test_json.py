from __future__ import annotations

import json
import math
from typing import Any

import jsonschema
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck.records import (
    Chapter,
    Chart,
    Cost,
    Curve,
    Figure,
    Finding,
    RemedyLine,
    Report,
    Skipped,
    Verdict,
    schema,
)
from unstuck.report.figures import figure
from unstuck.report.html import page
from unstuck.report.terminal import text

TEXT = st.text(max_size=20)
ANY_NUMBER = st.none() | st.floats()
COUNT = st.integers(0, 10**9)
FIGURES = st.lists(st.builds(Figure, TEXT, ANY_NUMBER, TEXT, ANY_NUMBER, st.none() | COUNT, ANY_NUMBER), max_size=5)
ROW = st.lists(ANY_NUMBER, max_size=5).map(tuple)
CURVES = st.lists(st.builds(Curve, TEXT, ROW, ROW, ROW, ROW), max_size=4).map(tuple)
CHART = st.builds(Chart, TEXT, TEXT, TEXT, CURVES, FIGURES.map(tuple), *[st.booleans()] * 2, TEXT, st.booleans())
VERDICT = st.builds(
    Verdict,
    outcome=st.sampled_from(["cured", "helped", "no-effect", "worse", "undecided", "not-tried"]),
    metric=TEXT,
    control=ANY_NUMBER,
    remedied=ANY_NUMBER,
    interval=st.none() | st.tuples(ANY_NUMBER, ANY_NUMBER),
    steps=COUNT,
    seeds=COUNT,
    why=TEXT,
)
FINDING = st.builds(
    Finding,
    cause=TEXT,
    severity=st.sampled_from(["problem", "warning", "note"]),
    strength=ANY_NUMBER,
    where=TEXT,
    summary=TEXT,
    evidence=FIGURES.map(tuple),
    remedy=st.none() | st.builds(RemedyLine, TEXT, TEXT, TEXT),
    verdict=VERDICT,
)
CHAPTER = st.builds(
    Chapter,
    id=st.sampled_from(["steps", "batches"]),
    title=TEXT,
    sentences=st.lists(TEXT, max_size=3).map(tuple),
    figures=FIGURES.map(tuple),
    charts=st.lists(CHART, max_size=2).map(tuple),
    advice=st.none() | st.builds(RemedyLine, TEXT, TEXT, TEXT),
)
REPORT = st.builds(
    Report,
    healthy=st.booleans(),
    headline=TEXT,
    target=TEXT,
    findings=st.lists(FINDING, max_size=3).map(tuple),
    figures=FIGURES.map(tuple),
    skipped=st.lists(st.builds(Skipped, TEXT, TEXT), max_size=3).map(tuple),
    cost=st.builds(Cost, ANY_NUMBER, ANY_NUMBER, ANY_NUMBER),
    charts=st.lists(CHART, max_size=2).map(tuple),
    chapters=st.lists(CHAPTER, max_size=2).map(tuple),
)


def with_null(value: Any) -> Any:
    """The value with every number that JSON does not know replaced by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: with_null(item) for key, item in value.items()}
    return tuple(map(with_null, value)) if isinstance(value, (list, tuple)) else value


@settings(max_examples=60, deadline=None)
@given(REPORT)
def test_a_report_comes_back_from_json_with_null_for_what_is_not_finite(report: Report) -> None:
    back = Report.from_json(report.to_json())
    assert with_null(msgspec.to_builtins(back)) == with_null(msgspec.to_builtins(report))
    assert back.to_json() == report.to_json()


@settings(max_examples=40, deadline=None)
@given(REPORT)
def test_the_schema_describes_every_report(report: Report) -> None:
    jsonschema.validate(json.loads(report.to_json()), schema())


@settings(max_examples=40, deadline=None)
@given(REPORT)
def test_a_report_renders_the_same_after_json(report: Report) -> None:
    back = Report.from_json(report.to_json())
    assert text(back) == text(report)
    assert page(back) == page(report)


@settings(max_examples=150, deadline=None)
@given(CHART)
def test_every_chart_becomes_a_figure_that_a_browser_can_parse(chart: Chart) -> None:
    assert json.dumps(figure(chart), allow_nan=False)


def test_json_has_the_keys_that_tools_read(sick: Report) -> None:
    report = json.loads(sick.to_json())
    assert report["schema"] == "unstuck.report/1"
    assert {"schema", "healthy", "findings", "skipped", "cost"} <= set(report)
    finding = report["findings"][0]
    assert {"cause", "severity", "strength", "where", "summary", "evidence", "remedy", "verdict"} == set(finding)
    assert {"name", "value", "unit", "error", "samples", "cost_s"} == set(finding["evidence"][0])
    assert {"metric", "outcome", "control", "remedied", "interval", "steps", "seeds"} <= set(finding["verdict"])
    assert finding["verdict"]["interval"] == [0.60, 0.66]


def test_a_chapter_comes_back_from_json(lecture: Report) -> None:
    assert Report.from_json(lecture.to_json()).chapters == lecture.chapters


def test_names_that_utf_8_cannot_spell_do_not_lose_the_report(sick: Report) -> None:
    odd = msgspec.structs.replace(sick, target="runs/\udcff.py")
    assert Report.from_json(odd.to_json()).target == "runs/?.py"
