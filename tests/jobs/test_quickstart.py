"""jobs.quickstart on a real local Ray: one command makes all that a question needs."""

import json
from pathlib import Path

import pytest
import yaml
from support.tiny import item_row
from support.tiny_clip import write_clip

import comem_ray
from jobs.quickstart import STAGES

ITEMS = 6


@pytest.fixture(scope="module")
def run_file(make_config, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    rows = [item_row(i) for i in range(ITEMS)]
    for i, row in enumerate(rows):
        (home / f"{i}.png").write_bytes(row["image"])
    lines = [
        json.dumps({"image": f"{i}.png", "title": row["title"], "text": "A description.", "language": "en"})
        for i, row in enumerate(rows)
    ]
    (home / "items.jsonl").write_text("\n".join([*lines, "not JSON"]))
    clip, _ = write_clip(home)
    config = make_config(
        root=str(home / "run"),
        ingest={"sources": [{"path": str(home / "items.jsonl")}], "fetch": {"enabled": False}},
        clip=clip,
        index={"recall_queries": 2},
    )
    path = home / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def test_after_it_a_question_is_answered(run_file: Path, start_job) -> None:
    output = start_job("jobs.quickstart", run_file).finish()
    assert [line for line in output.splitlines() if line.startswith("== ")] == [
        f"== {s}" for s in [*STAGES, "quickstart"]
    ]
    answer = comem_ray.load(run_file).answer("Which number is this?", item_row(2)["image"], k=2)
    assert answer.sources[0].title == item_row(2)["title"]
    assert answer.usage.memory_vectors == 2 * 8
