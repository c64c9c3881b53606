"""The cards of a report's gallery: a question with its image, every answer with its verdict, and the retrieved items.

Knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comem_ray.evaluation.questions import with_image
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.knowledge.items import Item, ItemStore
from comem_ray.report.page import data_uri
from comem_ray.tasks.example import Example
from comem_ray.tasks.images import ImageReader
from comem_ray.tasks.rules.scoring import number_range

Row = Mapping[str, Any]
"""A row of PREDICTION_SCHEMA (comem_ray.evaluation.predictions), scored."""

SOURCES = 5  # most items of a card, best first
_ITEM_SIDE = 72  # pixels of an item's image
_MAX_PIXELS = 100_000_000  # of an image that is opened


@dataclass(frozen=True)
class CardAnswer:
    """An answer, and the arms that gave it: {"name", "mode"} each."""

    text: str
    score: float
    arms: list[dict[str, str]]

    @property
    def verdict(self) -> str:
        return "right" if self.score >= 0.5 else "wrong"


@dataclass(frozen=True)
class CardSource:
    """An item. `rank` is its position in retrieval, from 1; 0 if it was not retrieved. `right`: it holds the answer."""

    title: str
    language: str
    url: str | None
    image: str | None
    rank: int
    right: bool


@dataclass(frozen=True)
class Card:
    """A question as the gallery shows it. Images are data: URIs; None where there is no image."""

    anchor: str
    data_id: str
    question: str
    gold: str
    language: str
    groups: Mapping[str, str]
    image: str | None
    answers: list[CardAnswer]
    sources: list[CardSource]
    sources_heading: str

    @property
    def characters(self) -> int:
        """About how many characters the card takes on the page."""
        texts = [self.question, self.gold, *(a.text for a in self.answers)]
        images = [self.image or "", *(s.image or "" for s in self.sources)]
        return sum(map(len, texts + images)) + 250 * (len(self.answers) + len(self.sources) + 2)


@dataclass(frozen=True)
class CardBuilder:
    """What cards are made with: the arms in the order to show, the items, and a reader of the questions' images."""

    arms: Sequence[str]
    items: ItemStore
    images: ImageReader

    def card(self, question: Example, rows: Sequence[Row], image_side: int, anchor: str) -> Card:
        """The card of a question and its predictions; its image has `image_side` pixels, its heading is `anchor`."""
        sources, heading = _sources(question, rows, self.items)
        return Card(
            anchor=anchor,
            data_id=question.data_id,
            question=question.question,
            gold=gold_text(question.gold),
            language=question.language,
            groups=question.groups,
            image=_image(with_image(question, self.images, _MAX_PIXELS).image, image_side),
            answers=_answers(rows, self.arms),
            sources=sources,
            sources_heading=heading,
        )


def gold_text(gold: Any) -> str:
    """The right answer of any rule, as a text for readers."""
    try:
        limits = number_range(gold)
    except ValueError:  # of a task whose gold has another form
        limits = None
    if limits is not None:
        return f"{limits[0]:g} to {limits[1]:g}"
    if isinstance(gold, Mapping):
        return ", ".join(f"{name}: {gold_text(value)}" for name, value in gold.items())
    if isinstance(gold, list | tuple):
        return " | ".join(dict.fromkeys(map(gold_text, gold)))
    return str(gold)


def _answers(rows: Sequence[Row], arms: Sequence[str]) -> list[CardAnswer]:
    """The different answers, each with its arms, in the order of the arms."""
    answers: dict[tuple[str, float], CardAnswer] = {}
    for row in sorted(rows, key=lambda r: arms.index(r["arm"])):
        text = f"(not asked: {row['fault']})" if row["fault"] else row["prediction"]
        answer = answers.setdefault((text, row["score"]), CardAnswer(text, row["score"], []))
        answer.arms.append({"name": row["arm"], "mode": row["mode"]})
    return list(answers.values())


def _sources(question: Example, rows: Sequence[Row], store: ItemStore) -> tuple[list[CardSource], str]:
    """The first items of the longest list that was retrieved, then the right item if it is not among them; a heading.

    Of lists of one length, that from the largest knowledge base counts.
    """
    retrieved = [row for row in rows if row["gold_position"] is None and row["item_ids"]]
    if not retrieved:
        return [], ""
    longest = max(retrieved, key=lambda row: (row["knowledge"], len(row["item_ids"])))
    ids, gold = list(longest["item_ids"]), question.gold_items
    visible = ids[:SOURCES]
    if gold and not set(gold) & set(visible) and gold[0] in store:
        visible.append(gold[0])
    sources = [
        _source(item, ids.index(item.item_id) + 1 if item.item_id in ids else 0, gold) for item in store.get(visible)
    ]
    count = f"the first {SOURCES} of {len(ids)}" if len(ids) > SOURCES else str(len(ids))
    return sources, f"Sources: {count}; {_rank(longest['rank'])}"


def _rank(rank: int | None) -> str:
    if rank is None:
        return "the right item is not known"
    return f"the right item is at rank {rank}" if rank else "the right item was not retrieved"


def _source(item: Item, rank: int, gold: Sequence[str]) -> CardSource:
    title, image = item.title or item.text[:60], _image(item.image, _ITEM_SIDE)
    return CardSource(title, item.language, web_address(item.page_url), image, rank, item.item_id in gold)


def web_address(url: str | None) -> str | None:
    """`url` if it is http or https, else None: a link of another kind, such as javascript:, would run."""
    return url if url is not None and url.startswith(("https://", "http://")) else None


def _image(data: bytes | None, side: int) -> str | None:
    """The image as a data: URI; None if there is none or it cannot be opened: the answers are shown all the same."""
    if data is None:
        return None
    try:
        return data_uri(open_image(data, _MAX_PIXELS), side)
    except ImageError:
        return None
