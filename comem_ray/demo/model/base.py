"""Stage `base`: the language model learns to answer from items, and from notes in front, by looking at the picture.

What is trained is a LoRA of rank 48 on its Linear layers (A ~ N(0, 1/in), B = 0, scale 1), which is then merged and
frozen for good: it is the demo's "backbone", as Qwen2.5-VL is that of the paper. The mixture has the two forms that the
reasoner has: rag (items in the prompt) and memory (notes in front, in place of a memory that nobody can write yet).

The loss is the answer's cross-entropy. The first token of the country's name weighs more where there is a choice of
items: it alone depends on the picture, and the rest of the answer gives the name away.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from comem_ray.artifacts import write_atomic
from comem_ray.config import Config
from comem_ray.demo.backbone import BASE_LORA
from comem_ray.demo.model.compiled import compile_layers
from comem_ray.demo.model.lessons import Draw, Lesson, Lessons
from comem_ray.demo.model.notes import Codebook, disturbed, notes, signatures, slots, word_codes
from comem_ray.demo.model.packing import Packed, hidden_states, pack
from comem_ray.demo.model.pictures import SeenBackbone
from comem_ray.demo.model.steps import Plan, Steps
from comem_ray.model.memory_encoder import length_buckets
from comem_ray.model.reasoner import Question, Reasoner
from comem_ray.prompts import END, Plain

TARGETS = r"model\.language_model\.layers\.\d+\..+_proj"
NAN = float("nan")

PLAN = Plan(steps=600, learning_rate=1e-3, warmup=0.03, checkpoint_every=50)


@dataclass(frozen=True)
class Base:
    """Sizes of the stage."""

    plan: Plan = PLAN
    rank: int = 48
    notes: tuple[float, float] = (0.65, 0.85)  # of the steps, the others are rag: until rag is learned, and after
    rag_learned: float = 0.45  # of the steps
    notes_batch: int = 6  # sets of items a step, in a step of notes
    rag_batch: int = 4
    items: tuple[int, ...] = (1, 2, 2, 3, 3, 3)  # of a set: one of these
    questions: int = 5  # about each set; what stands before them is read once
    batch_tokens: int = 2048  # a forward pass, padding included
    name_weight: float = 6.0
    fact_weight: float = 2.0
    noise: tuple[float, float] = (0.4, 0.2)  # of notes: words, signatures
    last_part: float = 0.25  # of the steps, in which the right item comes to the front
    first: float = 0.6  # chance of the front at the very end, on top of the even share
    compile: bool = True
    seed: int = 0


def train_base(
    backbone: SeenBackbone,
    lessons: Lessons,
    book: Codebook,
    config: Config,
    folder: Path,
    sizes: Base,
    tower: str,
    stop_after: int | None = None,
    workers: int = 0,
) -> None:
    """Trains the LoRA and writes `base_lora.safetensors` (bf16) into `folder`. `tower` is the digest of the tower.

    Prompts are made by `workers` other processes. The layers stay in `backbone`, acting. Nothing is written where
    `stop_after` ended it before the last step.
    """
    parameters = add_base_lora(backbone.model, sizes.rank, sizes.seed)
    if sizes.compile:
        compile_layers(backbone.model)
    lesson_loss = LessonLoss(config, backbone, book, sizes)
    made_of = [dataclasses.asdict(dataclasses.replace(sizes, compile=False)), tower]
    steps = Steps(folder, "base", parameters, sizes.plan, made_of)

    def make(number: int) -> tuple[str, list[Pack]]:
        mode, groups = batch_of(number, lessons, sizes)
        return mode, lesson_loss.packs(mode, groups, number)

    steps.run(make, lambda made: lesson_loss.backward(*made), stop_after, workers)
    if stop_after is None or stop_after >= sizes.plan.steps:
        save_base_lora(parameters, folder / BASE_LORA)


def add_base_lora(model: Any, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Adds LoRA layers to the language model, in place and acting. Returns them by the names of BASE_LORA."""
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", target_modules=TARGETS)
    lora = get_peft_model(model, config, autocast_adapter_dtype=False)
    parameters = {_stored_name(n): p for n, p in lora.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(n for n in parameters if n.endswith(".lora_A")):
        shape = parameters[name].shape
        with torch.no_grad():
            parameters[name].copy_(torch.randn(shape, generator=generator) * shape[1] ** -0.5)
    return parameters


def _stored_name(name: str) -> str:
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")


def save_base_lora(parameters: dict[str, nn.Parameter], path: Path) -> None:
    """Writes the LoRA as bf16 safetensors, to be merged by `comem_ray.demo.backbone`."""
    stored = {n: p.detach().to("cpu", torch.bfloat16).contiguous() for n, p in parameters.items()}
    write_atomic(path, lambda p: save_file(stored, p))


def batch_of(number: int, lessons: Lessons, sizes: Base) -> tuple[str, list[list[Lesson]]]:
    """The mode and the lessons of a step, in groups that share their items: a function of its number."""
    rng = random.Random(f"base {sizes.seed} {number}")
    progress = number / sizes.plan.steps
    mode = "memory" if rng.random() < sizes.notes[progress >= sizes.rag_learned] else "rag"
    first = sizes.first * max(0.0, 1 - (1 - progress) / sizes.last_part)
    lookalikes = 0.15 if progress < 0.25 else 0.5
    count = sizes.notes_batch if mode == "memory" else sizes.rag_batch
    drawn = [Draw(rng.choice(sizes.items), lookalikes, first) for _ in range(count)]
    return mode, [lessons.get(rng, draw, sizes.questions) for draw in drawn]


@dataclass(frozen=True)
class _Target:
    """An answer: its tokens, the weight of each, and where the country's name and the fact begin."""

    ids: list[int]
    weights: list[float]
    name: int
    fact: int


@dataclass(frozen=True)
class Pack:
    """Lessons about the same items as one sequence."""

    lessons: Sequence[Lesson]
    asked: Question  # the first; it has the items, or their notes
    targets: list[_Target]
    packed: Packed


class LessonLoss:
    """The loss of lessons and its gradients, with the sequences and inputs of the reasoner itself."""

    def __init__(self, config: Config, backbone: SeenBackbone, book: Codebook, sizes: Base):
        self.reasoner, self.book, self.sizes = Reasoner(config, backbone=backbone), book, sizes
        self._sequencer = backbone.sequencer

    def packs(self, mode: str, groups: Sequence[Sequence[Lesson]], number: int) -> list[Pack]:
        """The lessons of step `number`, those of a group, which share their items, as one sequence. On the CPU."""
        generator = torch.Generator().manual_seed(number)
        return [self._pack(mode, group, generator) for group in groups]

    def backward(self, mode: str, packs: Sequence[Pack]) -> dict[str, float]:
        """Adds the gradients of the lessons' loss. Returns it, and the parts of first tokens that are right."""
        total = sum(sum(t.weights) for p in packs for t in p.targets)
        right: dict[int, list[Tensor]] = {}
        loss = 0.0
        for bucket in length_buckets([len(p.packed) for p in packs], self.sizes.batch_tokens):
            some = [packs[i] for i in bucket]
            targets = [t for p in some for t in p.targets]
            logits = self._logits(some)
            ids = torch.tensor([i for t in targets for i in t.ids], device=logits.device)
            weights = torch.tensor([w for t in targets for w in t.weights], device=logits.device)
            part = (F.cross_entropy(logits, ids, reduction="none") * weights).sum() / total
            part.backward()
            loss += part.item()
            hits = iter((logits.argmax(-1) == ids).cpu().split([len(t.ids) for t in targets]))
            right |= {i: [next(hits) for _ in packs[i].targets] for i in bucket}
        every = [(x, t, h) for i, p in enumerate(packs) for x, t, h in zip(p.lessons, p.targets, right[i], strict=True)]
        return {"loss": loss, "tokens": sum(len(p.packed) for p in packs), **_figures(mode, every)}

    def _pack(self, mode: str, lessons: Sequence[Lesson], generator: torch.Generator) -> Pack:
        asked = self.questions(mode, lessons, generator)
        targets = [self.target(lesson) for lesson in lessons]
        prompts = [self.reasoner.sequence(q) for q in asked]
        whole = [dataclasses.replace(p, ids=p.ids + t.ids) for p, t in zip(prompts, targets, strict=True)]
        shared = len(lessons[0].items) if mode == "rag" else 0
        return Pack(lessons, asked[0], targets, pack(self.reasoner.backbone, whole, shared))

    def questions(self, mode: str, lessons: Sequence[Lesson], generator: torch.Generator) -> list[Question]:
        """What the reasoner is asked about the same items: with them in rag mode, else with their (disturbed) notes."""
        if mode == "rag":
            return [Question(x.question, x.picture, "rag", items=x.items) for x in lessons]
        memory = self.notes_of(lessons[0], generator)
        return [Question(x.question, x.picture, "memory", memory=memory) for x in lessons]

    def notes_of(self, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Notes (items, Q, D) with noise."""
        tokens = self._sequencer.tokens(lesson.pictures)
        words = word_codes([slots(c, self._sequencer.plain_ids) for c in lesson.countries], self.book)
        words, signed = disturbed(words, signatures(tokens), self.book, self.sizes.noise, generator)
        return notes(words, signed, self.book)

    def target(self, lesson: Lesson) -> _Target:
        """The answer's tokens, the closing <|im_end|> and the newline after it, weighted."""
        ids = self._sequencer.sequence([Plain(lesson.answer), END]).ids
        name = len(self._sequencer.plain_ids(lesson.before_name()))
        fact = len(self._sequencer.plain_ids(lesson.before_fact()))
        weights = [1.0] * len(ids)
        weights[fact] = self.sizes.fact_weight
        if len(lesson.items) > 1:
            weights[name] = self.sizes.name_weight
        return _Target(ids, weights, name, fact)

    def _logits(self, packs: Sequence[Pack]) -> Tensor:
        """Logits (answer tokens of all, vocabulary), float32, each of the place before its token."""
        batch, embeds = self.reasoner.inputs([p.asked for p in packs], [p.packed.sequence for p in packs])
        hidden = hidden_states(self.reasoner.backbone, batch, embeds, [p.packed for p in packs])
        places = []
        for row, p in zip(hidden, packs, strict=True):
            own = row[len(row) - len(p.packed) :]
            ends = [p.packed.end(n) for n in range(len(p.targets))]
            places += [own[end - len(t.ids) - 1 : end - 1] for end, t in zip(ends, p.targets, strict=True)]
        return self.reasoner.backbone.model.lm_head(torch.cat(places)).float()


def _figures(mode: str, lessons: Sequence[tuple[Lesson, _Target, Tensor]]) -> dict[str, float]:
    """Parts that are right: the name's first token among several items, and the fact's, of one item and of several."""
    several = [x for x in lessons if len(x[0].items) > 1]
    alone = [x for x in lessons if len(x[0].items) == 1]
    pick = _mean([hits[target.name] for _, target, hits in several])
    fact, fact_alone = (_mean([hits[target.fact] for _, target, hits in some]) for some in (several, alone))
    none = {f"{m}_{k}": NAN for m in ("memory", "rag") for k in ("pick", "fact", "fact_alone")}
    return {**none, f"{mode}_pick": pick, f"{mode}_fact": fact, f"{mode}_fact_alone": fact_alone}


def _mean(hits: Sequence[Tensor]) -> float:
    return float(torch.stack(list(hits)).float().mean()) if hits else NAN
