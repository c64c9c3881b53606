"""The reference for our token loop: stock `generate` of transformers over one prompt's embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from comem_ray.model.decoding import stop_ids
from comem_ray.model.reasoner import Prompt, Reasoner


class _WithPrompt(LogitsProcessor):
    """The stock penalty, given the prompt's ids too: `generate` sees none of a prompt that goes in as embeddings."""

    def __init__(self, penalty: float, ids: list[int]):
        self.stock, self.ids = RepetitionPenaltyLogitsProcessor(penalty), torch.tensor([ids])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        return self.stock(torch.cat([self.ids, input_ids], 1), scores)


@torch.inference_mode()
def stock_tokens(reasoner: Reasoner, prompt: Prompt, penalty: float = 1.0) -> list[int]:
    """The tokens (stop included) that `generate` makes for this prompt alone, greedily."""
    sequencer, model = reasoner.backbone.sequencer, reasoner.backbone.model
    sequence = reasoner.sequence(prompt)
    batch, embeds = reasoner.inputs([prompt], [sequence])
    processors = [_WithPrompt(penalty, sequence.ids)] if penalty != 1 else []
    tokens = model.generate(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask,
        position_ids=reasoner.backbone.positions(batch),
        max_new_tokens=prompt.max_new_tokens or reasoner.config.max_new_tokens,
        logits_processor=LogitsProcessorList(processors),
        eos_token_id=stop_ids(model.generation_config, sequencer.tokenizer, sequencer.turn_end_id),
        pad_token_id=sequencer.pad_id,
        do_sample=False,
        repetition_penalty=None,
    )
    return tokens[0].tolist()
