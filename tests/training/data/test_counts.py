from collections import Counter

import pytest

from comem_ray.config import SynthesisConfig
from comem_ray.training.data.counts import COUNTED, by_source, sampling, source_counts
from comem_ray.training.data.questions import RejectedSample


def rejected(reason: str, answer: str | None = None) -> RejectedSample:
    return RejectedSample("file.jsonl", 0, reason, "a sentence", answer=answer)


@pytest.mark.parametrize(
    ("outcome", "last"),
    [
        ({"sample_id": "a"}, "kept"),
        (rejected("wrong_answer", "Paris"), "answered"),
        (rejected("no_box", "Paris"), "answered"),
        (rejected("scoring_failed", "Paris"), "answered"),
        (rejected("cut_short", "Par"), "asked"),
        (rejected("empty_answer", ""), "asked"),
        (rejected("answer_failed"), "asked"),
        (rejected("image_missing"), "questions"),
        (rejected("prompt_too_long"), "questions"),
        (rejected("duplicate"), "questions"),
    ],
)
def test_an_outcome_counts_up_to_where_it_came(outcome, last):
    (counts,) = by_source(source_counts([("okvqa", outcome)])).values()
    passed = COUNTED.index(last) + 1
    assert list(counts.values()) == [1] * passed + [0] * (len(COUNTED) - passed)


def test_units_add_up_and_other_counts_are_passed_over():
    first = source_counts([("a.b", {}), ("a.b", rejected("wrong_answer", "x")), ("c", {})])
    second = source_counts([("a.b", rejected("image_missing"))])
    total = Counter({"questions": 4, "kept": 2})
    for counts in (first, second):
        total.update(counts)
    assert by_source(total) == {
        "a.b": {"questions": 3, "asked": 2, "answered": 2, "right": 1, "kept": 1},
        "c": {"questions": 1, "asked": 1, "answered": 1, "right": 1, "kept": 1},
    }


def test_sampling_names_seed_and_decoding(make_config):
    config = make_config(seed=7, reasoner={"temperature": 0.1, "top_p": 0.001})
    synthesis = SynthesisConfig.model_validate(
        {"sources": [{"task": "jsonl", "path": "q"}], "top_k": 3, "answer_with_items": 2}
    )
    found = sampling(config, synthesis)
    assert (found["seed"], found["temperature"], found["top_p"]) == (7, 0.1, 0.001)
    assert (found["items"], found["items in the prompt"], found["retrieval by"]) == (3, 2, "image")
