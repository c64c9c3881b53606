"""Tables of a page against the figures that they are made of."""

from dataclasses import replace

from support.tiny_report import ITEMS

from comem_ray.evaluation.figures import Share
from comem_ray.report.tables import best, group_tables, headline, in_order, tables, tiles


def rows_of(figures, caption):
    (table,) = [t for t in tables(figures, in_order(figures.arms)) if t.caption == caption]
    return table.rows


def captions(figures):
    return [table.caption for table in tables(figures, in_order(figures.arms))]


def test_every_arm_has_its_figures(finished, page):
    head, *rows = page.tables["Every arm"]
    assert head[:5] == ["arm", "right, %", "95% interval", "questions", "items searched"]
    assert [r[0] for r in rows] == ["none", "rag, k=1", "rag, k=3", "memory, k=1", "memory, k=3"] + [
        f"{mode}, k=2, right item at {position}" for mode in ("rag", "memory") for position in (1, 2)
    ]
    for name, right, interval, n, searched, tokens, vectors, first, whole in rows:
        arm = finished.figures.arms[name]
        assert right == f"{arm.share.score:.1f}"
        assert interval == f"{arm.share.low:.1f} to {arm.share.high:.1f}"
        assert searched == ("" if name == "none" else str(ITEMS))
        assert [float(x) for x in (n, tokens.replace(",", ""), vectors, first, whole)] == [
            *(arm.share.n, arm.prompt_tokens, arm.memory_vectors, arm.first_token_ms, arm.answer_ms)
        ]


def test_pairs_recall_and_groups(page):
    (pair,) = [r for r in page.tables["Memory minus rag"] if r[0] == "k=1"]
    # 16 of 24 against 12; both right on 8: 8 questions only memory has, 4 only rag: p = 2 * 794 / 2**12.
    assert pair == ["k=1", "+16.7", "0.388", "24"]
    assert [r[0] for r in page.tables["Recall of retrieval"]] == ["k", "@1", "@3"]
    assert page.tables["By parity: right, %, and 95% interval"][1][:4] == ["even", "12", "0.00 to 24", "100.076 to 100"]


def test_a_time_that_was_not_measured_is_empty(finished):
    arms = {"none": replace(finished.figures.arms["none"], first_token_ms=None, answer_ms=None)}
    assert rows_of(replace(finished.figures, arms=arms), "Every arm")[0][-2:] == ["", ""]


def test_recall_in_several_knowledge_bases_has_a_table_each(finished):
    recall = {ITEMS: finished.figures.recall, 7: {1: Share(12.5, 1.0, 20.0, 24)}}
    figures = replace(finished.figures, recall_by_knowledge=recall)
    assert rows_of(figures, "Recall of retrieval among 7 items") == [["@1", "12.5", "1.0 to 20.0", "24"]]
    assert "Recall of retrieval among 14 items" in captions(figures)
    assert "Recall of retrieval among 14 items" not in captions(finished.figures)


def test_what_was_not_asked_is_counted_by_arm_and_fault(finished):
    assert "Questions not asked" not in captions(finished.figures)
    faults = {"none": {"image_missing": 2}, "rag, k=3": {"image_missing": 2, "prompt_too_long": 5}}
    arms = {name: replace(arm, unanswered=faults.get(name, {})) for name, arm in finished.figures.arms.items()}
    rows = rows_of(replace(finished.figures, arms=arms), "Questions not asked")
    assert rows == [["none", "2", "0"], ["rag, k=3", "2", "5"]]


def test_the_best_arm_of_each_mode_is_from_the_largest_knowledge_base(finished):
    arms = dict(finished.figures.arms)
    arms["rag, k=3, 7 items"] = replace(arms["rag, k=3"], knowledge=7, share=Share(99.0, 98.0, 100.0, 24))
    arms["memory, k=3"] = replace(arms["memory, k=3"], share=Share(70.0, 60.0, 80.0, 24))
    assert best(arms) == {"none": arms["none"], "rag": arms["rag, k=1"], "memory": arms["memory, k=3"]}
    assert [(t["name"], t["score"]) for t in tiles(in_order(arms))] == [
        ("none", "0.0%"),
        ("rag, k=1", "50.0%"),
        ("memory, k=3", "70.0%"),
    ]
    assert list(in_order(arms))[:3] == ["none", "rag, k=3, 7 items", "rag, k=1"]


def test_the_headline_has_the_gain_of_memory(finished):
    text = headline(finished.figures, in_order(finished.figures.arms))
    assert text.startswith("Right answers to 24 questions, by mode, each with the best k of 1, 3.")
    assert "Memory minus rag at k=1: +16.7 points (McNemar's test: p = 0.388)" in text
    alone = replace(finished.figures, memory_against_rag={})
    assert "minus" not in headline(alone, in_order(alone.arms))


def test_a_group_of_one_value_has_no_table(finished):
    assert [t.caption.split(":")[0] for t in group_tables(finished.figures.arms)] == [
        *("By language", "By parity", "By third")
    ]
    arms = {n: replace(a, groups={"language": {"en": a.share}}) for n, a in finished.figures.arms.items()}
    assert group_tables(arms) == []
