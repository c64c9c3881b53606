"""The front door: one call answers, and every part of the chain agrees with the parts it is made of."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from support.tiny import item_row, png
from support.tiny_clip import write_clip
from support.tiny_run import write_memory_stage, write_run
from typer.testing import CliRunner

import comem_ray
from comem_ray import Answer, Pipeline, Question
from comem_ray.artifacts import ArtifactError
from comem_ray.cli import app
from comem_ray.config import Config
from comem_ray.knowledge.items import UnknownItem
from comem_ray.memory_store import stack_memory
from comem_ray.model.reasoner import Prompt, PromptTooLong, make_prompt

ITEMS = [6, 5]
ASK = "Which number is this?"


@pytest.fixture(scope="module")
def config(make_config, tmp_path_factory) -> Config:
    home = tmp_path_factory.mktemp("pipeline")
    clip, _ = write_clip(home)
    config = make_config(
        root=str(home / "run"),
        clip={**clip, "batch_size": 16},
        index={"recall_queries": 5},
        memory={"languages": ["en", "de"]},
        retrieval={"top_k": 3},
    )
    write_run(config, ITEMS)
    write_memory_stage(config)
    return config


@pytest.fixture(scope="module")
def path(config: Config, tmp_path_factory) -> Path:
    """The same configuration as a file."""
    path = tmp_path_factory.mktemp("file") / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def comem(path: Path) -> Pipeline:
    return comem_ray.load(path)


@pytest.mark.parametrize("stage", ["items", "index", "memory"])
def test_stages_that_do_not_belong_together_are_refused_with_both_fingerprints(
    config: Config, tmp_path: Path, stage: str
) -> None:
    """An index of 11 items beside 4, and the reverse; the memory of other items."""
    shutil.copytree(config.folder("items").parent, tmp_path / "run")
    other = config.model_copy(update={"root": str(tmp_path / "other")})
    write_run(other, [4])
    write_memory_stage(other)
    shutil.rmtree(tmp_path / "run" / stage)
    shutil.copytree(other.folder(stage), tmp_path / "run" / stage)
    with pytest.raises(ArtifactError, match=r"/ was made from items/ [0-9a-f]{12}, but items/ is [0-9a-f]{12} now"):
        comem_ray.load(config.model_copy(update={"root": str(tmp_path / "run")}))


def test_a_pipeline_that_is_open_keeps_its_generation_while_everything_is_made_again(
    config: Config, tmp_path: Path
) -> None:
    shutil.copytree(config.folder("items").parent, tmp_path / "run")
    config = config.model_copy(update={"root": str(tmp_path / "run")})
    comem = comem_ray.load(config)
    ids = [item_row(i)["item_id"] for i in range(sum(ITEMS))]
    before = comem.memory(ids), comem.retrieve(image(4), k=5), comem.answer(ASK, image(4)).text
    generations = dict(comem.generations)
    write_run(config, [7, 5], first=[900])  # every item stands in another row now
    write_memory_stage(config)
    assert torch.equal(comem.memory(ids), before[0])
    assert (comem.retrieve(image(4), k=5), comem.answer(ASK, image(4)).text) == before[1:]
    assert comem.generations == generations
    assert all(now != generations[name] for name, now in comem_ray.load(config).generations.items())


def image(i: int) -> bytes:
    """The image of item number `i`, to which that item is the nearest."""
    return item_row(i)["image"]


def test_an_answer_comes_with_its_sources_usage_and_timings(comem: Pipeline) -> None:
    answer = comem.answer(ASK, image(4), k=2)
    assert isinstance(answer.text, str)
    assert answer.sources[0].item_id == item_row(4)["item_id"]
    assert (answer.sources[0].title, answer.sources[0].text) == (item_row(4)["title"], item_row(4)["text"])
    assert answer.sources[0].score > answer.sources[1].score
    assert answer.sources[0].image is None
    assert answer.usage.memory_vectors == 2 * 8
    assert answer.timings_ms.keys() == {"retrieve", "memory", "answer", "items", "total"}


def test_an_image_is_a_path_bytes_or_a_pil_image(comem: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(4))
    answers = [comem.answer(ASK, given) for given in (image(4), tmp_path / "a.png", str(tmp_path / "a.png"))]
    with Image.open(tmp_path / "a.png") as opened:
        answers.append(comem.answer(ASK, opened))
    assert {a.text for a in answers} == {answers[0].text}
    assert {tuple(a.sources) for a in answers} == {tuple(answers[0].sources)}


@pytest.mark.parametrize("mode", ["none", "rag", "memory"])
def test_a_mode_puts_its_own_before_the_question(comem: Pipeline, mode) -> None:
    answer = comem.answer(ASK, image(3), mode=mode)
    assert len(answer.sources) == (0 if mode == "none" else 3)
    assert answer.usage.memory_vectors == (3 * 8 if mode == "memory" else 0)
    alone = comem.answer(ASK, image(3), mode="none").usage.prompt_tokens
    assert (answer.usage.prompt_tokens > alone) == (mode == "rag")


def test_it_is_the_chain_of_its_parts(comem: Pipeline) -> None:
    sources = comem.retrieve(image=image(3), k=3)
    answer = comem.answer(ASK, image(3))
    assert answer.sources == sources
    memory = comem.memory([s.item_id for s in sources])
    with Image.open(BytesIO(image(3))) as opened:
        prompt = Prompt(ASK, opened.convert("RGB"), "memory", memory=memory)
        assert comem.reasoner.answer([prompt])[0].text == answer.text


def test_a_batch_answers_as_one_by_one(comem: Pipeline) -> None:
    questions = [
        Question(ASK, image(1)),
        Question(ASK, image(2), "rag", k=1),
        Question(ASK, None, "none", max_new_tokens=3),
        Question(ASK, image(5), language="de", k=1),
    ]
    together = comem.answer_batch(questions)
    alone = [comem.answer(q.text, q.image, q.mode, q.k, q.language, q.max_new_tokens) for q in questions]
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.sources for a in together] == [a.sources for a in alone]
    assert [a.usage for a in together] == [a.usage for a in alone]


def test_no_question_has_no_answer_and_no_items_are_refused(comem: Pipeline) -> None:
    assert comem.answer_batch([]) == []
    with pytest.raises(ValueError, match="k must be 1 at least, got 0"):
        comem.retrieve(image=image(3), k=0)


def test_a_stream_says_the_same_piece_by_piece(comem: Pipeline) -> None:
    stream = comem.stream(ASK, image(3))
    with pytest.raises(RuntimeError, match="take all pieces"):
        _ = stream.answer
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == comem.answer(ASK, image(3)).text
    assert isinstance(stream.answer, Answer)
    assert len(stream.answer.sources) == 3


def test_memory_is_the_stores_and_what_it_lacks_is_encoded(comem: Pipeline) -> None:
    ids = [item_row(i)["item_id"] for i in (2, 0, 5)]  # number 2 and 5 are Spanish, which the store leaves out
    memory = comem.memory(ids)
    assert (memory.shape, memory.dtype) == ((3, 8, 64), torch.bfloat16)
    assert comem.store is not None
    assert comem.store.missing(ids) == [ids[0], ids[2]]
    assert torch.equal(memory[1], comem.store.get([ids[1]])[0])
    assert comem.encoder is not None
    assert torch.equal(memory[[0, 2]], comem.encoder.encode(comem.contents([ids[0], ids[2]])))
    with pytest.raises(UnknownItem):
        comem.memory(["f" * 24])


def test_retrieval_is_by_what_is_given(comem: Pipeline) -> None:
    assert comem.retrieve(image=image(7), k=1)[0].item_id == item_row(7)["item_id"]
    by_text = comem.retrieve(text=item_row(7)["text"], k=1, images=True)[0]
    assert (by_text.item_id, by_text.image) == (item_row(7)["item_id"], image(7))
    assert comem.retrieve(image(7), item_row(7)["text"], k=2)[0].item_id == item_row(7)["item_id"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("  ", b"x"), "image"),
        (Question(" ", None, "none"), "the question is empty"),
        (Question(ASK), "give an image, or use mode 'none'"),
        (Question(ASK, png(1), "all"), "none, rag, memory"),  # type: ignore[arg-type]
        (Question(ASK, png(1), k=0), "k is 0, want 1 or more"),
        (Question(ASK, png(1), language="xx"), "no knowledge item is in language 'xx'"),
        (Question(ASK, b"GIF"), "image"),
    ],
)
def test_a_wrong_question_is_refused_with_a_reason(comem: Pipeline, question: Question, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comem.answer_batch([question])


def test_a_prompt_that_is_too_long_is_said_and_hurts_no_other(comem: Pipeline) -> None:
    prompts = [Prompt("short"), Prompt("long " * 2000), Prompt("short too")]
    completions = comem.reasoner.answer_each(prompts)
    assert isinstance(completions[1], PromptTooLong)
    want = comem.reasoner.answer([prompts[0], prompts[2]])
    assert [completions[0], completions[2]] == want


def test_where_a_mode_has_nothing_to_put_the_question_stands_alone() -> None:
    for mode in ("none", "rag", "memory"):
        assert make_prompt(ASK, None, mode).mode == "none"  # type: ignore[arg-type]


def test_memory_is_stacked_in_the_order_of_the_ids() -> None:
    a, b, other = torch.zeros(2, 3), torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert torch.equal(stack_memory(["b", "a"], {"a": a}, {"b": b, "a": other}), torch.stack([b, a]))
    assert len(stack_memory([])) == 0


def test_comem_ask_answers_without_a_server(path: Path, comem: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(image(4))
    words = ["ask", ASK, "--config", str(path), "--image", str(tmp_path / "q.png"), "--top-k", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    answer = comem.answer(ASK, image(4), k=2)
    assert repr(answer.text.strip()) in done.output
    assert item_row(4)["title"] in done.output
    wrong = CliRunner().invoke(app, [*words[:-2], "--mode", "all"])
    assert wrong.exit_code == 2
    assert "none, rag, memory" in wrong.output


def test_importing_the_package_takes_under_a_second_and_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import comem_ray; took = time.perf_counter() - start;"
        "print(took < 1, {'torch', 'ray', 'transformers', 'pydantic'} & set(sys.modules), sorted(comem_ray.__all__)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set() Answer"


def test_the_readmes_five_lines_of_python_run(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    _, _, block = readme.partition("```python\n")
    code = block.partition("```")[0]
    (tmp_path / "q.png").write_bytes(image(4))
    replaced = {"configs/demo.yaml": str(path), "runs/demo/questions/DEU.png": str(tmp_path / "q.png")}
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, "README.md", "exec"), {})
    assert item_row(4)["title"] in capsys.readouterr().out
    assert len(ast.parse(code).body) == 5


def test_every_public_call_in_ten_lines(path: Path) -> None:
    comem = comem_ray.load(path)
    answer = comem.answer(ASK, image(4), mode="memory", k=2)
    rag, none = comem.answer_batch([Question(ASK, image(4), "rag", k=2), Question(ASK, mode="none")])
    text = "".join(comem.stream(ASK, image(4), k=2))
    sources = comem.retrieve(image=image(4), k=2, images=True)
    memory = comem.memory([source.item_id for source in sources])
    assert text == answer.text
    assert [s.item_id for s in sources] == [s.item_id for s in answer.sources] == [s.item_id for s in rag.sources]
    assert none.sources == []
    assert memory.shape == (2, 8, 64)
