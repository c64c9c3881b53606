"""jobs.evaluate on a real local Ray: every arm is asked, scored as the library scores, and the same after kill -9.

After our own questions come those of every published benchmark.
"""

import itertools
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from support.published import GOLD, write_published
from support.tiny import png
from support.tiny_clip import write_clip
from support.tiny_run import write_memory_stage, write_run

from comem_ray.artifacts import load_manifest
from comem_ray.config import Config, ConfigError, EvaluationConfig, EvaluationSourceConfig, load_config
from comem_ray.evaluation.aggregation import compute_figures
from comem_ray.evaluation.evaluator import Evaluator
from comem_ray.evaluation.figures import EvaluationFigures
from comem_ray.evaluation.predictions import PREDICTION_SCHEMA, TIMES_SCHEMA
from comem_ray.evaluation.questions import read_questions, with_image, write_questions
from comem_ray.evaluation.sources import read_source
from comem_ray.report.evaluation import write_report
from comem_ray.report.markdown import markdown
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageReader
from comem_ray.tasks.scorecard import scorecard
from comem_ray.tasks.task import TaskFiles
from jobs.evaluate import finished_evaluation, section

COUNT = 9
FIRST = dict(zip(GOLD, ("a1", 70, "q0", "v1"), strict=True))  # the first question of each
ARMS = 1 + 2 * 2 + 2 * 2


@pytest.fixture(scope="module")
def world(make_config, tmp_path_factory) -> Config:
    """Nine questions over 14 items; the gold of every second one is the backbone's own answer in mode memory."""
    home = tmp_path_factory.mktemp("evaluation")
    evaluation = {
        "questions": str(home / "questions.parquet"),
        "k": [1, 2],
        "gold_positions": [1, 2],
        "batch": 4,
        "timed": 2,
    }
    evaluation |= {"questions_per_unit": 3, "workers": {"cpus": 0.5}}
    clip, _ = write_clip(home)
    reasoner = {"max_new_tokens": 5}
    config = make_config(root=str(home / "run"), clip=clip, evaluation=evaluation, reasoner=reasoner)
    ids = write_run(config, [9, 5])
    write_memory_stage(config)
    questions = [question(i, ids[i], ["nothing"]) for i in range(COUNT)] + published(home)
    answers = {r["data_id"]: r["prediction"] for r in in_units(config, questions) if r["arm"] == "memory, k=1"}
    ours = [question(i, ids[i], [answers[f"q{i}"]] if i % 2 else ["nothing"]) for i in range(COUNT)]
    write_questions(home / "questions.parquet", ours)
    sources = write_published(home / "published", {b: answers[f"{b}/{first}"] for b, first in FIRST.items()})
    return config.model_copy(update={"evaluation": EvaluationConfig.model_validate(evaluation | {"sources": sources})})


def published(home: Path) -> list[Example]:
    sources = [EvaluationSourceConfig(**source) for source in write_published(home / "published")]
    return [with_image(q, ImageReader(), 10**6) for source in sources for q in read_source(source).questions]


def question(i: int, item_id: str, gold: list[str]) -> Example:
    return Example(f"q{i}", f"What is {i}?", png(i), "exact", gold, "en", [item_id], {"parity": str(i % 2)})


def in_units(config: Config, questions: list[Example]) -> list[dict]:
    torch.set_num_threads(1)
    evaluator = Evaluator(config, config.evaluation)
    return [r for s in range(0, len(questions), 3) for r in evaluator.predictions(questions[s : s + 3])]


def run_file(config: Config, name: str) -> Path:
    """The configuration of another run over the same items, index and memory."""
    root = Path(config.root).parent / name
    root.mkdir()
    for stage in ("items", "index", "memory"):
        (root / stage).symlink_to(Path(config.root) / stage)
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump({**config.model_dump(mode="json"), "root": str(root)}))
    return path


@pytest.fixture(scope="module")
def uninterrupted(world, start_job):
    path = run_file(world, "whole")
    return path.parent / "evaluation", start_job("jobs.evaluate", path, "--k", "1,2").finish()


def predictions(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("part-*.parquet"))}


def without_times(folder: Path) -> str:
    """The page without the last two columns of its table of arms, which hold what was measured."""
    page = (folder / "report.html").read_text()
    table = re.search(r"<caption>Every arm</caption>.*?</table>", page, re.DOTALL)
    assert table
    rows = re.sub(r"(<td>[\d.,]+</td>){2}</tr>", "</tr>", table[0])
    assert rows.count("\n") == table[0].count("\n") > ARMS
    return page.replace(table[0], rows)


