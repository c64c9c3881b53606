"""The metrics, in this process and at the port that Prometheus reads; and what the dashboard makes of them."""

from __future__ import annotations

import json
import re
import time

import pytest
from support.small_app import ROOT, Small

from serve.metrics import (
    DEFINITIONS,
    BatchMetrics,
    IngressMetrics,
    KnowledgeMetrics,
    ReasonerMetrics,
    Recorder,
    path_of,
)

DASHBOARD = ROOT / "docs/grafana/comem.json"


def test_outside_ray_the_values_stay_here() -> None:
    recorder = Recorder()
    ingress, reasoner = IngressMetrics(recorder), ReasonerMetrics(recorder)
    ingress.finish_request("/v1/answer", 200, "rag")
    ingress.finish_request("/v1/answer", 200, "rag")
    ingress.add_memory_items("encoded", 2)
    ingress.observe_stages({"retrieve": 500.0}, "rag")
    reasoner.observe_step(3, 1, 900)
    reasoner.observe_step(0, 0, 0)
    KnowledgeMetrics(recorder).observe_write(0.25, {"added": 2, "deleted": 1})
    BatchMetrics(recorder).set_waiting(4)
    assert dict(recorder.values) == {
        ("comem_requests_total", "/v1/answer", "rag", "200"): 2,
        ("comem_memory_items_total", "encoded"): 2,
        ("comem_stage_seconds", "retrieve", "rag"): 0.5,
        ("comem_batch_size",): 3,
        ("comem_running_answers",): 0,
        ("comem_cache_cells",): 0,
        ("comem_journal_write_seconds",): 0.25,
        ("comem_changes_total", "added"): 2,
        ("comem_changes_total", "deleted"): 1,
        ("comem_queue_depth",): 4,
    }


def test_a_path_is_the_declared_one() -> None:
    class Route:
        path = "/v1/items/{item_id}"

    assert path_of({"route": Route(), "path": "/v1/items/0123"}) == "/v1/items/{item_id}"
    assert path_of({"path": "/wp-login.php"}) == "other"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_name_says_its_unit(name: str) -> None:
    definition = DEFINITIONS[name]
    assert re.fullmatch(r"comem_[a-z_]+", name)
    assert name.endswith("_total") == (definition.kind == "counter")
    assert bool(definition.bounds) == (definition.kind == "histogram")
    assert list(definition.bounds) == sorted(set(definition.bounds))
    assert not set(definition.tags) & {"deployment", "replica", "application", "route"}  # Ray's own


def test_prometheus_reads_every_metric_at_rays_port(small: Small) -> None:
    small.http.get("/count").raise_for_status()
    end = time.monotonic() + 60
    shown: set[str] = set()
    while not set(DEFINITIONS) <= shown and time.monotonic() < end:
        time.sleep(1)
        text = small.metrics()
        shown = {m.removeprefix("ray_") for m in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    assert set(DEFINITIONS) - shown == set()
    (line,) = [line for line in text.splitlines() if line.startswith("ray_comem_requests_total{")]
    for tag in ('path="/count"', 'mode="memory"', 'status="200"', 'application="small"', 'deployment="Small"'):
        assert tag in line
    assert "ray_comem_stage_seconds_bucket{" in text
    assert re.search(r"ray_comem_prompt_tokens_total\{[^}]*\} 40\.0", text)


def test_the_dashboard_draws_metrics_that_exist_and_all_of_them() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert all(queries)
    series = {m for query in queries for m in re.findall(r"\bray_(comem_\w+)", query)}
    histograms = {name for name, d in DEFINITIONS.items() if d.kind == "histogram"}
    drawn = {
        re.sub(r"_(bucket|sum|count)$", "", s) if re.sub(r"_(bucket|sum|count)$", "", s) in histograms else s
        for s in series
    }
    assert drawn == set(DEFINITIONS)
    # Panels do not overlap, and each has a title and a unit.
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        p = panel["gridPos"]
        cells = {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        assert not cells & taken
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]
