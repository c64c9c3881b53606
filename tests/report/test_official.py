"""Official summaries as tables: every figure has its column, and what could not be asked is counted."""

from dataclasses import replace

from comem_ray.evaluation.figures import Faults
from comem_ray.report.official import official_tables, summary_figures


def figure(score):
    return {"score": score, "interval": [score - 1, score + 1], "n": 8}


def summary(score, **fields):
    counts = {"n": 8, "missing": 1, "unparsable": 0}
    return {"overall": score, "interval": [score - 1, score + 1], **counts, **fields}


def source(official):
    return {"benchmark": "infoseek", "official": official, "warnings": ["Titles are missing."], "left_out": 1_200}


def test_every_figure_of_a_summary_has_a_name():
    full = summary(
        50.0,
        harmonic_means={"val": figure(40.0), "query": None},
        metrics={"CIDEr": figure(50.0), "BLEU-4": figure(9.0)},
        f1=figure(60.0),
        per_split={"seen": figure(70.0), "unseen": figure(30.0)},
        per_type={"String": figure(20.0), "Time": figure(25.0)},
        per_language={"en": figure(50.0)},  # one group is the whole
    )
    assert {name: value["score"] for name, value in summary_figures(full).items()} == {
        "overall": 50.0,
        "harmonic mean (val)": 40.0,
        "BLEU-4": 9.0,
        "F1": 60.0,
        "seen": 70.0,
        "unseen": 30.0,
        "type String": 20.0,
        "type Time": 25.0,
    }


def test_a_source_is_a_table_in_the_order_of_the_arms(finished):
    official = {"rag, k=1": summary(50.0, f1=figure(60.0)), "none": summary(20.0)}
    figures = replace(finished.figures, sources={"infoseek": source(official), "ours": source({})})
    (table,) = official_tables(figures, ["none", "rag, k=1", "memory, k=1"])
    assert table.caption == "infoseek, by its own rule"
    assert table.head == ["arm", "overall", "F1", "questions", "missing", "unparsable"]
    assert table.rows == [
        ["none", "20.0<br><small>19 to 21</small>", "", "8", "1", "0"],
        ["rag, k=1", "50.0<br><small>49 to 51</small>", "60.0<br><small>59 to 61</small>", "8", "1", "0"],
    ]
    assert "does not score: 1,200." in table.note
    assert table.note.endswith("Titles are missing.")


def test_what_could_not_be_asked(finished):
    assert official_tables(finished.figures, []) == []
    images = Faults(3, [{"data_id": "infoseek/a3", "reason": "image_missing"}])
    rejected = Faults(2, [{"where": "/somewhere/val.jsonl, line 3", "reason": "no question"}])
    figures = replace(finished.figures, missing_images=images, rejected=rejected)
    (table,) = official_tables(figures, [])
    assert [row[1:] for row in table.rows] == [
        ["3", "infoseek/a3 (image_missing)"],
        ["2", "val.jsonl, line 3: no question"],  # the name of the file, no path
    ]
