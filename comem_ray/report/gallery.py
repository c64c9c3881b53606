"""The gallery of a report: some questions with their image, every answer with its verdict, and the items before them.

Wrong ones first; how many of what kind were left out is said. Knows nothing of HTML.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comem_ray.artifacts import fingerprint
from comem_ray.config import GalleryConfig
from comem_ray.evaluation.questions import EvaluationQuestion, opened
from comem_ray.knowledge.images import ImageError, open_image
from comem_ray.knowledge.items import Item, ItemStore
from comem_ray.prompts import MODES
from comem_ray.report.page import data_uri
from comem_ray.tasks.images import ImageReader
from comem_ray.tasks.rules.scoring import number_range

Row = Mapping[str, Any]

SOURCES = 5  # shown of a question, best first
_ITEM_SIDE = 72  # pixels of an item's image
_MAX_PIXELS = 100_000_000  # of an image that is opened
_WRONG = 2 / 3  # of the gallery, where there are as many


@dataclass(frozen=True)
class Sights:
    """Where a card's images come from: the items, and a reader of questions' images."""

    items: ItemStore
    reader: ImageReader

    def image(self, question: EvaluationQuestion) -> bytes | None:
        """The question's image from where it lies; None where none can be read."""
        return opened(question, self.reader, _MAX_PIXELS).image


@dataclass(frozen=True)
class Said:
    """One answer, and the arms that gave it: {"name", "mode"} each."""

    text: str
    score: float
    arms: list[dict[str, str]]

    @property
    def verdict(self) -> str:
        return "right" if self.score >= 0.5 else "wrong"


@dataclass(frozen=True)
class Source:
    """An item before a question. `rank` is its place in retrieval, from 1; 0 where it was not retrieved."""

    title: str
    language: str
    url: str | None
    image: str | None
    rank: int
    right: bool


@dataclass(frozen=True)
class Card:
    anchor: str
    data_id: str
    question: str
    gold: str
    language: str
    groups: Mapping[str, str]
    image: str | None
    answers: list[Said]
    sources: list[Source]
    sources_said: str

    @property
    def characters(self) -> int:
        """About what the card takes on the page."""
        texts = [self.question, self.gold, *(a.text for a in self.answers)]
        images = [self.image or "", *(s.image or "" for s in self.sources)]
        return sum(map(len, texts + images)) + 250 * (len(self.answers) + len(self.sources) + 2)


def gallery(
    questions: Sequence[EvaluationQuestion],
    rows: Sequence[Row],
    arms: Sequence[str],
    sights: Sights,
    settings: GalleryConfig,
    anchor: str,
) -> dict[str, Any]:
    """`cards` of the chosen questions, and what is `said` of the choice. `arms` are names in the order to show."""
    given: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        given[row["data_id"]].append(row)
    judged, mode = lead_scores(given)
    asked = {q.data_id: q for q in questions if q.data_id in given}
    chosen = choose(judged, settings.questions)
    cards, room = list[Card](), settings.max_mb * 1e6
    for number, data_id in enumerate(chosen, start=1):
        card = _card(asked[data_id], given[data_id], arms, sights, settings, f"{anchor}-question-{number}")
        room -= card.characters
        if room < 0:
            break
        cards.append(card)
    wrong = sum(score < 0.5 for score in judged.values())
    shown = sum(judged[c.data_id] < 0.5 for c in cards)
    said = (
        f"Mode {mode} was wrong on {wrong:,} of {len(asked):,} questions (mean of its k, items as retrieved, below one "
        f"half). Shown are {shown:,} of these first, then {len(cards) - shown:,} of the others; "
        f"{len(asked) - len(cards):,} are left out. The choice is drawn by digests of their ids."
    )
    return {"cards": cards, "said": said if asked else "No question was asked."}


def lead_scores(given: Mapping[str, Sequence[Row]]) -> tuple[dict[str, float], str]:
    """Mean score of each question over the arms of one mode, items as retrieved; and that mode: memory where asked."""
    asked = {row["mode"] for rows in given.values() for row in rows}
    mode = next((m for m in reversed(MODES) if m in asked), MODES[0])
    scores = {}
    for data_id, rows in given.items():
        some = [r["score"] for r in rows if r["mode"] == mode and r["gold_position"] is None] or [
            r["score"] for r in rows
        ]
        scores[data_id] = statistics.fmean(some)
    return scores, mode


