"""Stage `base`: the language model learns to answer from items, and from notes in front, by looking at the image.

What is trained is a LoRA of rank 48 on its Linear layers (A ~ N(0, 1/in), B = 0, scale 1), which is then merged and
frozen for good: it is the demo's "backbone", as Qwen2.5-VL is that of the paper. The mixture has the two forms that the
reasoner has: rag (items in the prompt) and memory (notes in front, in place of a memory that nobody can write yet).

The loss is the answer's cross-entropy. The first token of the country's name weighs more where there is a choice of
items: it alone depends on the image, and the rest of the answer gives the name away. The question's image is to say
that name as well, from its own tokens: there the signature need not be carried anywhere before it can be compared.

First come drills, the same in fewer tokens: *read*, the notes of one item and all that they say; *pick*, the notes of
several, an image, an answer. Turns and questions, a good part of a lesson's tokens, can wait.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from comem_ray.config import Config
from comem_ray.model.memory_encoder import length_buckets
from comem_ray.model.reasoner import Prompt, Reasoner
from comem_ray.model.sequences import TokenSequence
from comem_ray.prompts import END, ControlText, PlainText, image_parts
from examples.countries.backbone import BASE_LORA
from examples.countries.train.base_lora import add_base_lora, save_base_lora
from examples.countries.train.compiled import compile_layers
from examples.countries.train.image_tokens import SeenBackbone
from examples.countries.train.lessons import Draw, Lesson, Lessons
from examples.countries.train.notes import Codebook, disturbed, notes, signatures, slots, word_codes
from examples.countries.train.packing import Packed, hidden_states, pack
from examples.countries.train.steps import Plan, Steps
from examples.countries.world.questions import ASKED, Fact, sentence

NAN = float("nan")

KINDS = ("memory", "rag", "read", "pick")
EVERY = 3  # token of a question's image, the last among them, says the name

PLAN = Plan(steps=900, learning_rate=1e-3, warmup=0.03, checkpoint_every=50)


@dataclass(frozen=True)
class Base:
    """Sizes of the stage."""

    plan: Plan = PLAN
    rank: int = 48
    notes: tuple[float, float] = (0.65, 0.85)  # of the steps, the others are rag: until rag is learned, and after
    rag_learned: float = 0.45  # of the steps
    notes_batch: int = 6  # sets of items a step, in a step of notes
    rag_batch: int = 4
    items: tuple[int, ...] = (1, 2, 2, 3, 3, 3, 5, 10)  # of a set: one of these
    rag_items: int = 3  # at most, in rag: there an item is a whole text
    questions: int = 5  # about each set; what stands before them is read once
    drills: float = 0.25  # of the steps, at the beginning
    drill_kinds: tuple[float, float] = (0.4, 0.4)  # of these steps: read, pick; the others are rag
    read_batch: int = 27
    pick_batch: int = 6
    pick_items: tuple[int, ...] = (2, 2, 3, 3, 3, 4)
    pick_questions: int = 8
    batch_tokens: int = 2048  # a forward pass, padding included
    name_weight: float = 6.0
    fact_weight: float = 2.0
    image_weight: float = 0.5  # of the name said by the image, times its weight in the answer
    noise: tuple[float, float] = (0.4, 0.2)  # of notes: words, signatures
    last_part: float = 0.25  # of the steps, in which the right item comes to the front
    first: float = 0.45  # chance of the front at the very end, on top of the even share
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


def batch_of(number: int, lessons: Lessons, sizes: Base) -> tuple[str, list[list[Lesson]]]:
    """The kind and the lessons of a step, in groups that share their items: a function of its number."""
    rng = random.Random(f"base {sizes.seed} {number}")
    progress = number / sizes.plan.steps
    kind = _kind(rng.random(), progress, sizes)
    first = sizes.first * max(0.0, 1 - (1 - progress) / sizes.last_part)
    lookalikes = 0.15 if progress < 0.25 else 0.5
    count, items, questions = {
        "memory": (sizes.notes_batch, sizes.items, sizes.questions),
        "rag": (sizes.rag_batch, [k for k in sizes.items if k <= sizes.rag_items], sizes.questions),
        "read": (sizes.read_batch, (1,), 1),
        "pick": (sizes.pick_batch, sizes.pick_items, sizes.pick_questions),
    }[kind]
    drawn = [Draw(rng.choice(items), lookalikes, first) for _ in range(count)]
    return kind, [lessons.get(rng, draw, questions) for draw in drawn]


def _kind(chance: float, progress: float, sizes: Base) -> str:
    if progress < sizes.drills:
        read, pick = sizes.drill_kinds
        return "read" if chance < read else "pick" if chance < read + pick else "rag"
    return "memory" if chance < sizes.notes[progress >= sizes.rag_learned] else "rag"


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
    asked: Prompt  # the first; it has the items, or their notes
    targets: list[_Target]
    packed: Packed
    seen: list[list[int]]  # of each lesson, places of the packed sequence: tokens of its image that say the name

    def to_say(self, image_weight: float) -> tuple[list[int], list[int], list[float]]:
        """Places, the tokens to be said there next, their weights: those of the answers, then those of the images."""
        places, ids, weights = list[int](), list[int](), list[float]()
        for number, target in enumerate(self.targets):
            end = self.packed.end(number)
            places += range(end - len(target.ids) - 1, end - 1)
            ids, weights = ids + target.ids, weights + target.weights
        for target, seen in zip(self.targets, self.seen, strict=True):
            places += seen
            ids += [target.ids[target.name]] * len(seen)
            weights += [image_weight * target.weights[target.name] / max(1, len(seen))] * len(seen)
        return places, ids, weights


class LessonLoss:
    """The loss of lessons and its gradients, with the sequences and inputs of the reasoner itself."""

    def __init__(self, config: Config, backbone: SeenBackbone, book: Codebook, sizes: Base):
        self.reasoner, self.book, self.sizes = Reasoner(config, backbone=backbone), book, sizes
        self._sequencer = backbone.sequencer

    def packs(self, kind: str, groups: Sequence[Sequence[Lesson]], number: int) -> list[Pack]:
        """The lessons of step `number`, those of a group, which share their items, as one sequence. On the CPU."""
        generator = torch.Generator().manual_seed(number)
        return [self._pack(kind, group, generator) for group in groups]

    def backward(self, kind: str, packs: Sequence[Pack]) -> dict[str, float]:
        """Adds the gradients of the lessons' loss. Returns it, and the parts of first tokens that are right."""
        total = sum(sum(t.weights) for p in packs for t in p.targets)
        right: dict[int, Tensor] = {}
        loss = 0.0
        for bucket in length_buckets([len(p.packed) for p in packs], self.sizes.batch_tokens):
            some = [packs[i] for i in bucket]
            said = [p.to_say(self.sizes.image_weight) for p in some]
            logits = self._logits(some, [places for places, _, _ in said])
            ids = torch.tensor([i for _, each, _ in said for i in each], device=logits.device)
            weights = torch.tensor([w for _, _, each in said for w in each], device=logits.device)
            part = (F.cross_entropy(logits, ids, reduction="none") * weights).sum() / total
            part.backward()
            loss += part.item()
            hits = (logits.argmax(-1) == ids).cpu().split([len(places) for places, _, _ in said])
            right |= dict(zip(bucket, hits, strict=True))
        every = [hit for i, p in enumerate(packs) for hit in _hits(p, right[i])]
        return {"loss": loss, "tokens": sum(len(p.packed) for p in packs), **_figures(kind, every)}

    def _pack(self, kind: str, lessons: Sequence[Lesson], generator: torch.Generator) -> Pack:
        asked = self.questions(kind, lessons, generator)
        then = [self._other_facts(x, generator) if kind == "read" else [] for x in lessons]
        targets = [self.target(lesson, facts) for lesson, facts in zip(lessons, then, strict=True)]
        prompts = [self._drill(kind, q) if kind in ("read", "pick") else self.reasoner.sequence(q) for q in asked]
        whole = [dataclasses.replace(p, ids=p.ids + t.ids) for p, t in zip(prompts, targets, strict=True)]
        shared = len(lessons[0].items) if kind == "rag" else 0
        packed = pack(self.reasoner.backbone, whole, shared)
        images = [packed.places(n, self._sequencer.image_token_id) for n in range(len(lessons))]
        return Pack(lessons, asked[0], targets, packed, [p[EVERY - 1 :: EVERY] for p in images])

    def _drill(self, kind: str, asked: Prompt) -> TokenSequence:
        """The prompt of a drill: notes, the token that every prompt begins with, the image where there is one."""
        assert asked.memory is not None
        image = image_parts(asked.image, "question") if kind == "pick" else []
        return self._sequencer.sequence(
            [ControlText("<|im_start|>"), *image], memory=asked.memory.flatten(0, 1).shape[0]
        )

    def questions(self, kind: str, lessons: Sequence[Lesson], generator: torch.Generator) -> list[Prompt]:
        """What the reasoner is asked about the same items: with them in rag, else with their (disturbed) notes."""
        if kind == "rag":
            return [Prompt(x.question, x.image, "rag", items=x.items) for x in lessons]
        memory = self.notes_of(lessons[0], generator)
        return [Prompt(x.question, x.image, "memory", memory=memory) for x in lessons]

    @staticmethod
    def _other_facts(lesson: Lesson, generator: torch.Generator) -> list[Fact]:
        """The facts that the lesson does not ask for, in any order."""
        others = [fact for fact in ASKED if fact != lesson.fact]
        return [others[i] for i in torch.randperm(len(others), generator=generator)]

    def notes_of(self, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Notes (items, Q, D) with noise."""
        tokens = self._sequencer.tokens(lesson.images)
        words = word_codes([slots(c, self._sequencer.plain_ids) for c in lesson.countries], self.book)
        words, signed = disturbed(words, signatures(tokens), self.book, self.sizes.noise, generator)
        return notes(words, signed, self.book)

    def target(self, lesson: Lesson, then: Sequence[Fact] = ()) -> _Target:
        """The answer's tokens, sentences with other facts, <|im_end|> and the newline after it, weighted."""
        plain, text = self._sequencer.plain_ids, lesson.answer
        facts = [len(plain(lesson.before_fact()))]
        for fact in then:
            facts.append(len(plain(f"{text} {lesson.before(fact)}")))
            text = f"{text} {sentence(lesson.country, fact)}"
        ids = self._sequencer.sequence([PlainText(text), END]).ids
        name = len(plain(lesson.before_name()))
        weights = [1.0] * len(ids)
        for place in facts:
            weights[place] = self.sizes.fact_weight
        if len(lesson.items) > 1:
            weights[name] = self.sizes.name_weight
        return _Target(ids, weights, name, facts[0])

    def _logits(self, packs: Sequence[Pack], places: Sequence[Sequence[int]]) -> Tensor:
        """Logits (places of all, vocabulary), float32."""
        batch, embeds = self.reasoner.inputs([p.asked for p in packs], [p.packed.sequence for p in packs])
        hidden = hidden_states(self.reasoner.backbone, batch, embeds, [p.packed for p in packs])
        own = [row[len(row) - len(p.packed) :] for row, p in zip(hidden, packs, strict=True)]
        return self.reasoner.backbone.model.lm_head(torch.cat([o[p] for o, p in zip(own, places, strict=True)])).float()


@dataclass(frozen=True)
class _Hit:
    """Which of a lesson's first tokens were right: the name's, the fact's, the name's where its image says it."""

    several: bool  # whether there was a choice of items
    name: Tensor
    fact: Tensor
    image: Tensor | None


def _hits(pack: Pack, right: Tensor) -> Iterator[_Hit]:
    answers = right.split([*(len(t.ids) for t in pack.targets), *(len(s) for s in pack.seen)])
    count = len(pack.targets)
    for target, said, seen in zip(pack.targets, answers[:count], answers[count:], strict=True):
        several = len(pack.lessons[0].items) > 1
        yield _Hit(several, said[target.name], said[target.fact], seen[-1] if len(seen) else None)


def _figures(kind: str, hits: Sequence[_Hit]) -> dict[str, float]:
    """Parts that are right: the name's first token among several items, and the fact's, of one item and of several."""
    several, alone = ([h for h in hits if h.several == which] for which in (True, False))
    own = {
        "pick": _mean([h.name for h in several]),
        "seen": _mean([h.image for h in several if h.image is not None]),
        "fact": _mean([h.fact for h in several]),
        "fact_alone": _mean([h.fact for h in alone]),
    }
    return {f"{k}_{name}": own[name] if k == kind else NAN for k in KINDS for name in own}


def _mean(hits: Sequence[Tensor]) -> float:
    return float(torch.stack(list(hits)).float().mean()) if hits else NAN