def report_again(config: Config) -> None:
    path = config.folder("evaluation") / "report.html"
    write_report(path, f"Evaluation of {config.name}", [finished_evaluation(config)])


def test_every_arm_is_asked_and_scored(world, uninterrupted):
    folder, output = uninterrupted
    rows = [r for p in sorted(folder.glob("part-*.parquet")) for r in pq.read_table(p).to_pylist()]
    rows = [r for r in rows if "/" not in r["data_id"]]
    assert len(rows) == COUNT * ARMS
    report = json.loads((folder / "report.json").read_text())
    assert len(report["arms"]) == ARMS
    memory = report["arms"]["memory, k=1"]
    assert [memory[name] for name in ("mode", "k", "gold_position", "knowledge")] == ["memory", 1, None, 14]
    assert report["memory_store"]["items"] == 14
    assert report["memory_store"]["bytes_per_item"] > 8 * 64 * 2
    assert memory["groups"]["parity"]["1"] == {"score": 100.0, "low": 51.01, "high": 100.0, "n": 4}
    assert (memory["memory_vectors"], report["arms"]["rag, k=1"]["memory_vectors"]) == (8, 0)
    assert report["arms"]["rag, k=2"]["prompt_tokens"] > report["arms"]["rag, k=1"]["prompt_tokens"] + 20
    assert memory["first_token_ms"] > 0
    # Ours, and the questions about entities that have an item.
    assert report["recall"]["@1"]["n"] == COUNT + 1 + 4 + 1
    for row in rows:
        if row["gold_position"] is not None:
            assert (
                row["item_ids"][row["gold_position"] - 1]
                == pq.read_table(world.evaluation.questions).to_pylist()[int(row["data_id"][1:])]["gold_items"][0]
            )
    assert EvaluationFigures.from_json(report).to_json() == report
    assert "memory, k=1, %" in output
    shards = {shard.logical_name: folder / shard.name for shard in load_manifest(folder, "evaluate").shards()}
    assert pq.read_schema(shards["part-000000.parquet"]).equals(PREDICTION_SCHEMA)
    assert pq.read_schema(shards["times.parquet"]).equals(TIMES_SCHEMA)
    lines = (folder.parent / "predictions" / "memory-k-1.jsonl").read_text().splitlines()
    wanted = [{"data_id": r["data_id"], "prediction": r["prediction"]} for r in rows if r["arm"] == "memory, k=1"]
    assert [json.loads(line) for line in lines] == wanted
    assert "| memory, k=1 |" in (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    assert page.count('<article class="card"') == report["questions"]
    assert "random weights of seed 0" in page
    assert "<caption>infoseek, by its own rule</caption>" in page
    assert "jsonl/p2 (image_missing)" in page
    assert str(folder.parent.parent) not in page  # names of files, no paths


def test_published_benchmarks_are_scored_by_their_own_rules(world, uninterrupted):
    """The official figures of the report are those that `comem score` gives for the files of predictions."""
    folder, _ = uninterrupted
    report = json.loads((folder / "report.json").read_text())
    assert list(report["sources"]) == sorted(source.label for source in world.evaluation.sources)
    for source in world.evaluation.sources:
        found = report["sources"][source.label]
        if source.task == "jsonl" or found["rejected"]["count"]:
            continue
        files = [Path(path) for path in [*source.paths, *source.references] if "*" not in path]
        files += [path for name in source.paths if "*" in name for path in Path(name).parent.glob(Path(name).name)]
        predictions_file = folder.parent / "predictions" / source.label / "memory-k-1.jsonl"
        types, titles = (path and Path(path) for path in (source.question_types, source.titles))
        summary = scorecard(source.task, TaskFiles(sorted(files), (), types, None, titles), predictions_file).summary
        assert found["official"]["memory, k=1"] == summary | {"left_out": 0}
        assert (found["questions"], found["left_out"]) == (summary["n"], summary["left_out"])
    for label in FIRST:
        assert report["sources"][label]["official"]["memory, k=1"]["overall"] > 0
    assert report["sources"]["infoseek"]["official"]["memory, k=1"]["per_split"]["val_unseen_question"]["score"] == 50
    assert report["sources"]["coco"]["official"]["none"]["metrics"].keys() >= {"CIDEr", "BLEU-4", "ROUGE-L"}
    markdown = (folder / "report.md").read_text()
    assert "### oven" in markdown
    for start in (
        "| InfoSeek, unseen question | memory | 32.6 |",
        "| CVQA | none | 66.1 |",
        "| OVEN, query | rag | 24.7 |",
    ):
        assert f"\n{start}" in markdown


def test_what_could_not_be_asked_is_counted(world, uninterrupted):
    folder, output = uninterrupted
    report = json.loads((folder / "report.json").read_text())
    ids = {row["data_id"]: row["reason"] for row in report["missing_images"]["first"]}
    assert ids == {"infoseek/a3": "image_missing", "mrag/1": "image_truncated", "jsonl/p2": "image_missing"}
    assert report["missing_images"]["count"] == 3
    assert report["rejected"]["count"] == 3
    assert report["arms"]["none"]["unanswered"] == {"image_missing": 2, "image_truncated": 1}
    assert report["questions"] == report["arms"]["none"]["n"]  # they count, as wrong
    assert report["sources"]["infoseek"]["official"]["none"]["missing"] == 1
    for line in ("missing images +3", "rejected rows +3", "left out +2"):
        assert re.search(line, output)


def test_knowledge_sizes_and_long_prompts(world):
    """A smaller knowledge base is a subset of a larger one; a prompt that is too long is a fault of its row alone."""
    changed = {
        "modes": ["none", "rag", "memory"],
        "k": [1, 3],
        "gold_positions": [],
        "knowledge_sizes": [10, "all", 12],
    }
    longest = world.reasoner.model_copy(update={"max_prompt_tokens": 150})
    config = world.model_copy(update={"evaluation": world.evaluation.model_copy(update=changed), "reasoner": longest})
    questions = [with_image(q, ImageReader(), 10**6) for q in read_questions(Path(world.evaluation.questions))][:3]
    right = {i for q in read_questions(Path(world.evaluation.questions)) for i in q.gold_items}
    evaluator = Evaluator(config, config.evaluation, gold_items=right)
    rows = evaluator.predictions(questions)
    assert {(r["arm"], r["knowledge"]) for r in rows if r["k"] != 1} == {
        ("none", 0),
        *((f"{mode}, k=3, {n} items", {"all": 14}.get(n, n)) for mode in ("rag", "memory") for n in (10, "all", 12)),
    }
    found = {
        (r["data_id"], r["arm"].split(", ")[-1]): r["item_ids"] for r in rows if r["mode"] == "memory" and r["k"] == 3
    }
    for question in questions:
        every = evaluator._retrieve(questions)
        deep = [every[n][question.data_id] for n in (10, 12, "all")]
        assert found[question.data_id, "10 items"] == deep[0][:3]
        for less, more in itertools.pairwise(deep):  # as many of the larger as are in the smaller, in the same order
            assert [i for i in more if i in less] == [i for i in less if i in more]
    long = [r for r in rows if r["fault"]]
    assert {(r["mode"], r["k"], r["fault"], r["score"], r["prediction"]) for r in long} == {
        ("rag", 3, "prompt_too_long", 0.0, "")
    }
    assert evaluator.times(questions[:1])
    figures = compute_figures(questions, rows, [], [1, 3])
    assert figures.arms["rag, k=3, 10 items"].unanswered == {"prompt_too_long": 3}
    assert list(figures.recall_by_knowledge) == [14, 12, 10]
    assert figures.recall == figures.recall_by_knowledge[14]
    assert "| 3 of 14 |" in markdown(figures)
    with pytest.raises(ConfigError, match=r"knowledge_sizes: 8, want 9 .* to 14"):
        evaluator._knowledge.subset(8)


def test_killed_then_rerun_equals_uninterrupted(world, uninterrupted, start_job):
    path = run_file(world, "killed")
    folder = path.parent / "evaluation"
    job = start_job("jobs.evaluate", path)
    job.wait_for(lambda: list((folder / "records").glob("*.json")))
    job.kill()
    assert not (folder / "report.json").exists()
    start_job("jobs.evaluate", path).finish()
    assert predictions(folder) == predictions(uninterrupted[0])
    assert without_times(folder) == without_times(uninterrupted[0])
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    report_again(load_config(path))
    assert (folder / "report.html").read_bytes() == page  # the times that were taken stay


def test_what_is_missing_is_named(world):
    for evaluation in (None, EvaluationConfig()):
        with pytest.raises(ConfigError, match="field evaluation"):
            section(world.model_copy(update={"evaluation": evaluation}))