def choose(scores: Mapping[str, float], count: int) -> list[str]:
    """The ids of at most `count` questions, the worst first; two thirds wrong ones where there are as many.

    Which of the wrong ones, and of the others, follows from digests of their ids: from all of the file, and every time
    the same.
    """
    drawn = sorted(scores, key=fingerprint)
    wrong = [data_id for data_id in drawn if scores[data_id] < 0.5]
    right = [data_id for data_id in drawn if scores[data_id] >= 0.5]
    chosen = wrong[: max(round(count * _WRONG), count - len(right))]
    chosen += right[: count - len(chosen)]
    return sorted(chosen, key=scores.__getitem__)


def _card(
    question: EvaluationQuestion,
    rows: Sequence[Row],
    arms: Sequence[str],
    sights: Sights,
    settings: GalleryConfig,
    anchor: str,
) -> Card:
    sources, said = _sources(question, rows, sights.items)
    return Card(
        anchor=anchor,
        data_id=question.data_id,
        question=question.question,
        gold=gold_text(question.gold),
        language=question.language,
        groups=question.groups,
        image=_image(sights.image(question), settings.image_side),
        answers=_answers(rows, arms),
        sources=sources,
        sources_said=said,
    )


def gold_text(gold: Any) -> str:
    """A gold answer of any rule in words."""
    try:
        limits = number_range(gold)
    except ValueError:  # of a benchmark with a form of its own
        limits = None
    if limits is not None:
        return f"{limits[0]:g} to {limits[1]:g}"
    if isinstance(gold, Mapping):
        return ", ".join(f"{name}: {gold_text(value)}" for name, value in gold.items())
    if isinstance(gold, list | tuple):
        return " | ".join(dict.fromkeys(map(gold_text, gold)))
    return str(gold)


def _answers(rows: Sequence[Row], arms: Sequence[str]) -> list[Said]:
    """The different answers, each with its arms, in the order of the arms."""
    found: dict[tuple[str, float], Said] = {}
    for row in sorted(rows, key=lambda r: arms.index(r["arm"])):
        text = f"(not asked: {row['fault']})" if row.get("fault") else row["prediction"]
        said = found.setdefault((text, row["score"]), Said(text, row["score"], []))
        said.arms.append({"name": row["arm"], "mode": row["mode"]})
    return list(found.values())


def _sources(question: EvaluationQuestion, rows: Sequence[Row], store: ItemStore) -> tuple[list[Source], str]:
    """The first items of the longest list that retrieval gave, the right one beside them, and a heading."""
    lists = [r for r in rows if r["gold_position"] is None and r["item_ids"]]
    if not lists:
        return [], ""
    longest = max(lists, key=lambda r: (r.get("knowledge") or 0, len(r["item_ids"])))
    ids, gold = list(longest["item_ids"]), question.gold_items
    shown = ids[:SOURCES]
    if gold and not set(gold) & set(shown) and gold[0] in store:
        shown.append(gold[0])
    items = store.get(shown)
    sources = [_source(item, ids.index(item.item_id) + 1 if item.item_id in ids else 0, gold) for item in items]
    first = f"the first {SOURCES} of {len(ids)}" if len(ids) > SOURCES else str(len(ids))
    return sources, f"Sources: {first}; {_rank(longest['rank'])}"


def _rank(rank: int | None) -> str:
    if rank is None:
        return "the right item is not known"
    return f"the right item at rank {rank}" if rank else "the right item not among the retrieved"


def _source(item: Item, rank: int, gold: Sequence[str]) -> Source:
    title, image = item.title or item.text[:60], _image(item.image, _ITEM_SIDE)
    return Source(title, item.language, web_address(item.page_url), image, rank, item.item_id in gold)


def web_address(url: str | None) -> str | None:
    """The address of a page where it is one: a link of another kind, such as javascript:, would run."""
    return url if url is not None and url.startswith(("https://", "http://")) else None


def _image(data: bytes | None, side: int) -> str | None:
    """None where there is none, or it cannot be opened: the answers are worth showing all the same."""
    if data is None:
        return None
    try:
        return data_uri(open_image(data, _MAX_PIXELS), side)
    except ImageError:
        return None
