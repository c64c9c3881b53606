"""What stock processors make of a question with an image, and what stock models take as images.

The chat templates are those of the released checkpoints, cut down to what is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Idefics3Processor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

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

MISTRAL = (
    "{% for message in messages %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% endfor %}"
)
ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERNVL = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
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
    "llava_next": lambda batch, sequences: {"pixel_values": batch.pixel_values, "image_sizes": batch.grids},
    "llava_onevision": lambda batch, sequences: {"pixel_values": batch.pixel_values, "image_sizes": batch.grids},
    "idefics3": lambda batch, sequences: {"pixel_values": _padded_tiles(sequences)},
    "smolvlm": lambda batch, sequences: {"pixel_values": _padded_tiles(sequences)},
    "internvl": lambda batch, sequences: {"pixel_values": batch.pixel_values},
}


def _padded_tiles(sequences: Sequence[TokenSequence]) -> Tensor:
    """Tiles (sequences, tiles, 3, side, side) of one image per sequence, filled up with zeros."""
    return pad_sequence([s.pixels[0] for s in sequences if isinstance(s.pixels[0], Tensor)], batch_first=True)


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


def _llava(processor: type, template: str, cls: bool, **fields: Any) -> Callable[[Backbone], Any]:
    return lambda backbone: processor(
        backbone.sequencer.image_processor,
        backbone.sequencer.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default" if cls else "full",
        num_additional_image_tokens=1 if cls else 0,
        chat_template=template,
        **fields,
    )


def _onevision(backbone: Backbone) -> Any:
    settings, sequencer = backbone.sequencer.settings, backbone.sequencer
    return LlavaOnevisionProcessor(
        sequencer.image_processor,
        sequencer.tokenizer,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION,
        vision_aspect_ratio=settings.vision_aspect_ratio,
    )


def _idefics3(backbone: Backbone) -> Any:
    """For SmolVLM too, whose own processor has the same words for images and needs a package for numbers in words."""
    sequencer = backbone.sequencer
    return Idefics3Processor(sequencer.image_processor, sequencer.tokenizer, image_seq_len=4, chat_template=SMOLVLM)


def _internvl(backbone: Backbone) -> Any:
    tokenizer = backbone.sequencer.tokenizer
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    for name, token in {**names, "video_token": "<video>"}.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    processor = backbone.sequencer.image_processor
    return InternVLProcessor(processor, tokenizer, InternVLVideoProcessor(), image_seq_length=4, chat_template=INTERNVL)


PROCESSORS: dict[str, Callable[[Backbone], Any]] = {
    "qwen2_5_vl": _qwen(Qwen2VLProcessor, True),
    "qwen2_vl": _qwen(Qwen2VLProcessor, True),
    "qwen3_vl": _qwen(Qwen3VLProcessor, False),
    "llava": _llava(LlavaProcessor, LLAVA, cls=True),
    "llava_next": _llava(LlavaNextProcessor, MISTRAL, cls=True),
    "llava_onevision": _onevision,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "internvl": _internvl,
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
