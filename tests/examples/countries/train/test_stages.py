"""The whole chain at its small size, its invariants, and going on after a stop."""

import json
import random
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from comem_ray.model.adapter import attach_adapter
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Prompt, Reasoner
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.base import Base, LessonLoss, batch_of, train_base
from examples.countries.train.base_lora import add_base_lora
from examples.countries.train.compiled import compile_layers
from examples.countries.train.image_tokens import view_image
from examples.countries.train.lessons import Draw, Lesson, Lessons
from examples.countries.train.reading import READ, _memory, learn_to_read
from examples.countries.train.stages import STAGES, Run
from examples.countries.train.states import states_of
from examples.countries.train.steps import Plan
from examples.countries.train.tower import tower_maps
from examples.countries.train.warmup import ADAPTER, warm_up
from examples.countries.world.questions import ASKED, FACTS, sentence


def loaded(run: Run, *names: str):
    """The backbone with the trained parts, and the same reading images from the cache, and the codebook."""
    backbone = run._load(run._backbone(*names))
    return backbone, *run._seen(backbone)


def test_it_leaves_what_it_says_and_skips_what_is_finished(finished: Run) -> None:
    made = [finished.weights / TOWER, finished.weights / BASE_LORA, finished.out / "source" / "countries.tsv"]
    made += [finished.out / READ, finished.out / ADAPTER / "qformer.safetensors"]
    before = [path.stat().st_mtime_ns for path in made]
    for name in STAGES[:5]:
        finished.stage(name)
    assert [path.stat().st_mtime_ns for path in made] == before
    folders = {"vision": finished.weights, "base": finished.weights, "reading": finished.out, "warmup": finished.out}
    for stage, folder in folders.items():
        lines = (folder / f"{stage}.metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["loss"] > 0


def test_a_stage_without_the_one_before_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks tower\.safetensors"):
        Run(tmp_path, sizes="small").stage("base")
    with pytest.raises(ValueError, match=r"lacks reading\.qformer\.safetensors"):
        Run(tmp_path, sizes="small").stage("warmup")


def test_other_numbers_of_steps(tmp_path: Path) -> None:
    sizes = Run(tmp_path, sizes="small", steps={"base": 7}).sizes
    assert (sizes.base.plan.steps, sizes.vision.plan.steps) == (7, 6)
    with pytest.raises(ValueError, match="'samples' has no steps"):
        Run(tmp_path, steps={"samples": 7})


def test_sequences_and_inputs_are_those_of_the_reasoner_on_images(finished: Run) -> None:
    backbone, seen, book = loaded(finished, TOWER)
    config, sizes = finished.config(), finished.sizes
    loss = LessonLoss(config, seen, book, sizes.base)
    reasoner, maps = Reasoner(config, backbone=backbone), tower_maps(sizes.vision.maps)
    shown = lambda s: view_image(maps[s.map], s)  # noqa: E731
    lessons = finished.lessons(seen).get(random.Random(0), Draw(2, 0.5, 0.0), 3)
    for mode in ("rag", "memory"):
        cached = loss.questions(mode, lessons, torch.Generator().manual_seed(0))
        real = [
            Prompt(q.text, shown(q.image), q.mode, items=[(text, shown(s)) for text, s in q.items], memory=q.memory)
            for q in cached
        ]
        ours, theirs = [loss.reasoner.sequence(q) for q in cached], [reasoner.sequence(q) for q in real]
        assert [(s.ids, s.grids, s.memory) for s in ours] == [(s.ids, s.grids, s.memory) for s in theirs]
        (batch, embeds), (real_batch, real_embeds) = loss.reasoner.inputs(cached, ours), reasoner.inputs(real, theirs)
        torch.testing.assert_close(embeds, real_embeds, atol=0.15, rtol=0.02)  # the cache is bf16, tokens are loud
        assert torch.equal(seen.positions(batch), backbone.positions(real_batch))


def test_targets_point_at_the_name_and_at_the_fact(finished: Run) -> None:
    _, seen, book = loaded(finished, TOWER)
    loss = LessonLoss(finished.config(), seen, book, finished.sizes.base)
    tokenizer = AutoTokenizer.from_pretrained(finished._backbone(TOWER))
    for number in range(6):
        for lesson in chain(*batch_of(number, finished.lessons(seen), finished.sizes.base)[1]):
            target = loss.target(lesson)
            assert tokenizer.decode(target.ids[target.name :]).startswith(f" {lesson.country.name}")
            assert tokenizer.decode(target.ids[: target.fact]) == lesson.before_fact()
            assert target.weights[target.name] == (
                6.0 if len(lesson.items) > 1 else max(target.weights[target.name], 1)
            )
            assert lesson.images[lesson.right].map == lesson.image.map
            assert lesson.images[lesson.right].view != lesson.image.view


def test_the_images_of_questions_say_the_names_and_a_drill_all_facts(finished: Run) -> None:
    _, seen, book = loaded(finished, TOWER)
    loss, lessons = LessonLoss(finished.config(), seen, book, finished.sizes.base), finished.lessons(seen)
    tokenizer, image = AutoTokenizer.from_pretrained(finished._backbone(TOWER)), seen.sequencer.image_token_id
    for kind, items, count in (("memory", 3, 4), ("rag", 2, 4), ("pick", 3, 4), ("read", 1, 1)):
        group = lessons.get(random.Random(kind), Draw(items, 0.5, 0.0), count)
        (pack,) = loss.packs(kind, [group], 0)
        places, ids, weights = pack.to_say(0.5)
        answers = sum(len(t.ids) for t in pack.targets)
        said = tokenizer.decode(ids[:answers])
        for number, (lesson, own) in enumerate(zip(group, pack.seen, strict=True)):
            assert len(own) == (0 if kind == "read" else 4)  # of the 12 tokens of the question's image
            assert all(pack.packed.sequence.ids[p - pack.packed.sequence.memory] == image for p in own)
            assert all(pack.packed.branches[p] == number for p in own)  # its own image, not that of an item
            wanted = FACTS if kind == "read" else [lesson.fact]
            assert all(sentence(lesson.country, fact) in said for fact in wanted if fact in (*ASKED, lesson.fact))
        names = [t.ids[t.name] for t in pack.targets for _ in range(4)]
        assert ids[answers:] == (names if kind != "read" else [])
        assert sum(weights[answers:]) == pytest.approx(0.5 * 6 * count if items > 1 else 0)
        whole = [None] * pack.packed.sequence.memory + pack.packed.sequence.ids
        assert [whole[p + 1] for p in places[:answers]] == ids[:answers]


def test_drills_come_first(finished: Run) -> None:
    sizes = replace(Base(), plan=Plan(steps=200, learning_rate=1e-3))
    lessons = finished.lessons(loaded(finished, TOWER)[1])
    kinds = [batch_of(number, lessons, sizes)[0] for number in range(200)]
    assert set(kinds[:50]) == {"read", "pick", "rag"}
    assert set(kinds[50:]) == {"memory", "rag"}


@pytest.mark.parametrize("mode", ["rag", "memory", "pick", "read"])
def test_questions_read_in_one_sequence_have_the_gradients_of_each_on_its_own(finished: Run, mode: str) -> None:
    backbone, seen, book = loaded(finished, TOWER)
    sizes = replace(finished.sizes.base, noise=(0.0, 0.0))
    parameters = add_base_lora(backbone.model, sizes.rank, 0)
    loss = LessonLoss(finished.config(), seen, book, sizes)
    lessons, several = finished.lessons(seen), mode != "read"
    sets = [(Draw(k, 0.5, 0.3), 4) if several else (Draw(1, 0.5, 0.3), 1) for k in (1, 3, 2)]
    groups = [lessons.get(random.Random(n), draw, count) for n, (draw, count) in enumerate(sets)]

    def gradients(some: list[list[Lesson]]) -> tuple[dict[str, float], dict[str, Tensor]]:
        backbone.model.zero_grad()
        figures = loss.backward(mode, loss.packs(mode, some, 0))
        return figures, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}

    for p in parameters.values():
        torch.nn.init.normal_(p, std=0.05)  # a LoRA that acts, so that A has gradients too
    (together, packed), (apart, single) = gradients(groups), gradients([[x] for group in groups for x in group])
    assert together["loss"] == pytest.approx(apart["loss"], rel=1e-4)
    share = {"rag": 0.8, "memory": 0.8, "pick": 0.9, "read": 1.01}[mode]  # a question of `read` has nothing to share
    assert together["tokens"] < share * apart["tokens"]
    assert packed.keys() == single.keys() == parameters.keys()
    for name, gradient in single.items():
        torch.testing.assert_close(packed[name], gradient, atol=1e-5, rtol=1e-3)


