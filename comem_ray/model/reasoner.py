"""The reasoner: the frozen backbone answers questions in one of three modes.

none: the question alone. rag: the retrieved items' texts and images in the prompt. memory: the items' memory before the
whole prompt, as embeddings. A batch may mix modes, numbers of items and lengths, and prompts may join answers that are
already running. Positions come from the stock position code (int64), and decoding continues them after the prompt.

Shapes: B questions, K items, Q memory vectors per item, L prompt tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from comem_ray.config import Config
from comem_ray.finite import NotFinite, dtype_name, right_precision
from comem_ray.model.adapter import Adapter, attach_adapter, reasoner_lora
from comem_ray.model.answer_text import AnswerText
from comem_ray.model.backbone import Backbone, load_backbone
from comem_ray.model.decoding import Draw, OnText, Sampling, stop_ids
from comem_ray.model.lora import adapter_enabled, add_reasoner_lora
from comem_ray.model.prompt import Prompt, PromptTooLong
from comem_ray.model.running import Completion, RunningAnswer, RunningRows
from comem_ray.model.sequences import Batch, ImageFeatures, TokenSequence
from comem_ray.prompts import MODES, ImagePart, Mode, question_prompt

Outcome = Completion | PromptTooLong | NotFinite
"""What became of a Prompt: its answer, or why there is none."""


class Reasoner:
    """The frozen backbone with memory, items or nothing before the question.

    `backbone` and `adapter` may be given to share one copy of the weights with a MemoryEncoder in the same process. The
    adapter is needed (and loaded) only where `reasoner.question_vision` is "adapter", or where the language model that
    answers has a LoRA of its own (`reasoner.language_model`): that one is on whenever the encoder's is not.
    """

    def __init__(
        self, config: Config, device: str = "cpu", backbone: Backbone | None = None, adapter: Adapter | None = None
    ):
        self.config = config.reasoner
        self.backbone = backbone or load_backbone(config.backbone, device)
        self.vision_lora = None
        self.language_lora = reasoner_lora(config)
        if self.config.question_vision == "adapter" or self.language_lora is not None:
            lora = (adapter or attach_adapter(config.adapter, self.backbone)).lora
            if self.config.question_vision == "adapter":
                self.vision_lora = lora
            if self.language_lora is not None:
                add_reasoner_lora(lora, self.language_lora)

    def sequence(self, question: Prompt) -> TokenSequence:
        """The tokenised prompt. Raises PromptTooLong, and ValueError for an unknown mode or a wrong memory."""
        if question.mode not in MODES:
            raise ValueError(f"mode {question.mode!r} is not one of {', '.join(MODES)}")
        items = self._ordered(list(question.items)) if question.mode == "rag" else []
        memory = self._memory_vectors(question.memory) if question.mode == "memory" else 0
        sequencer = self.backbone.sequencer
        parts = question_prompt(question.text, question.image, items, question.system, question.history, sequencer.chat)
        sequence = sequencer.sequence(parts, memory)
        if len(sequence) > self.config.max_prompt_tokens:
            raise PromptTooLong(
                f"the prompt has {len(sequence)} tokens, the limit is {self.config.max_prompt_tokens}: "
                "ask a shorter question, ask for fewer items (top_k), or use mode 'memory'"
            )
        return sequence

    def _memory_vectors(self, memory: Tensor | None) -> int:
        if memory is None:
            raise ValueError("mode 'memory' needs the memory of the items")
        items, vectors, width = memory.shape
        if width != self.backbone.width:
            raise ValueError(f"the memory has vectors of width {width}, the reasoner's backbone {self.backbone.width}")
        return items * vectors

    def length(self, prompt: Prompt) -> int:
        """Tokens of the prompt, memory included. Raises what `sequence` raises."""
        return len(self.sequence(prompt))

    def _ordered(self, items: list[Any]) -> list[Any]:
        return items if self.config.item_order == "best_first" else items[::-1]

    def inputs(self, questions: Sequence[Prompt], sequences: Sequence[TokenSequence]) -> tuple[Batch, Tensor]:
        """The left-padded batch and its input embeddings (B, L, D or more: `Backbone.embed`)."""
        batch = self.backbone.sequencer.batch(sequences, padding="left")
        images = self._features(batch)
        memories = [q.memory for q in questions if q.mode == "memory" and q.memory is not None]
        memory = [torch.cat(self._ordered(list(m.to(self.backbone.device)))) for m in memories if len(m)]
        return batch, self.backbone.embed(batch, images, torch.cat(memory) if memory else None)

    def _features(self, batch: Batch) -> Tensor | None:
        towers = self.backbone.family.vision_modules(self.backbone.model)
        trained = any(p.requires_grad for tower in towers for p in tower.parameters())
        # A frozen tower gives no gradient. With gradients enabled, gradient checkpointing would run it again for none.
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
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

    def decoding(self) -> Decoding:
        """Nothing running yet: prompts join it."""
        return Decoding(self)

    def _decode(
        self, prompts: Sequence[Prompt], sequences: Sequence[TokenSequence], on_text: OnText | None
    ) -> list[Completion | NotFinite]:
        decoding = self.decoding()
        answers = decoding.join(prompts, sequences)
        passed_on = [0] * len(answers)

        def pass_on(listener: OnText) -> None:
            for i, answer in enumerate(answers):
                if isinstance(answer, RunningAnswer) and len(answer.text) > passed_on[i]:
                    listener(i, answer.text[passed_on[i] :])
                    passed_on[i] = len(answer.text)

        while True:
            if on_text is not None:
                pass_on(on_text)
            if not decoding.running:
                break
            decoding.step()
        outcomes = [answer.outcome if isinstance(answer, RunningAnswer) else answer for answer in answers]
        return [outcome for outcome in outcomes if isinstance(outcome, (Completion, NotFinite))]

    def prefill(
        self, prompts: Sequence[Prompt], sequences: Sequence[TokenSequence]
    ) -> tuple[RunningRows, list[RunningAnswer]]:
        """One forward pass over prompts draws the first token of each answer: rows that go on, and all answers."""
        sequencer, model = self.backbone.sequencer, self.backbone.model
        stops = stop_ids(model.generation_config, sequencer.tokenizer, sequencer.turn_end_id)
        answers = []
        for prompt, sequence in zip(prompts, sequences, strict=True):
            sampling = prompt.sampling or Sampling(self.config.temperature, self.config.top_p)
            text = AnswerText(sequencer.text, sampling.stop, sequencer.chat.reply)
            limit = prompt.max_new_tokens or self.config.max_new_tokens
            answers.append(RunningAnswer(sequence, limit, Draw(sampling, self.backbone.device), text, stops))
        batch, embeds = self.inputs(prompts, sequences)
        penalty = self.config.repetition_penalty
        rows = RunningRows(self.backbone, batch, embeds, answers, penalty, lambda: self._not_finite([0]))
        return rows, answers

    def _not_finite(self, positions: Sequence[int]) -> NotFinite:
        dtype = self.backbone.dtype
        return NotFinite(
            f"the reasoner's numbers are NaN or infinite in {dtype_name(dtype)}: "
            f"{right_precision(dtype, 'backbone.precision')}",
            positions,
        )


class Decoding:
    """Answers that run together, one token at a time: prompts may join, and answers be dropped, between two tokens.

    With `reasoner.batch_invariant` each answer has a cache of its own, so that nothing depends on the others. One
    thread uses it. If `step` or `drop` raises, it cannot be used again; if `join` raises, all is as before.
    """

    def __init__(self, reasoner: Reasoner):
        self._reasoner = reasoner
        self._groups: list[RunningRows] = []
        self._failed = False

    @property
    def running(self) -> list[RunningAnswer]:
        return [answer for group in self._groups for answer in group.answers]

    @property
    def cells(self) -> int:
        """Rows times columns of the padded cache now: what its memory is proportional to."""
        return sum(group.cache.cells for group in self._groups)

    def cells_with(self, lengths: Sequence[int]) -> int:
        """The most cells there can be until the end, if prompts join: no later step needs more.

        `lengths` has the tokens of each prompt (`Reasoner.length`) plus its `max_new_tokens`. Running answers count
        with the tokens that they may still have.
        """
        columns = [*(answer.columns_at_most for answer in self.running), *lengths]
        return sum(columns) if self._reasoner.config.batch_invariant else len(columns) * max(columns, default=0)

    @torch.inference_mode()
    def join(
        self, prompts: Sequence[Prompt], sequences: Sequence[TokenSequence] | None = None
    ) -> list[RunningAnswer | PromptTooLong | NotFinite]:
        """One forward pass over all prompts, which draws the first token of each; an answer may end with it.

        `sequences` are those of `Reasoner.sequence`, where the caller has them. What is wrong with one prompt comes in
        its place. Raises ValueError for an unknown mode, a missing memory or one of another width.
        """
        self._check()
        numbered: dict[int, TokenSequence] = {}
        results: dict[int, RunningAnswer | PromptTooLong | NotFinite] = {}
        for i, prompt in enumerate(prompts):
            try:
                numbered[i] = self._reasoner.sequence(prompt) if sequences is None else sequences[i]
            except PromptTooLong as error:
                results[i] = error
        alone = self._reasoner.config.batch_invariant
        batches = [[i] for i in numbered] if alone else [list(numbered)] if numbered else []
        joining = []
        for batch in batches:
            group, answers = self._reasoner.prefill([prompts[i] for i in batch], [numbered[i] for i in batch])
            joining.append(group)
            for i, answer in zip(batch, answers, strict=True):
                results[i] = answer.outcome if isinstance(answer.outcome, NotFinite) else answer
        self._add([group for group in joining if group.answers])
        return [results[i] for i in range(len(prompts))]

    def _add(self, groups: Sequence[RunningRows]) -> None:
        if groups and self._groups and not self._reasoner.config.batch_invariant:
            self._groups[0].join(groups[0])
        else:
            self._groups += groups

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every running answer. Those that end leave the cache."""
        self._change(lambda group: group.step())

    @torch.inference_mode()
    def drop(self, answers: Iterable[RunningAnswer]) -> None:
        """Takes answers out of the cache, whose outcome stays None. Answers that have ended are ignored."""
        dropped = list(answers)
        self._change(lambda group: group.drop(dropped))

    def _change(self, change: Callable[[RunningRows], None]) -> None:
        self._check()
        self._failed = True  # until all went well
        for group in self._groups:
            change(group)
        self._groups = [group for group in self._groups if group.answers]
        self._failed = False

    def _check(self) -> None:
        if self._failed:
            raise RuntimeError("this decoding has failed in the middle of a step: begin its answers again in a new one")


def make_prompt(
    text: str,
    image: Image | ImageFeatures | Sequence[Image | ImageFeatures] | None,
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
