"""The final answer: the last box or the whole text, and the dress that comes off it."""

from __future__ import annotations

import pytest

from comem_ray.tasks.rules.final_answer import boxed, final_answer
from comem_ray.tasks.rules.scoring import score


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"So it is \boxed{Paris}.", "Paris"),
        (r"\boxed{Rome}, no: \boxed{ Paris }", "Paris"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\boxed{Rome} and \boxed{Par", "Rome"),
        (r"\boxed{}", ""),
        (r"\boxed{Par", None),
        ("Paris", None),
    ],
)
def test_boxed(text, wanted):
    assert boxed(text) == wanted


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So it is \boxed{Paris}.", "Paris"),
        (r"So it is \boxed{}.", ""),  # an empty box is an empty answer
        (r"\boxed{ }", ""),
        (r"\boxed{Par", r"\boxed{Par"),
        ("Paris", "Paris"),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # Commands that only set type, and what may stand around them.
        (r"\boxed{\text{Paris}}", "Paris"),
        (r"\boxed {Paris}", "Paris"),
        ("\\boxed\n{Paris}", "Paris"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\text{ B }}", "B"),
        (r"\boxed{\mathbf{\text{Paris}}}", "Paris"),
        (r"\boxed{\textbf{\emph{New~York}}}", "New York"),
        (r"\boxed{\mathrm{Paris}}", "Paris"),
        (r"\boxed{\underline{\textit{Lion}}}", "Lion"),
        (r"\boxed{\textcolor{red}{Paris}}", "Paris"),
        (r"\boxed{\href{https://a.b/c}{Paris}}", "Paris"),
        (r"\boxed{\operatorname{Paris}}", "Paris"),
        (r"\boxed{\bf Paris}", "Paris"),
        (r"\boxed{\displaystyle 5}", "5"),
        (r"\boxed{\left(5\right)}", "(5)"),
        (r"\fbox{Paris}", "Paris"),
        (r"\boxed{\fbox{Paris}}", "Paris"),
        (r"\boxed{\boxed{Paris}}", "Paris"),
        (r"\boxed{{Paris}}", "Paris"),
        (r"\text{Paris}", "Paris"),
        (r"\\boxed{\\text{Paris}}", "Paris"),  # escaped once too often
        # Numbers, spaces and units.
        (r"\boxed{1{,}200}", "1,200"),
        (r"\boxed{1,\!200}", "1,200"),
        (r"\boxed{1\,200}", "1200"),
        (r"\boxed{12~345~678\;\text{m}}", "12345678 m"),
        (r"\boxed{5\,\mathrm{km}}", "5 km"),
        (r"\boxed{5~km}", "5 km"),
        (r"\boxed{1990\,–\,1995}", "1990 – 1995"),
        (r"\boxed{3 \times 4}", "3 × 4"),
        (r"\boxed{5^\circ}", "5°"),
        (r"\boxed{20\ ^\circ\mathrm{C}}", "20°C"),
        (r"\boxed{5^{\circ}\text{C}}", "5°C"),
        (r"\boxed{19^{\text{th}}}", "19th"),
        (r"\boxed{\text{CO}_{2}}", "CO2"),
        (r"\boxed{H_2O}", "H2O"),
        # Escapes and accents.
        (r"\boxed{50\%}", "50%"),
        (r"\boxed{\$5}", "$5"),
        (r"\boxed{\text{Rock } \& \text{ Roll}}", "Rock & Roll"),
        (r"\boxed{Caf\'e}", "Café"),
        (r"\boxed{\text{M\"unchen}}", "München"),
        (r"\boxed{S\~{a}o Paulo}", "São Paulo"),
        (r"\boxed{\text{Stra\ss e}}", "Straße"),
        # Maths around the answer.
        (r"$\boxed{Paris}$", "Paris"),
        (r"\(\boxed{\text{Paris}}\)", "Paris"),
        (r"\boxed{$5$}", "5"),
        ("$5$", "5"),
        ("$330$ metres", "330 metres"),
        ("$$330$$", "330"),
        (r"\[330\]", "330"),
        # Emphasis of markdown.
        ("**Paris**", "Paris"),
        ("*Paris*", "Paris"),
        ("__Paris__", "Paris"),
        ("_Paris_", "Paris"),
        ("***Paris***", "Paris"),
        ("`Paris`", "Paris"),
        ("```\nParis\n```", "Paris"),
        ("```paris```", "paris"),
        (r"\boxed{**Paris**}", "Paris"),
        ("The answer is **B**.", "The answer is B."),
        ("答案是**巴黎**。", "答案是巴黎。"),
    ],
)
def test_the_dress_comes_off(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "M*A*S*H",
        "2 * 3 * 4",
        "2**3**4",
        "$5 and $10",
        "$5-$10",
        "snake_case_name",
        "~5 km",
        "f{x}",
        " dog",  # A-OKVQA compares to the letter
        "** Paris **",
        r"\frac{1}{2}",
        "",
    ],
)
def test_what_is_no_dress_stays(text):
    assert final_answer(text) == text


def test_the_dress_comes_off_before_every_exact_rule():
    for text in (r"\boxed{\text{Paris}}", r"\boxed {Paris}", "**Paris**", r"$\text{Paris}$"):
        assert score("exact", final_answer(text), ["Paris"]) == 1.0
        assert score("vqa", final_answer(text), ["Paris"] * 10) == 1.0  # all agree: compared to the letter
    gold = [{"wikidata": 1200, "range": [1100, 1300]}]
    for number in (r"1{,}200", r"1\,200", r"\text{1,200 m}", r"$1200$"):
        assert score("infoseek", final_answer(rf"\boxed{{{number}}}"), gold) == 1.0


def test_long_texts_take_no_long_time():
    for text in ("*a " * 30_000, "$a" * 30_000, r"\text{" * 300, "**" * 30_000, "__a" * 20_000):
        assert final_answer(text) is not None
