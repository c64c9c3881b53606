"""The gallery of a report: which questions have a card, and how many are left out. Wrongly answered ones come first."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comem_ray.artifacts import fingerprint
from comem_ray.config import GalleryConfig
from comem_ray.prompts import MODES
from comem_ray.report.cards import Card, CardBuilder, Row
from comem_ray.tasks.example import Example

_WRONG = 2 / 3  # share of wrongly answered questions in the gallery, if there are as many


@dataclass(frozen=True)
class Gallery:
    """The cards of the chosen questions, and a text that says how they were chosen."""

    cards: list[Card]
    summary: str


def gallery(
    questions: Sequence[Example],
    rows: Sequence[Row],
    builder: CardBuilder,
    settings: GalleryConfig,
    anchor: str,
) -> Gallery:
    """At most `settings.questions` cards and `settings.max_mb` megabytes; `anchor` begins their anchors."""
    rows_by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rows_by_id[row["data_id"]].append(row)
    scores, mode = question_scores(rows_by_id)
    questions_by_id = {q.data_id: q for q in questions if q.data_id in rows_by_id}
    cards, room = list[Card](), settings.max_mb * 1e6
    for number, data_id in enumerate(choose(scores, settings.questions), start=1):
        question, card_anchor = questions_by_id[data_id], f"{anchor}-question-{number}"
        card = builder.card(question, rows_by_id[data_id], settings.image_side, card_anchor)
        room -= card.characters
        if room < 0:
            break
        cards.append(card)
    return Gallery(cards, _summary(scores, mode, cards))


def _summary(scores: Mapping[str, float], mode: str, cards: Sequence[Card]) -> str:
    if not scores:
        return "No question was asked."
    wrong = sum(score < 0.5 for score in scores.values())
    wrong_cards = sum(scores[card.data_id] < 0.5 for card in cards)
    return (
        f"Mode {mode} was wrong on {wrong:,} of {len(scores):,} questions. A question counts as wrong here if the mean "
        "score over all k, with the items as retrieved, is below one half. "
        f"Below are {wrong_cards:,} of these, then {len(cards) - wrong_cards:,} of the others. "
        f"{len(scores) - len(cards):,} questions are left out. Digests of the ids decide which."
    )


def question_scores(rows_by_id: Mapping[str, Sequence[Row]]) -> tuple[dict[str, float], str]:
    """The mean score (0..1) of each question over the arms of one mode, items as retrieved; and that mode.

    The mode is memory if it was asked, else rag, else none. A question without such an arm has the mean of all its
    arms.
    """
    modes = {row["mode"] for rows in rows_by_id.values() for row in rows}
    mode = next((m for m in reversed(MODES) if m in modes), MODES[0])
    scores = {}
    for data_id, rows in rows_by_id.items():
        of_mode = [r["score"] for r in rows if r["mode"] == mode and r["gold_position"] is None]
        scores[data_id] = statistics.fmean(of_mode or [r["score"] for r in rows])
    return scores, mode


def choose(scores: Mapping[str, float], count: int) -> list[str]:
    """The ids of at most `count` questions, the worst first; two thirds wrong ones if there are as many.

    Digests of the ids decide which of the wrong ones and which of the others. So they come from all of the file, and
    they are the same every time.
    """
    shuffled = sorted(scores, key=fingerprint)
    wrong = [data_id for data_id in shuffled if scores[data_id] < 0.5]
    right = [data_id for data_id in shuffled if scores[data_id] >= 0.5]
    chosen = wrong[: max(round(count * _WRONG), count - len(right))]
    chosen += right[: count - len(chosen)]
    return sorted(chosen, key=scores.__getitem__)
