"""The files of every task, tiny and in their authors' form."""

import hashlib
from pathlib import Path

import pytest
from support.published import write_published

from comem_ray.config import EvaluationSourceConfig
from comem_ray.doctor.benchmarks import check_benchmarks, check_source
from comem_ray.doctor.finding import Finding
from comem_ray.tasks import TASK_NAMES


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, EvaluationSourceConfig]:
    made = [EvaluationSourceConfig(**source) for source in write_published(tmp_path_factory.mktemp("published"))]
    return {source.label: source for source in made}


def check(source: EvaluationSourceConfig, **changes) -> dict[str, Finding]:
    """The last finding of each name."""
    return {finding.name: finding for finding in check_source(source.model_copy(update=changes), {})}


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_task_has_its_files_looked_at(published, task):
    source = published[task]
    findings = check(source)
    assert findings["paths"].status == "ok"
    path = Path(findings["paths"].facts["path"])
    assert findings["paths"].facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "no published checksum" in findings["paths"].detail
    facts = findings["rows"].facts
    assert facts["rows"] == facts["questions"] + facts["rejected"] + facts["left_out"] > 0
    images = findings["images"].facts
    assert 0 <= images["present"] <= images["named"] <= facts["questions"]
    assert (findings["images"].status == "ok") == (images["present"] == images["named"])


def test_fewer_rows_than_documented_are_missing(published, tmp_path):
    source = published["infoseek"]
    findings = check(source)
    assert findings["rows"].status == "missing"
    assert "its authors document 73,620" in findings["rows"].detail
    (tmp_path / "mine.jsonl").write_bytes(Path(source.paths[0]).read_bytes())
    own = check(
        source, paths=[str(tmp_path / "mine.jsonl")], images=source.images or [str(Path(source.paths[0]).parent)]
    )
    assert own["rows"].status == "ok"


def test_a_limit_does_not_hide_what_is_missing(published):
    assert check(published["infoseek"], limit=1)["rows"].facts == check(published["infoseek"])["rows"].facts


def test_missing_files_are_named_with_where_they_come_from(published, tmp_path):
    changes = {"question_types": str(tmp_path / "types.jsonl"), "images": [str(tmp_path / "none")]}
    findings = check(published["infoseek"], **changes)
    assert {name: f.status for name, f in findings.items() if f.is_fault} == {
        "question_types": "missing",
        "images": "missing",
    }
    assert "https://github.com/open-vision-language/infoseek" in findings["origin"].detail
    assert "rows" not in findings


def test_missing_images_are_counted_and_the_first_is_named(published, tmp_path):
    findings = check(published["infoseek"], images=[str(tmp_path)])
    assert findings["images"].status == "missing"
    assert findings["images"].facts["present"] == 0
    assert "the first that is not is of question infoseek/" in findings["images"].detail


def test_a_file_of_another_kind_is_wrong(published, tmp_path):
    (tmp_path / "a.json").write_text("{")
    findings = check(published["aokvqa"], paths=[str(tmp_path / "a.json")], images=[str(tmp_path)])
    assert findings["questions"].status == "wrong"
    assert "aokvqa" in findings["questions"].detail


def test_benchmarks_that_are_not_configured_are_notes(published, make_config, tmp_path):
    config = make_config(evaluation={"sources": [published["okvqa"].model_dump()], "questions": str(tmp_path / "q")})
    findings = list(check_benchmarks(config))
    notes = {f.part for f in findings if f.name == "not configured"}
    assert notes == set(TASK_NAMES) - {"okvqa", "jsonl"}
    assert not any(f.is_fault for f in findings if f.part in notes)
    assert findings[0].status == "missing"
    (tmp_path / "q").write_text("questions")
    assert next(check_benchmarks(config)).status == "ok"
