"""What stock processors make of a question with an image, and what stock models take as images.

The chat templates are those of the released checkpoints, cut down to what is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers import LlavaProcessor, Qwen2VLProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

from comem_ray.model.backbone import Backbone
from comem_ray.model.sequences import Batch, TokenSequence

CHATML = (
    "{% for message in messages %}"
    "{% if SYSTEM and loop.first %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA = (
    "{% for message in messages %}{{ message['role'].upper() + ': '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

STOCK_IMAGES: dict[str, Callable[[Batch, Sequence[TokenSequence]], dict[str, Any]]] = {
    **dict.fromkeys(
        ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"],
        lambda batch, sequences: {
            "pixel_values": batch.pixel_values,
            "image_grid_thw": batch.grids,
            "mm_token_type_ids": batch.token_types,
        },
    ),
    "llava": lambda batch, sequences: {"pixel_values": batch.pixel_values},
}


def _qwen(processor: type, system: bool) -> Callable[..., Any]:
    def make(backbone: Backbone) -> Any:
        sequencer = backbone.sequencer
        return processor(
            sequencer.image_processor,
            sequencer.tokenizer,
            Qwen3VLVideoProcessor(),
            chat_template=CHATML.replace("SYSTEM", str(system).lower()),
        )

    return make


def _llava(backbone: Backbone) -> Any:
    return LlavaProcessor(
        backbone.sequencer.image_processor,
        backbone.sequencer.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )


PROCESSORS: dict[str, Callable[[Backbone], Any]] = {
    "qwen2_5_vl": _qwen(Qwen2VLProcessor, True),
    "qwen2_vl": _qwen(Qwen2VLProcessor, True),
    "qwen3_vl": _qwen(Qwen3VLProcessor, False),
    "llava": _llava,
}


def stock_prompt_ids(family: str, backbone: Backbone, image: Image, text: str) -> tuple[list[int], Tensor]:
    """Token ids of a user's turn with one image, by the family's processor, and its pixels."""
    processor = PROCESSORS[family](backbone)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    prompt = processor.apply_chat_template([message], add_generation_prompt=True)
    sequencer = backbone.sequencer
    options = sequencer.options["question"]
    inputs = processor(
        images=[image], text=[prompt], return_tensors="pt", add_special_tokens=False, images_kwargs=options
    )
    ids = inputs["input_ids"][0].tolist()
    # The tokenizers of Llama 2 begin every text with <s> by themselves; the tiny one does not.
    return sequencer.control_ids("<s>") * (sequencer.chat.begin == "<s>") + ids, inputs["pixel_values"]