def test_base_merged_equals_base_with_the_lora_applied(finished: Run) -> None:
    plain, merged = loaded(finished, TOWER)[0], loaded(finished, TOWER, BASE_LORA)[0]
    ids = torch.randint(0, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        without = plain.model(input_ids=ids).logits
        parameters = add_base_lora(plain.model, finished.sizes.base.rank, 0)
        torch.testing.assert_close(plain.model(input_ids=ids).logits, without)  # B = 0
        for name, weight in load_file(finished.weights / BASE_LORA).items():
            parameters[name].copy_(weight)
        applied = plain.model(input_ids=ids).logits
        assert (applied - without).abs().max() > 1e-3
        torch.testing.assert_close(merged.model(input_ids=ids).logits, applied, atol=1e-4, rtol=1e-4)


def test_base_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    (fork.weights / BASE_LORA).unlink()
    (fork.weights / "base.checkpoint.safetensors").unlink()
    for stop, workers in ((2, 2), (None, 0)):  # which process makes the lessons does not matter either
        _, seen, book = loaded(fork, TOWER)
        sizes, tower = fork.sizes.base, fork.tower_digest()
        train_base(seen, fork.lessons(seen), book, fork.config(), fork.weights, sizes, tower, stop, workers)
        assert (fork.weights / BASE_LORA).exists() == (stop is None)
    whole, resumed = (load_file(run.weights / BASE_LORA) for run in (finished, fork))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_states_are_what_the_encoder_reads_without_its_lora(finished: Run, tmp_path: Path) -> None:
    _, seen, _ = loaded(finished, TOWER, BASE_LORA)
    rng, lessons = random.Random(0), finished.lessons(seen)
    items = [lessons.item(rng) for _ in range(5)]
    read = states_of(seen, items, 300, tmp_path / "states.safetensors")
    assert len({len(h) for h in read.hidden}) > 1
    encoder = MemoryEncoder(finished.config(), backbone=seen)
    for hidden, sequence, (_, text, image) in zip(read.hidden, read.sequences, items, strict=True):
        assert sequence.ids == encoder.sequence(text, image).ids
        batch = seen.sequencer.batch([sequence], padding="right")
        with torch.no_grad():
            alone = seen.hidden_states(batch, seen.embed(batch, seen.image_features(batch)))[0]
        torch.testing.assert_close(hidden, alone, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        together = _memory(encoder.adapter.qformer, read.hidden)
        memory = encoder.forward(read.sequences)  # its LoRA is on, but B = 0
    torch.testing.assert_close(together, memory, atol=1e-3, rtol=1e-3)
    kept = states_of(seen, items, 300, tmp_path / "states.safetensors")  # now from the file
    assert all(torch.equal(a, b) for a, b in zip(kept.hidden, read.hidden, strict=True))


def test_reading_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    (fork.out / READ).unlink()
    fingerprint = checkpoint_fingerprint(fork.merged())
    for stop in (2, None):
        _, seen, book = loaded(fork, TOWER, BASE_LORA)
        sizes = fork.sizes.reading
        learn_to_read(seen, fork.lessons(seen), book, fork.config(), fork.out, sizes, fingerprint, stop)
        assert (fork.out / READ).exists() == (stop is None)
    whole, resumed = (load_file(run.out / READ) for run in (finished, fork))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_warmup_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    fingerprint = checkpoint_fingerprint(fork.merged())
    assert fingerprint == checkpoint_fingerprint(finished.merged())
    for stop, workers in ((2, 0), (None, 2)):
        _, seen, book = loaded(fork, TOWER, BASE_LORA)
        sizes = fork.sizes.warmup
        warm_up(seen, fork.lessons(seen), book, fork.config(), fork.out, sizes, fingerprint, stop, workers)
    for name in ("qformer.safetensors", "lora/adapter_model.safetensors"):
        whole, resumed = (load_file(run.out / ADAPTER / name) for run in (finished, fork))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_warm_up_can_go_on_from_an_adapter(
    finished: Run, fork: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    shutil.copytree(finished.out / ADAPTER, given)
    marked = {
        "lora/adapter_model.safetensors": lambda name: "lora_B" in name and "visual" not in name,
        "qformer.safetensors": lambda name: name == "to_q.weight",
    }
    before = {}
    for file, is_marked in marked.items():
        weights = load_file(given / file)
        before |= {n: torch.full_like(w, 0.1) for n, w in weights.items() if is_marked(n)}
        save_file({n: before.get(n, w) for n, w in weights.items()}, given / file)
    drawn: list[str] = []
    item = Lessons.item

    def recorded(lessons: Lessons, rng: random.Random):
        drawn.append((made := item(lessons, rng))[0].name)
        return made

    monkeypatch.setattr(Lessons, "item", recorded)
    fork.warmup_from = given
    fork.stage("warmup")
    lessons, sizes = fork.lessons(fork._seen(fork._load(fork.merged()))[0]), fork.sizes.warmup
    first_round = {item(lessons, rng)[0].name for rng in [random.Random(f"warmup {sizes.seed} 0")] for _ in range(4)}
    assert len(drawn) == sizes.plan.steps * sizes.batch
    assert not first_round <= set(drawn)  # not the items that made what is given
    after = {n: w for file in marked for n, w in load_file(fork.out / ADAPTER / file).items()}
    moved = [(after[n].float() - w.float()).abs().max() for n, w in before.items()]
    assert len(before) > 1
    assert "to_q.weight" in before
    assert 0 < max(moved) < 0.03  # some steps of 0.002, from what was given


def test_the_adapter_loads_on_the_merged_backbone_and_leaves_its_vision_alone(finished: Run) -> None:
    backbone, seen, _ = loaded(finished, TOWER, BASE_LORA)
    config = finished.config().model_copy(
        update={"adapter": finished.config().adapter.model_copy(update={"path": str(finished.out / ADAPTER)})}
    )
    adapter = attach_adapter(config.adapter, backbone)
    named = {n: p for n, p in backbone.model.named_parameters() if ".lora_B." in n}
    assert all(p.abs().max() == 0 for n, p in named.items() if ".visual." in n)
    assert any(p.abs().max() > 0 for n, p in named.items() if ".visual." not in n)
    _, text, place = finished.lessons(seen).item(random.Random(0))
    image = view_image(tower_maps(finished.sizes.vision.maps)[place.map], place)
    memory = MemoryEncoder(config, backbone=backbone, adapter=adapter).encode([(text, image)])
    assert memory.shape == (1, 8, 64)


@pytest.mark.slow  # compiling takes half a minute
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_layers_have_the_loss_and_the_gradients_of_the_layers_as_they_are(finished: Run) -> None:
    backbone, seen, book = loaded(finished, TOWER)
    sizes = finished.sizes.base
    parameters = add_base_lora(backbone.model, sizes.rank, 0)
    loss = LessonLoss(finished.config(), seen, book, sizes)
    made = [batch_of(number, finished.lessons(seen), sizes) for number in range(8)]  # of several lengths

    def taken() -> tuple[list[float], dict[str, Tensor]]:
        losses = [loss.backward(mode, loss.packs(mode, groups, 0))["loss"] for mode, groups in made]
        gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        for p in parameters.values():
            p.grad = None
        return losses, gradients

    (losses, gradients), names = taken(), [n for n, _ in backbone.model.named_parameters()]
    compile_layers(backbone.model)
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    compiled_losses, compiled_gradients = taken()
    assert counted["unique_graphs"] > 0
    assert [n for n, _ in backbone.model.named_parameters()] == names
    assert compiled_losses == pytest.approx(losses, rel=1e-5)
    assert compiled_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, rtol=1e-4, atol=1e-5)


def test_the_right_item_moves_to_the_front_at_the_end(finished: Run) -> None:
    _, seen, _ = loaded(finished, TOWER)
    lessons = finished.lessons(seen)
    sizes = replace(Base(), plan=Plan(steps=1000, learning_rate=1e-3))

    def in_front(steps: range) -> float:
        several = [x for n in steps for x in chain(*batch_of(n, lessons, sizes)[1]) if len(x.items) == 3]
        return sum(x.right == 0 for x in several) / len(several)

    assert in_front(range(300, 320)) == pytest.approx(1 / 3, abs=0.13)
    assert in_front(range(980, 1000)) == pytest.approx(sizes.first + (1 - sizes.first) / 3, abs=0.13)
