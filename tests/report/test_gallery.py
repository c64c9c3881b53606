"""The gallery: which questions are in it, and that its size is bounded."""

from comem_ray.config import GalleryConfig
from comem_ray.knowledge.items import ItemStore
from comem_ray.report.cards import CardBuilder
from comem_ray.report.gallery import choose, gallery, question_scores
from comem_ray.report.tables import in_order
from comem_ray.tasks.images import ImageReader

COUNT = 24


def gallery_of(finished, predictions=None, **settings):
    items = ItemStore(finished.config.folder("items"))
    builder = CardBuilder(list(in_order(finished.figures.arms)), items, ImageReader())
    rows = finished.predictions if predictions is None else predictions
    return gallery(finished.questions, rows, builder, GalleryConfig(**settings), "p")


def test_wrong_ones_come_first_and_the_summary_counts_the_rest(finished):
    small = gallery_of(finished, questions=9)
    numbers = [int(c.data_id[1:]) for c in small.cards]
    assert [n % 3 == 0 for n in numbers] == [True] * 6 + [False] * 3
    assert "wrong on 8 of 24 questions" in small.summary
    assert "Below are 6 of these, then 3 of the others. 15 questions are left out." in small.summary
    assert len(gallery_of(finished, questions=99).cards) == COUNT
    assert gallery_of(finished, questions=0).cards == []
    assert gallery_of(finished, predictions=[]).summary == "No question was asked."


def test_its_megabytes_are_bounded(finished):
    small = gallery_of(finished, questions=99, max_mb=0.1)
    assert 0 < sum(c.characters for c in small.cards) <= 100_000
    assert f"{COUNT - len(small.cards)} questions are left out" in small.summary


def test_the_score_of_a_question_is_of_memory_with_the_items_as_retrieved():
    def row(mode, score, position=None):
        return {"mode": mode, "score": score, "gold_position": position}

    both = {"a": [row("rag", 0), row("memory", 1), row("memory", 0.5), row("memory", 0, position=1)]}
    assert question_scores(both) == ({"a": 0.75}, "memory")
    assert question_scores({"a": [row("none", 0), row("rag", 1)]}) == ({"a": 1}, "rag")


def test_the_choice_is_from_all_of_the_file():
    scores = {f"q{i}": 0.0 for i in range(1000)}
    numbers = [int(i[1:]) for i in choose(scores, 40)]
    assert len(set(numbers)) == 40
    assert min(numbers) < 200
    assert max(numbers) > 800
    assert len({n % 4 for n in numbers}) == 4  # a file may repeat its kinds of question in turn
