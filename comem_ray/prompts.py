"""Every word of a prompt: the chat turns of an item to encode, of a retrieved item in rag mode, and of a question; the
instruction of the translation model.

A prompt is a list of parts. `ControlText` is our own and may hold control tokens. `PlainText` is the text of an item or
a question; all of it is tokenised as text. `ImagePart` is an image. Knows no tokenizer and no model.

The item turn is that of the paper's code (Qwen chat format, no system turn). Questions put the image first, in training
and in inference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["none", "rag", "memory"]
MODES: tuple[Mode, ...] = ("none", "rag", "memory")

MAX_TEXT_CHARS = 5_000
"""Characters of an item's text that are used. Longer text is cut before tokenising."""

SYSTEM = "You are a helpful assistant."
BOXED = "Think step by step, then put the final answer, as short as it can be, in \\boxed{}."
BOXED_IN = {
    "en": BOXED,
    "es": "Piensa paso a paso y pon la respuesta final, lo más corta posible, en \\boxed{}.",
    "pt": "Pense passo a passo e ponha a resposta final, o mais curta possível, em \\boxed{}.",
    "zh": "请一步一步地思考，然后把尽可能简短的最终答案写在 \\boxed{} 中。",
    "ru": "Рассуждай шаг за шагом, затем запиши окончательный ответ, как можно короче, в \\boxed{}.",
    "bg": "Разсъждавай стъпка по стъпка, след това запиши крайния отговор, възможно най-кратък, в \\boxed{}.",
}
CHOOSE_LETTER = "The answer is the letter of the right option."
CHOOSE_NUMBER = "The answer is the number of the right option."
CHOOSE_WORDS = "The answer is the right option, word for word."
CAPTION = "Describe the picture in one sentence."
LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fil": "Filipino",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
    "zh": "Chinese",
}
ITEM_CAPTION = " Similar image and text knowledge for reference"


@dataclass(frozen=True)
class ControlText:
    """Our own text, tokenised with control tokens."""

    text: str


@dataclass(frozen=True)
class PlainText:
    """Text of an item or a question, in which nothing becomes a control token."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image, or its features. `role` chooses the pixel limits that it is resized within."""

    image: Any
    role: Literal["item", "question"]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are drawn, and the strings that end it.

    Raises ValueError for a value out of range.
    """

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    seed: int | None = None  # same seed, same draws, whatever else runs; None: from torch's global generator
    stop: tuple[str, ...] = ()  # not part of the answer

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}, want 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, want more than 0, at most 1")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}, want a number of 64 bits")
        if "" in self.stop:
            raise ValueError("a stop string is empty, want at least one character")


PromptPart = ControlText | PlainText | ImagePart


@dataclass(frozen=True)
class Turn:
    """An earlier turn of a conversation. Its images (or their features) come before its text."""

    role: Literal["user", "assistant"]
    text: str
    images: Sequence[Any] = ()


TURN_END, IMAGE_TOKEN = "<|im_end|>", "<|image_pad|>"
CONTROL_TOKENS = ("<|im_start|>", TURN_END, "<|vision_start|>", "<|vision_end|>", IMAGE_TOKEN)
"""The control tokens that a tokenizer must have, each as one token."""

USER = ControlText("<|im_start|>user\n")
ASSISTANT = ControlText("<|im_end|>\n<|im_start|>assistant\n")
ASSISTANT_TURN = ControlText("<|im_start|>assistant\n")
END = ControlText("<|im_end|>\n")


def item_turn(text: str, image: Any) -> list[PromptPart]:
    """The prompt of the memory encoder for one item: the image in the user's turn, the text in the assistant's."""
    return [
        USER,
        *image_parts(image, "item"),
        ControlText(ITEM_CAPTION),
        ASSISTANT,
        PlainText(text[:MAX_TEXT_CHARS]),
        END,
    ]


def question_prompt(
    text: str,
    image: Any | None,
    items: Sequence[tuple[str, Any]] = (),
    system: str | None = None,
    history: Sequence[Turn] = (),
) -> list[PromptPart]:
    """The reasoner's prompt, up to the start of the answer: system, items, earlier turns, the question.

    `image` is None, one image or a sequence of images; they come before the text. `items` (rag mode) come as user
    turns, text before image. `system` takes the place of SYSTEM, as text in which nothing becomes a control token.

    Memory is not a part: its embeddings come before the whole prompt, system turn included.
    """
    parts = _system_turn(system)
    for item_text, item_image in items:
        parts += [USER, PlainText(item_text[:MAX_TEXT_CHARS]), *image_parts(item_image, "item"), END]
    for turn in history:
        start = USER if turn.role == "user" else ASSISTANT_TURN
        parts += [start, *_question_images(turn.images), PlainText(turn.text), END]
    images = [] if image is None else image if isinstance(image, (list, tuple)) else [image]
    return [*parts, USER, *_question_images(images), PlainText(text), ASSISTANT]


def _system_turn(system: str | None) -> list[PromptPart]:
    if system is None:
        return [ControlText(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n")]
    return [ControlText("<|im_start|>system\n"), PlainText(system), END]


def _question_images(images: Sequence[Any]) -> list[PromptPart]:
    return [part for image in images for part in image_parts(image, "question")]


def image_parts(image: Any, role: Literal["item", "question"]) -> list[PromptPart]:
    """An image between its control tokens."""
    return [ControlText("<|vision_start|>"), ImagePart(image, role), ControlText("<|vision_end|>")]


def options(question: str, choices: Sequence[tuple[str, str]], instruction: str) -> str:
    """A multiple-choice question: the question, one line per option (mark, text), and how to answer."""
    return "\n".join([question, *(f"{mark} {text}" for mark, text in choices), instruction])


def translation_instruction(language: str) -> str:
    """The system turn of the translation model; `language` is a BCP 47 code."""
    return (
        f"Translate the user's text into {LANGUAGES.get(language, language)}. Reply with the translation alone. Keep "
        "line breaks, numbers, names that have no translation, and every \\boxed{...} with its content translated."
    )
