"""The method on one page: retrieve items, put their memory (or the items) before the question, answer.

    question, image ─ retriever ─> item_ids ─┬─ mode memory: memory store, encoder for what it lacks ─> memory (K, Q, D)
                                             └─ mode rag: item store ─> texts and images
    memory or items before the question ─ reasoner ─> answer, sources

One backbone is both models: the memory encoder with the adapter on, the reasoner with it off. `Pipeline` runs the chain
in this process; evaluation and synthesis use it. Its pure parts (`make_prompt`, `stack_memory`, `make_sources`) serve
validation during training too, and the service, where each model is a process of its own. Knows nothing of Ray or HTTP.

Letters: K items, Q memory vectors per item, D width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor

from comem_ray.answers import Answer, AnswerStream, Question, Source, Usage, image_bytes_of, make_sources
from comem_ray.artifacts import check_made_from
from comem_ray.clock import Clock
from comem_ray.config import Config, load_config
from comem_ray.knowledge.images import open_image
from comem_ray.knowledge.items import ItemStore
from comem_ray.memory_store import MemoryStore, stack_memory
from comem_ray.model.adapter import attach_adapter, encoder_fingerprint
from comem_ray.model.backbone import load_backbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.reasoner import Completion, Prompt, Reasoner, make_prompt
from comem_ray.model.sequences import ImageFeatures
from comem_ray.prompts import MODES, Mode
from comem_ray.retrieval.retriever import Hit, Query, Retriever

By = Literal["image", "text", "both"]
ItemContent = tuple[str, Image]
"""Text and image of an item, as encoder and prompt take them."""


def load(config: str | Path | Config, overrides: Sequence[str] = (), device: str | None = None) -> Pipeline:
    """The pipeline of a configuration, or of its file. `device` None takes a GPU if there is one.

    `overrides` ("section.field=value") replace fields of a file. Raises ConfigError for a wrong configuration,
    ArtifactError where a stage has not been run or was made by another model.
    """
    return Pipeline(config if isinstance(config, Config) else load_config(config, overrides), device)


class Pipeline:
    """Retriever, item store, memory store and ONE backbone that is encoder and reasoner.

    Without `memory` neither adapter nor memory store is loaded, and mode 'memory' is refused.
    Raises ArtifactError where a stage is unfinished, was made by another model, or not from the same items.
    """

    def __init__(self, config: Config, device: str | None = None, memory: bool = True):
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.config = config
        self.items = ItemStore(config.folder("items"))
        self.retriever = Retriever(config, device)
        self.store = MemoryStore(config.folder("memory"), encoder_fingerprint(config)) if memory else None
        stages = {"items": self.items.manifest, "index": self.retriever.manifest}
        stages |= {"memory": self.store.manifest} if self.store else {}
        check_made_from(**stages)
        self.generations = {name: manifest.generation for name, manifest in stages.items()}  # what it reads, by folder
        backbone = load_backbone(config.backbone, device)
        adapter = attach_adapter(config.adapter, backbone) if memory else None
        self.encoder = MemoryEncoder(config, backbone=backbone, adapter=adapter) if adapter else None
        self.reasoner = Reasoner(config, backbone=backbone, adapter=adapter)

    def answer(
        self,
        question: str,
        image: str | Path | bytes | Image | None = None,
        mode: Mode = "memory",
        k: int | None = None,
        language: str | None = None,
        max_new_tokens: int | None = None,
        images: bool = False,
    ) -> Answer:
        """The answer to one question, with its sources; `images` puts the items' encoded images into them.

        Raises ValueError where the question cannot be put: no text, no image where retrieval compares images, an
        unknown mode, no item in the language, a prompt that is too long, an image that cannot be read.
        """
        return self.answer_batch([Question(question, image, mode, k, language, max_new_tokens)], images)[0]

    def answer_batch(self, questions: Sequence[Question], images: bool = False) -> list[Answer]:
        """The answers to several questions, decoded together. Raises like `answer`."""
        if not questions:
            return []
        clock = Clock()
        prompts, hits = self._prompts(questions, clock)
        with clock.stage("answer"):
            completions = self.reasoner.answer(prompts)
        return self._answers(questions, hits, completions, images, clock)

    def stream(
        self,
        question: str,
        image: str | Path | bytes | Image | None = None,
        mode: Mode = "memory",
        k: int | None = None,
        language: str | None = None,
        max_new_tokens: int | None = None,
        images: bool = False,
    ) -> AnswerStream:
        """As `answer`, piece by piece: iterate over the text; `.answer` is the whole at the end."""
        questions = [Question(question, image, mode, k, language, max_new_tokens)]
        clock = Clock()
        prompts, hits = self._prompts(questions, clock)

        def pieces() -> Iterator[str | Answer]:
            with clock.stage("answer"):
                completion = yield from _stream(self.reasoner, prompts[0])
            yield self._answers(questions, hits, [completion], images, clock)[0]

        return AnswerStream(pieces())

    def retrieve(
        self,
        image: str | Path | bytes | Image | None = None,
        text: str | None = None,
        k: int | None = None,
        by: By | None = None,
        language: str | None = None,
        images: bool = False,
    ) -> list[Source]:
        """The `k` items nearest to an image, a text or both (`by`; None: all that is given), best first.

        Raises ValueError where nothing is given, or what `by` needs is missing.
        """
        if image is None and not text:
            raise ValueError("give an image, a text, or both")
        by = by or ("both" if image is not None and text else "image" if image is not None else "text")
        query = Query(self._open(image), text)
        settings = self.config.retrieval
        k = settings.top_k if k is None else k
        hits = self.retriever.retrieve([query], k, by, language or settings.language)[0]
        return self._sources(hits, images)

    def memory(self, item_ids: Sequence[str]) -> Tensor:
        """Memory (K, Q, D), bfloat16 on the CPU, in the order given: from the store, what it lacks encoded now.

        Raises UnknownItem for an id that is not in the knowledge base.
        """
        if self.store is None or self.encoder is None:
            raise ValueError("this pipeline was made without memory")
        stored = self.store.get_stored(item_ids)
        missing = [i for i in dict.fromkeys(item_ids) if i not in stored]
        encoded = dict(zip(missing, self.encoder.encode(self.contents(missing)), strict=True)) if missing else {}
        return stack_memory(item_ids, stored, encoded)

    def contents(self, item_ids: Sequence[str]) -> list[ItemContent]:
        """Texts and decoded images of items, in the order given. Raises UnknownItem."""
        limit = self.config.ingest.images.max_pixels
        return [(item.text, open_image(item.image or b"", limit)) for item in self.items.get(item_ids)]

    def prompt(
        self,
        text: str,
        image: Image | ImageFeatures | None,
        mode: Mode,
        item_ids: Sequence[str],
        max_new_tokens: int | None = None,
    ) -> Prompt:
        """The prompt of a question in a mode, with the items of `item_ids` (best first) before it."""
        items = self.contents(item_ids) if mode == "rag" else []
        memory = self.memory(item_ids) if mode == "memory" and item_ids else None
        return make_prompt(text, image, mode, items, memory, max_new_tokens)

    def _prompts(self, questions: Sequence[Question], clock: Clock) -> tuple[list[Prompt], list[list[Hit]]]:
        opened = [self._open(question.image) for question in questions]
        for question, image in zip(questions, opened, strict=True):
            _check_question(question, image, self.config.retrieval.by)
        with clock.stage("retrieve"):
            hits = self._hits(questions, opened)
        with clock.stage("memory"):
            prompts = [
                self.prompt(q.text, image, q.mode, [hit.item_id for hit in results], q.max_new_tokens)
                for q, image, results in zip(questions, opened, hits, strict=True)
            ]
        return prompts, hits

    def _hits(self, questions: Sequence[Question], images: Sequence[Image | None]) -> list[list[Hit]]:
        """Hits of each question, none in mode 'none'; those that agree in k and language are searched together."""
        settings, hits = self.config.retrieval, [list[Hit]() for _ in questions]
        groups: dict[tuple[int, str | None], list[int]] = defaultdict(list)
        for n, question in enumerate(questions):
            if question.mode != "none":
                groups[question.k or settings.top_k, question.language or settings.language].append(n)
        for (k, language), numbers in groups.items():
            queries = [Query(images[n], questions[n].text) for n in numbers]
            for n, nearest in zip(numbers, self.retriever.retrieve(queries, k, settings.by, language), strict=True):
                hits[n] = nearest
        return hits

    def _answers(
        self,
        questions: Sequence[Question],
        hits: Sequence[Sequence[Hit]],
        completions: Sequence[Completion],
        images: bool,
        clock: Clock,
    ) -> list[Answer]:
        with clock.stage("items"):
            sources = [self._sources(h, images) for h in hits]
        return [
            Answer(c.text, q.mode, s, Usage(c.prompt_tokens, c.memory_vectors, c.completion_tokens), clock.timings())
            for q, s, c in zip(questions, sources, completions, strict=True)
        ]

    def _sources(self, hits: Sequence[Hit], images: bool) -> list[Source]:
        items = self.items.get([hit.item_id for hit in hits], image=images)
        return make_sources(items, [hit.score for hit in hits])

    def _open(self, image: str | Path | bytes | Image | None) -> Image | None:
        return None if image is None else open_image(image_bytes_of(image), self.config.ingest.images.max_pixels)


def _check_question(question: Question, image: Image | None, by: By) -> None:
    if not question.text.strip():
        raise ValueError("the question is empty: write one")
    if question.mode not in MODES:
        raise ValueError(f"mode {question.mode!r} is none of {', '.join(MODES)}")
    if question.k is not None and question.k < 1:
        raise ValueError(f"k is {question.k}, want 1 or more")
    if question.mode != "none" and by != "text" and image is None:
        raise ValueError(f"mode {question.mode!r} retrieves by {by!r}: give an image, or use mode 'none'")


def _stream(reasoner: Reasoner, prompt: Prompt) -> Generator[str, None, Completion]:
    """Pieces of text as a thread decodes them; returns the completion, raises what decoding raises."""
    pieces: SimpleQueue[str | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as thread:
        completion = thread.submit(reasoner.answer, [prompt], lambda _, text: pieces.put(text))
        completion.add_done_callback(lambda _: pieces.put(None))
        while (piece := pieces.get()) is not None:
            yield piece
        return completion.result()[0]
