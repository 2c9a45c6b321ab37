"""Metrics: what a run tells, and that the dashboard in docs/ asks for nothing else."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from softcask.pipeline.executors import metrics
from softcask.pipeline.executors.metrics import METRICS, Metric
from softcask.pipeline.executors.serial import SerialExecutor
from softcask.pipeline.label import TaskReport
from softcask.pipeline.plan import Task
from softcask.pipeline.precompute.metering import Metering
from softcask.pipeline.precompute.record import Totals
from softcask.storage_schemas.runs import RunProgress

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "softcask.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Told:
    """Adds up what it is told, as Prometheus would."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def tell(self, metric: Metric, value: float, **tags: str) -> None:
        assert set(tags) == set(metric.tags), metric.name
        key = (metric.name, *(tags[tag] for tag in metric.tags))
        self.values[key] = value if metric.kind == "gauge" else self.values[key] + value


def report() -> TaskReport:
    task = Task(group="g", segment="s0000", view=0, index=0, start=0, stop=32, teachers=("a", "b"))
    seconds = {"read": 1.0, "forward:a": 4.0, "forward:b": 2.0, "encode": 0.5, "write": 0.5}
    return TaskReport(
        task=task,
        rows={"a": 32},
        repeated=("b",),
        seconds=seconds,
        device="cuda",
        node="n7",
        bytes=1000,
    )


def test_a_report_is_counted_by_run_teacher_and_node() -> None:
    told = Told()
    metering = Metering("r1", Totals({"a": 4.0}))
    metering.meter = told
    metering.report(report())
    metering.report(report())
    assert told.values == {
        ("softcask_rows", "r1", "a", "n7"): 64,
        ("softcask_units", "r1", "a", "n7"): 2,
        ("softcask_repeated_units", "r1", "b", "n7"): 2,
        ("softcask_bytes", "r1", "n7"): 2000,
        ("softcask_stage_seconds", "r1", "read", "n7"): 2.0,
        ("softcask_stage_seconds", "r1", "forward", "n7"): 12.0,
        ("softcask_stage_seconds", "r1", "encode", "n7"): 1.0,
        ("softcask_stage_seconds", "r1", "write", "n7"): 1.0,
        ("softcask_device_seconds", "r1", "a", "n7"): 32.0,  # four GPUs each
        ("softcask_device_seconds", "r1", "b", "n7"): 4.0,
        ("softcask_unit_forward_seconds", "r1", "a", "n7"): 8.0,
        ("softcask_unit_forward_seconds", "r1", "b", "n7"): 4.0,
    }


def test_counters_of_the_executor_grow_by_what_was_added_since() -> None:
    told = Told()
    metering = Metering("r1", Totals())
    metering.meter = told
    live = RunProgress(
        run="r1",
        started="",
        updated="",
        beat=0,
        interval=10.0,
        host="",
        executor="ray",
        stage="label",
        total=100,
        done=40,
        retries=3,
        workers=2,
        in_flight=5,
        missing="1 GPU",
    )
    metering.standing(live)
    metering.standing(live.model_copy(update={"retries": 4, "failed": 1, "done": 90, "missing": ""}))
    assert told.values["softcask_retries", "r1"] == 4
    assert told.values["softcask_failures", "r1"] == 1
    assert told.values["softcask_rows_left", "r1"] == 10
    assert told.values["softcask_in_flight", "r1"] == 5
    assert told.values["softcask_missing_capacity", "r1"] == 0


def test_without_a_monitoring_system_nobody_is_told() -> None:
    SerialExecutor().meter().tell(metrics.ROWS, 5, run="r", teacher="a", node="n")


def exported() -> set[str]:
    """Names as Ray's agents export them: `ray_` before them, Prometheus' suffixes behind."""
    return {f"ray_{metric.name}{suffix}" for metric in METRICS for suffix in SUFFIXES[metric.kind]}


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]


def test_the_dashboard_asks_for_metrics_that_are_told_and_for_each_of_them() -> None:
    asked = {name for text in expressions() for name in re.findall(r"ray_\w+", text)}
    assert asked <= exported()
    for metric in METRICS:
        assert any(f"ray_{metric.name}{suffix}" in asked for suffix in SUFFIXES[metric.kind]), metric.name


def test_the_dashboard_tells_apart_by_tags_that_its_metrics_have() -> None:
    tags = {f"ray_{m.name}{suffix}": {*m.tags, "le"} for m in METRICS for suffix in SUFFIXES[m.kind]}
    for text in expressions():
        for name, selector in re.findall(r"(ray_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=", selector)) <= tags[name], text
        grouped = re.search(r"by \(([^)]*)\) \(\w+\((ray_\w+)", text)
        if grouped:
            assert set(grouped[1].split(", ")) <= tags[grouped[2]], text


def test_panels_do_not_lie_on_each_other_and_brackets_close() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for text in expressions():
        for opened, closed in ("()", "[]", "{}"):
            assert text.count(opened) == text.count(closed), text


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_are_such_as_prometheus_takes(metric: Metric) -> None:
    assert re.fullmatch(r"softcask_[a-z_]+", metric.name)
    assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count"))
    assert (metric.kind == "histogram") == bool(metric.boundaries)
    assert "run" in metric.tags


def test_ray_is_told_of_the_same_names_and_tags() -> None:
    from softcask.pipeline.executors.ray.metrics import RayMeter

    meter = RayMeter()
    assert {name: made.info["tag_keys"] for name, made in meter._made.items()} == {
        metric.name: metric.tags for metric in METRICS
    }
    meter.tell(metrics.ROWS, 5, run="r", teacher="a", node="n")  # no Ray runs: nobody is told
