"""The chat formats of the families, as their released chat templates write them.

Sources: the chat templates of the llava-hf, HuggingFaceTB, OpenGVLab and Qwen checkpoints. Where a template has no
system turn of its own, none is written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comem_ray.config import ConfigError
from comem_ray.prompts import CHATML, Chat

QWEN3 = replace(CHATML, default_system=None)

LLAVA_CHATML = replace(
    CHATML, control=("<|im_start|>", "<|im_end|>"), default_system=None, image=("", "\n"), after_images=""
)
"""LLaVA-NeXT 34B and 72B."""

ONEVISION = Chat(
    control=("<|im_start|>", "<|im_end|>"),
    end_token="<|im_end|>",
    user="<|im_start|>user ",
    user_end="<|im_end|>",
    assistant="<|im_start|>assistant\n",
    assistant_end="<|im_end|>",
    system=("<|im_start|>system \n", "<|im_end|>"),
    after_images="\n",
    without_images="\n",
)

VICUNA = Chat(
    control=("<s>", "</s>"),
    end_token="</s>",
    user="USER: ",
    user_end=" ",
    assistant="ASSISTANT:",
    assistant_end="</s>",
    system=("", " "),
    begin="<s>",
    image=("", "\n"),
    reply=" ",
)

MISTRAL = Chat(
    control=("<s>", "</s>"),
    end_token="</s>",
    user="[INST] ",
    user_end=" [/INST]",
    assistant="",
    assistant_end="</s>",
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    begin="<s>",
    image=("", "\n"),
    reply=" ",
)

_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
LLAMA3 = Chat(
    control=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    end_token="<|eot_id|>",
    user=_HEADER.format("user"),
    user_end="<|eot_id|>",
    assistant=_HEADER.format("assistant"),
    assistant_end="<|eot_id|>",
    system=(_HEADER.format("system"), "<|eot_id|>"),
    begin="<|begin_of_text|>",
    image=("", "\n"),
)

SMOLVLM = Chat(
    control=("<|im_start|>", "<end_of_utterance>"),
    end_token="<end_of_utterance>",
    user="User:",
    user_end="<end_of_utterance>\n",
    assistant="Assistant:",
    assistant_end="<end_of_utterance>\n",
    system=("System: ", "<end_of_utterance>\n"),
    begin="<|im_start|>",
    without_images=" ",
    reply=" ",
)

IDEFICS3 = replace(SMOLVLM, control=("<|begin_of_text|>", "<end_of_utterance>"), begin="<|begin_of_text|>")

INTERNVL = replace(
    CHATML,
    control=("<|im_start|>", "<|im_end|>"),
    default_system=None,
    image=("<img>", "</img>\n"),
)

_ROWS_OF_LLAMA_2, _ROWS_OF_YI = 40_000, 100_000  # at most: rows of the token embedding


def idefics3_chat(settings: Any) -> Chat:
    """The format of an Idefics3 or SmolVLM checkpoint: they differ in the token that begins a prompt."""
    return IDEFICS3 if settings.text_config.vocab_size > _ROWS_OF_YI else SMOLVLM


def llava_chat(settings: Any) -> Chat:
    """The format of a LLaVA checkpoint, which is that of its language model.

    config.json does not name it. Language models of type llama are Vicuna, Yi or Llama 3, by the size of their
    vocabulary. Raises ConfigError for a language model of another type.
    """
    text = settings.text_config
    if text.model_type == "mistral":
        return MISTRAL
    if text.model_type in ("qwen2", "qwen3"):
        return LLAVA_CHATML
    if text.model_type != "llama":
        raise ConfigError(
            f"backbone.model has a language model of type {text.model_type!r}, whose chat format is not known: "
            "take a LLaVA checkpoint with Vicuna, Mistral, Llama 3, Yi or Qwen2"
        )
    if text.vocab_size <= _ROWS_OF_LLAMA_2:
        return VICUNA
    return LLAVA_CHATML if text.vocab_size <= _ROWS_OF_YI else LLAMA3
