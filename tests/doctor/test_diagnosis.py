"""The command, and what it prints."""

import json

import pytest
import yaml
from support.published import write_published
from support.tiny_clip import write_clip
from support.tiny_run import write_memory_stage, write_run
from typer.testing import CliRunner

from comem_ray.cli import app
from comem_ray.doctor.diagnosis import as_json, as_text
from comem_ray.doctor.finding import Finding

FINDINGS = [
    Finding("okvqa", "paths", "ok", "is there", {"bytes": 3}),
    Finding("okvqa", "rows", "missing", "5 are missing"),
    Finding("run", "items", "wrong", "is damaged"),
    Finding("run", "index", "note", "is old"),
]


def test_text_has_one_line_per_finding_under_its_part():
    assert as_text(FINDINGS).splitlines() == [
        "== okvqa",
        "   ok       paths: is there",
        "   MISSING  rows: 5 are missing",
        "== run",
        "   WRONG    items: is damaged",
        "   note     index: is old",
        "1 missing, 1 wrong: see above",
    ]
    assert as_text([FINDINGS[0], FINDINGS[3]]).endswith("nothing is missing")


def test_json_has_the_facts_and_the_sums():
    report = as_json(FINDINGS)
    assert (report["ok"], report["missing"], report["wrong"]) == (False, 1, 1)
    assert report["findings"][0]["facts"] == {"bytes": 3}
    assert as_json([FINDINGS[0], FINDINGS[3]])["ok"] is True


@pytest.fixture(scope="module")
def path(make_config, tmp_path_factory):
    """A configuration whose run is whole, with ViQuAE's questions under another name."""
    home = tmp_path_factory.mktemp("home")
    section, _ = write_clip(home)
    published = [s for s in write_published(home / "published") if s["task"] == "jsonl"]
    (home / "items.jsonl").write_text("{}\n")
    ingest = {"sources": [{"path": str(home / "items.jsonl")}]}
    config = make_config(root=str(home / "run"), clip=section, ingest=ingest, evaluation={"sources": published})
    write_run(config, [5])
    write_memory_stage(config)
    (home / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return home / "run.yaml"


def doctor(path, *words: str):
    return CliRunner().invoke(app, ["doctor", str(path), *words])


def test_the_command_ends_with_0_only_if_nothing_is_missing(path, tmp_path):
    done = doctor(path, "--part", "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "nothing is missing"
    done = doctor(path, "--set", f"root={tmp_path}", "--part", "run", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["ok"], report["missing"]) == (3, False, 4)


def test_the_benchmarks_alone(path):
    done = doctor(path, "--part", "benchmarks", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert {f["name"] for f in findings if f["part"] == "jsonl"} == {"paths", "rows", "images"}
    assert not {f["part"] for f in findings} & {"run", "models", "inputs"}


def test_a_wrong_call_is_one_sentence(path, tmp_path):
    for done in (doctor(tmp_path / "none.yaml"), doctor(path, "--part", "half")):
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
