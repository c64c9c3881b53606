"""Tokens of captions, and BLEU of summed counts against the library's own corpus figure."""

from __future__ import annotations

import numpy as np
import pytest

from comem_ray.tasks.rules.captions import caption_scores, corpus_bleu, tokens

CAPTIONS = ["a dog runs on the grass", "two men ride a bike.", "a red bus", ""]
REFERENCES = [
    ["A dog is running on the grass.", "The dog runs."],
    ["Two men riding a bike", "Two men ride a bike on a street."],
    ["A blue car parked near a house"],
    ["A cat."],
]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A man, riding a horse.", "a man riding a horse"),
        ("A man. A dog.", "a man a dog"),
        ("It doesn't stop", "it does n't stop"),
        ("The dog's tail", "the dog 's tail"),
        ("The dogs' tails", "the dogs tails"),
        ("A black-and-white cat", "a black-and-white cat"),
        ("at 10:30 a.m. today", "at 10:30 a.m. today"),
        ("Dr. Who cannot swim", "dr. who can not swim"),
        ('a sign (red) "stop"!', "a sign -lrb- red -rrb- stop"),
        ("a 3-story house - blue; big...", "a 3-story house blue big"),
        ("cats & dogs", "cats & dogs"),
        ("wow!!! a cat?!", "wow !!! a cat ?!"),  # runs of marks are not in the official list
        ("black/white and/or 1/2", "black/white and/or 1/2"),
        ("on Main St. at 5 o'clock, rock 'n' roll", "on main st. at 5 o'clock rock 'n' roll"),
        ("John F. Kennedy, U. S. flag", "john f. kennedy u. s. flag"),
        ("no. 5, and no.", "no. 5 and no"),
        ("3.5m, 10am, a 1,000-foot 3D-TV", "3.5 m 10am a 1,000-foot 3d-tv"),
        ("", ""),
    ],
)
def test_tokens(text, wanted):
    assert " ".join(tokens(text)) == wanted


def test_bleu_of_counts_is_the_librarys():
    from pycocoevalcap.bleu.bleu import Bleu

    said = {i: [" ".join(tokens(caption))] for i, caption in enumerate(CAPTIONS)}
    gold = {i: [" ".join(tokens(one)) for one in given] for i, given in enumerate(REFERENCES)}
    wanted, _ = Bleu(4).compute_score(gold, said, verbose=0)
    assert corpus_bleu(caption_scores(CAPTIONS, REFERENCES).counts.sum(axis=0)) == pytest.approx(wanted)


def test_figures_by_hand():
    found = caption_scores(CAPTIONS, REFERENCES)
    # "two men ride a bike": 5 of 5 words right in order against the second reference, 5 of 8 of its words
    precision, recall = 1.0, max(4 / 5, 5 / 8)
    assert found.rouge_l[1] == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))
    assert found.counts[1].tolist() == [5, 5, 5, 4, 3, 2, 5, 4, 3, 2]
    assert found.cider[3] == found.rouge_l[3] == 0.0
    assert np.all(found.cider <= 10)


def test_a_reference_itself_has_the_highest_cider():
    references = [["a dog runs on grass"], ["two men ride a bike"], ["one red bus parked here"]]
    assert caption_scores([one[0] for one in references], references).cider == pytest.approx([10.0] * 3)
