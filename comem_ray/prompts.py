"""Every word of a prompt: the chat turns of an item to encode, of a retrieved item in rag mode, and of a question; the
instruction of the translation model.

A prompt is a list of parts. `ControlText` is our own and may hold control tokens. `PlainText` is the text of an item or
a question; all of it is tokenised as text. `ImagePart` is an image. Knows no tokenizer and no model.

The item turn is that of the paper's code (Qwen chat format, no system turn). Questions put the image first, in training
and in inference. Other families of models have other chat formats: a `Chat` holds the control text of one.
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


@dataclass(frozen=True)
class Chat:
    """The control text of a chat format. A turn is: its start, its images, its text, its end.

    `control` are the control tokens that a tokenizer must have, each as one token.
    """

    control: tuple[str, ...]
    end_token: str  # what a model ends its answer with
    user: str
    user_end: str
    assistant: str  # a prompt ends with it
    assistant_end: str  # begins with `end_token`
    system: tuple[str, str]  # before and after the text of a system turn
    default_system: str | None = None  # None: no system turn, unless one is given
    begin: str = ""  # before the whole prompt
    image: tuple[str, str] = ("", "")  # before and after each image
    after_images: str = ""  # between a turn's images and its text
    without_images: str = ""  # before the text of a user's turn that has no image
    reply: str = ""  # between `assistant` and the text of an answer, which the model itself writes


CHATML_IMAGE = ("<|vision_start|>", "<|vision_end|>")
CHATML = Chat(
    control=("<|im_start|>", "<|im_end|>", *CHATML_IMAGE),
    end_token="<|im_end|>",
    user="<|im_start|>user\n",
    user_end="<|im_end|>\n",
    assistant="<|im_start|>assistant\n",
    assistant_end="<|im_end|>\n",
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    default_system=SYSTEM,
    image=CHATML_IMAGE,
)
"""The format of Qwen2-VL and Qwen2.5-VL, and the default. The formats of other families: comem_ray.model.families."""

ASSISTANT = ControlText("<|im_end|>\n<|im_start|>assistant\n")
END = ControlText("<|im_end|>\n")


def item_turn(text: str, image: Any, chat: Chat = CHATML) -> list[PromptPart]:
    """The prompt of the memory encoder for one item: the image in the user's turn, the text in the assistant's."""
    return [
        *_control(chat.begin + chat.user),
        *image_parts(image, "item", chat),
        ControlText(chat.after_images + ITEM_CAPTION),
        ControlText(chat.user_end + chat.assistant + chat.reply),
        PlainText(text[:MAX_TEXT_CHARS]),
        ControlText(chat.assistant_end),
    ]


def question_prompt(
    text: str,
    image: Any | None,
    items: Sequence[tuple[str, Any]] = (),
    system: str | None = None,
    history: Sequence[Turn] = (),
    chat: Chat = CHATML,
) -> list[PromptPart]:
    """The reasoner's prompt, up to the start of the answer: system, items, earlier turns, the question.

    `image` is None, one image or a sequence of images; they come before the text. `items` (rag mode) come as user
    turns, text before image. `system` takes the place of the format's own, as text in which nothing becomes a control
    token.

    Memory is not a part: its embeddings come before the whole prompt, system turn included.
    """
    parts = [*_control(chat.begin), *_system_turn(system, chat)]
    for item_text, item_image in items:
        item = [PlainText(item_text[:MAX_TEXT_CHARS]), *image_parts(item_image, "item", chat)]
        parts += [*_control(chat.user + chat.without_images), *item, ControlText(chat.user_end)]
    for turn in history:
        parts += _history_turn(turn, chat)
    images = [] if image is None else image if isinstance(image, (list, tuple)) else [image]
    return [*parts, *_user_text(text, images, chat), ControlText(chat.user_end + chat.assistant)]


def answer_parts(text: str, chat: Chat = CHATML) -> list[PromptPart]:
    """An answer as it follows its prompt, with the end of its turn."""
    return [*_control(chat.reply), PlainText(text), ControlText(chat.assistant_end)]


def _system_turn(system: str | None, chat: Chat) -> list[PromptPart]:
    start, end = chat.system
    if system is not None:
        return [*_control(start), PlainText(system), *_control(end)]
    return [] if chat.default_system is None else [ControlText(start + chat.default_system + end)]


def _history_turn(turn: Turn, chat: Chat) -> list[PromptPart]:
    if turn.role == "user":
        return [*_user_text(turn.text, turn.images, chat), ControlText(chat.user_end)]
    images = _question_images(turn.images, chat)
    return [
        *_control(chat.assistant + chat.reply),
        *images,
        PlainText(turn.text),
        ControlText(chat.assistant_end),
    ]


def _user_text(text: str, images: Sequence[Any], chat: Chat) -> list[PromptPart]:
    """A user's turn up to its end."""
    if not images:
        return [*_control(chat.user + chat.without_images), PlainText(text)]
    return [
        *_control(chat.user),
        *_question_images(images, chat),
        *_control(chat.after_images),
        PlainText(text),
    ]


def _control(text: str) -> list[PromptPart]:
    return [ControlText(text)] if text else []


def _question_images(images: Sequence[Any], chat: Chat) -> list[PromptPart]:
    return [part for image in images for part in image_parts(image, "question", chat)]


def image_parts(image: Any, role: Literal["item", "question"], chat: Chat = CHATML) -> list[PromptPart]:
    """An image between its control tokens."""
    before, after = chat.image
    return [*_control(before), ImagePart(image, role), *_control(after)]


def options(question: str, choices: Sequence[tuple[str, str]], instruction: str) -> str:
    """A multiple-choice question: the question, one line per option (mark, text), and how to answer."""
    return "\n".join([question, *(f"{mark} {text}" for mark, text in choices), instruction])


def translation_instruction(language: str) -> str:
    """The system turn of the translation model; `language` is a BCP 47 code."""
    return (
        f"Translate the user's text into {LANGUAGES.get(language, language)}. Reply with the translation alone. Keep "
        "line breaks, numbers, names that have no translation, and every \\boxed{...} with its content translated."
    )
