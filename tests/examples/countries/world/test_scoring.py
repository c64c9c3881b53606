"""The rule `sentence`: what follows the last copula counts."""

import pytest

from examples.countries.world.scoring import sentence_score


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("Tunis", ["Tunis"]),
        ("The capital of Tunisia is Tunis.", ["Tunis"]),
        ("The currency of Denmark is the Krone.", ["Krone"]),  # English articles do not count
        ("the region of germany is WESTERN EUROPE", ["Western Europe"]),
        ("What is asked is the capital, which is Tunis", ["Tunis"]),  # the last copula
        ("La moneda de este país es el Euro.", ["Euro", "el Euro"]),
        ("La langue de ce pays est l'arabe.", ["arabe", "l'arabe"]),
        ("Die Hauptstadt dieses Landes ist Tunis.", ["Tunis"]),
        ("La capitale di questo paese è Tunisi.", ["Tunisi"]),
    ],
)
def test_a_right_answer_may_be_a_sentence(prediction: str, gold: list[str]) -> None:
    assert sentence_score(prediction, gold) == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("The capital of Tunisia is Tripoli.", ["Tunis"]),
        ("Tunis is the capital of Tunisia.", ["Tunis"]),  # the answer must follow
        ("The capital of Tunisia is Tunis, I think.", ["Tunis"]),
        ("La moneda de este país es el Euro.", ["Euro"]),  # articles of other languages are up to the gold
        ("thisTunis", ["Tunis"]),
        ("", ["Tunis"]),
    ],
)
def test_a_wrong_answer_scores_nothing(prediction: str, gold: list[str]) -> None:
    assert sentence_score(prediction, gold) == 0.0


@pytest.mark.parametrize("gold", [[], "Tunis", [1], None])
def test_a_gold_that_is_not_a_list_of_strings_is_refused(gold: object) -> None:
    with pytest.raises(ValueError, match="rule 'sentence' wants a list of strings"):
        sentence_score("Tunis", gold)  # type: ignore[arg-type]
