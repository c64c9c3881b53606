"""The reasoner: the frozen backbone answers questions in one of three modes.

none: the question alone. rag: the retrieved items' texts and images in the prompt. memory: the items' memory before the
whole prompt, as embeddings. A batch may mix modes, numbers of items and lengths. Decoding is `generate` of
transformers. Positions come from the stock position code (int64), and decoding continues them after the prompt.

Shapes: B questions, K items, Q memory vectors per item, L prompt tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from comem_ray.config import Config
from comem_ray.finite import NotFinite, dtype_name, right_precision
from comem_ray.model.adapter import Adapter, attach_adapter
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.decoding import Decoder, FiniteRows, OnText, PromptRepetitionPenalty, RowLimits, stop_ids
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.sequences import Batch, ImageFeatures, TokenSequence
from comem_ray.prompts import MODES, ImagePart, Mode, question_prompt


class PromptTooLong(ValueError):
    """A prompt, memory included, that exceeds `reasoner.max_prompt_tokens`."""


@dataclass(frozen=True)
class Prompt:
    """A question with the input of its mode: `items` (text, image) in rag, `memory` (K, Q, D) in memory mode.

    Both are best first. The reasoner applies the configured item order.
    """

    text: str
    image: Image | ImageFeatures | None = None
    mode: Mode = "none"
    items: Sequence[tuple[str, Image]] = field(default_factory=tuple)
    memory: Tensor | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Completion:
    """The answer to a Prompt, with its tokens."""

    text: str
    prompt_tokens: int  # image tokens included, memory not
    memory_vectors: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"]


Outcome = Completion | PromptTooLong | NotFinite
"""What became of a Prompt: its answer, or why there is none."""


class Reasoner:
    """The frozen backbone with memory, items or nothing before the question.

    `backbone` and `adapter` may be given to share one copy of the weights with a MemoryEncoder in the same process. The
    adapter is needed (and loaded) only where `reasoner.question_vision` is "adapter".
    """

    def __init__(
        self, config: Config, device: str = "cpu", backbone: Backbone | None = None, adapter: Adapter | None = None
    ):
        self.config = config.reasoner
        self.backbone = backbone or load_backbone(config.backbone, device)
        self.vision_lora = None
        if self.config.question_vision == "adapter":
            self.vision_lora = (adapter or attach_adapter(config.adapter, self.backbone)).lora

    def sequence(self, question: Prompt) -> TokenSequence:
        """The tokenised prompt. Raises PromptTooLong, and ValueError for an unknown mode or a missing memory."""
        if question.mode not in MODES:
            raise ValueError(f"mode {question.mode!r} is not one of {', '.join(MODES)}")
        if question.mode == "memory" and question.memory is None:
            raise ValueError("mode 'memory' needs the memory of the items")
        items = self._ordered(list(question.items)) if question.mode == "rag" else []
        memory = question.memory.shape[0] * question.memory.shape[1] if question.mode == "memory" else 0  # type: ignore[union-attr]
        parts = question_prompt(question.text, question.image, items)
        sequence = self.backbone.sequencer.sequence(parts, memory)
        if len(sequence) > self.config.max_prompt_tokens:
            raise PromptTooLong(
                f"the prompt has {len(sequence)} tokens, the limit is {self.config.max_prompt_tokens}: "
                "ask a shorter question, ask for fewer items (top_k), or use mode 'memory'"
            )
        return sequence

    def _ordered(self, items: list[Any]) -> list[Any]:
        return items if self.config.item_order == "best_first" else items[::-1]

    def inputs(self, questions: Sequence[Prompt], sequences: Sequence[TokenSequence]) -> tuple[Batch, Tensor]:
        """The left-padded batch and its input embeddings (B, L, D)."""
        batch = self.backbone.sequencer.batch(sequences, padding="left")
        images = self._features(batch)
        memories = [q.memory for q in questions if q.mode == "memory" and q.memory is not None]
        memory = [torch.cat(self._ordered(list(m.to(self.backbone.device)))) for m in memories if len(m)]
        return batch, self.backbone.embed(batch, images, torch.cat(memory) if memory else None)

    def _features(self, batch: Batch) -> Tensor | None:
        tower: Any = self.backbone.model.model.visual
        # A frozen tower gives no gradient. With gradients enabled, gradient checkpointing would run it again for none.
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in tower.parameters())):
            if self.vision_lora is None:
                return self.backbone.image_features(batch)
            with adapter_enabled(self.vision_lora):
                return self.backbone.image_features(batch)

    @torch.inference_mode()
    def encode_image(self, image: Image) -> ImageFeatures:
        """The vision tower's tokens of a question's image, to use in its place in a Prompt."""
        sequence = self.backbone.sequencer.sequence([ImagePart(image, "question")])
        tokens = self._features(self.backbone.sequencer.batch([sequence], padding="left"))
        assert tokens is not None
        return ImageFeatures(tokens, sequence.grids[0])

    def answer(self, prompts: Sequence[Prompt], on_text: OnText | None = None) -> list[Completion]:
        """Answers a batch. `on_text(i, piece)` is called with each piece of text of prompt i as it is decoded.

        Raises PromptTooLong where one of them is, NotFinite where the model's numbers are not finite for some.
        """
        outcomes = self._decode(prompts, [self.sequence(prompt) for prompt in prompts], on_text)
        if failed := [i for i, outcome in enumerate(outcomes) if isinstance(outcome, NotFinite)]:
            raise self._not_finite(failed)
        return [outcome for outcome in outcomes if isinstance(outcome, Completion)]

    def answer_each(self, prompts: Sequence[Prompt], on_text: OnText | None = None) -> list[Outcome]:
        """As `answer`, with the error in the place of a prompt that has one; the others are answered together."""
        outcomes: dict[int, Outcome] = {}
        sequences: dict[int, TokenSequence] = {}
        for i, prompt in enumerate(prompts):
            try:
                sequences[i] = self.sequence(prompt)
            except PromptTooLong as error:
                outcomes[i] = error
        if sequences:
            numbers = list(sequences)
            listener = None if on_text is None else lambda n, text: on_text(numbers[n], text)
            completions = self._decode([prompts[i] for i in numbers], list(sequences.values()), listener)
            outcomes |= dict(zip(numbers, completions, strict=True))
        return [outcomes[i] for i in range(len(prompts))]

    def _decode(
        self, prompts: Sequence[Prompt], sequences: Sequence[TokenSequence], on_text: OnText | None
    ) -> list[Completion | NotFinite]:
        if not self.config.batch_invariant:
            return self._decode_together(prompts, sequences, on_text)
        outcomes: list[Completion | NotFinite] = []
        for n, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
            listener = None if on_text is None else lambda _, text, n=n: on_text(n, text)
            outcomes += self._decode_together([prompt], [sequence], listener)
        return outcomes

    @torch.inference_mode()
    def _decode_together(
        self, prompts: Sequence[Prompt], sequences: Sequence[TokenSequence], on_text: OnText | None
    ) -> list[Completion | NotFinite]:
        batch, embeds = self.inputs(prompts, sequences)
        limits = [prompt.max_new_tokens or self.config.max_new_tokens for prompt in prompts]
        sequencer, model = self.backbone.sequencer, self.backbone.model
        stops = stop_ids(model.generation_config, sequencer.tokenizer, sequencer.turn_end_id)
        finite = FiniteRows(len(prompts), embeds.device)
        decoder = Decoder(sequencer.tokenizer, stops, limits, finite, on_text)
        processors: list[LogitsProcessor] = [finite]
        if self.config.repetition_penalty != 1:
            processors.append(PromptRepetitionPenalty(self.config.repetition_penalty, [s.ids for s in sequences]))
        model.generate(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask.to(embeds.device),
            position_ids=self.backbone.positions(batch),
            max_new_tokens=max(limits),
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([RowLimits(limits, finite)]),
            streamer=decoder,
            eos_token_id=stops,
            pad_token_id=sequencer.pad_id,
            **self._sampling(),
        )
        return [
            self._not_finite([0])
            if failed
            else Completion(decoder.text(i), len(s.ids), s.memory, len(decoder.ids[i]), decoder.reason(i))
            for i, (s, failed) in enumerate(zip(sequences, finite.failed.tolist(), strict=True))
        ]

    def _not_finite(self, positions: Sequence[int]) -> NotFinite:
        dtype = self.backbone.dtype
        return NotFinite(
            f"the reasoner's numbers are NaN or infinite in {dtype_name(dtype)}: "
            f"{right_precision(dtype, 'backbone.precision')}",
            positions,
        )

    def _sampling(self) -> dict[str, Any]:
        # Always all of them: the checkpoint's generation_config would fill in any that is left out.
        sample = self.config.temperature > 0
        return {
            "do_sample": sample,
            "temperature": self.config.temperature if sample else None,
            "top_p": self.config.top_p if sample else None,
            "top_k": None,
            "repetition_penalty": None,  # PromptRepetitionPenalty counts the prompt too
        }


def make_prompt(
    text: str,
    image: Image | ImageFeatures | None,
    mode: Mode,
    items: Sequence[tuple[str, Image]] = (),
    memory: Tensor | None = None,
    max_new_tokens: int | None = None,
) -> Prompt:
    """The reasoner's prompt: memory (K, Q, D) in front in mode memory, items before the question in mode rag.

    Where a mode has nothing to put there (no item was found), the question stands alone.
    """
    if mode == "rag" and items:
        return Prompt(text, image, "rag", items=items, max_new_tokens=max_new_tokens)
    if mode == "memory" and memory is not None and len(memory):
        return Prompt(text, image, "memory", memory=memory, max_new_tokens=max_new_tokens)
    return Prompt(text, image, max_new_tokens=max_new_tokens)
