"""The format of a checkpoint follows from its language model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from comem_ray.config import ConfigError
from comem_ray.model.families import chats
from comem_ray.prompts import Chat, ImagePart, Turn, question_prompt


def text_of(chat: Chat) -> str:
    history = [Turn("user", "Hi"), Turn("assistant", "Ho")]
    parts = question_prompt("What?", "image", system="Be short.", history=history, chat=chat)
    return "".join("." if isinstance(part, ImagePart) else part.text for part in parts)


@pytest.mark.parametrize(
    ("model_type", "rows", "chat"),
    [
        ("mistral", 32_064, chats.MISTRAL),
        ("qwen2", 152_064, chats.LLAVA_CHATML),
        ("llama", 32_064, chats.VICUNA),
        ("llama", 64_064, chats.LLAVA_CHATML),
        ("llama", 128_320, chats.LLAMA3),
    ],
)
def test_of_a_llava(model_type: str, rows: int, chat: Chat) -> None:
    assert (
        chats.llava_chat(SimpleNamespace(text_config=SimpleNamespace(model_type=model_type, vocab_size=rows))) is chat
    )


def test_a_language_model_of_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="of type 'phi', whose chat format is not known"):
        chats.llava_chat(SimpleNamespace(text_config=SimpleNamespace(model_type="phi", vocab_size=9)))


@pytest.mark.parametrize(("rows", "begin"), [(49_280, "<|im_start|>"), (128_259, "<|begin_of_text|>")])
def test_of_an_idefics3(rows: int, begin: str) -> None:
    assert chats.idefics3_chat(SimpleNamespace(text_config=SimpleNamespace(vocab_size=rows))).begin == begin


@pytest.mark.parametrize(
    ("chat", "text"),
    [
        (chats.VICUNA, "<s>Be short. USER: Hi ASSISTANT: Ho</s>USER: .\nWhat? ASSISTANT:"),
        (chats.MISTRAL, "<s><<SYS>>\nBe short.\n<</SYS>>\n\n[INST] Hi [/INST] Ho</s>[INST] .\nWhat? [/INST]"),
        (
            chats.SMOLVLM,
            "<|im_start|>System: Be short.<end_of_utterance>\nUser: Hi<end_of_utterance>\nAssistant: Ho"
            "<end_of_utterance>\nUser:.What?<end_of_utterance>\nAssistant:",
        ),
        (
            chats.ONEVISION,
            "<|im_start|>system \nBe short.<|im_end|><|im_start|>user \nHi<|im_end|><|im_start|>assistant\nHo<|im_end|>"
            "<|im_start|>user .\nWhat?<|im_end|><|im_start|>assistant\n",
        ),
        (
            chats.INTERNVL,
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo"
            "<|im_end|>\n<|im_start|>user\n<img>.</img>\nWhat?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            chats.LLAMA3,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHo<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n.\nWhat?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_a_conversation(chat: Chat, text: str) -> None:
    assert text_of(chat) == text
    assert chat.assistant_end.startswith(chat.end_token)
    assert chat.end_token in chat.control
