import numpy as np

from examples.countries.world.countries import HELD_OUT, held_out_countries, load_countries, training_countries


def _country(code: str):
    return next(c for c in load_countries() if c.code == code)


def test_every_entry_is_there_once() -> None:
    codes = [c.code for c in load_countries()]
    assert len(codes) == len(set(codes)) == 251
    assert codes == sorted(codes)


def test_facts_are_those_of_the_data() -> None:
    france = _country("FRA")
    assert (france.capital, france.area, france.region) == ("Paris", "Western Europe", "Europe")
    assert (france.currency.code, france.currency.word, france.languages[0]) == ("EUR", "Euro", "French")
    assert france.names["ja"] == "フランス"
    assert _country("SEN").currency.word == "Franc"


def test_nobody_pays_with_a_fund_code() -> None:
    assert (_country("CHL").currency.code, _country("CHE").currency.code) == ("CLP", "CHF")


def test_an_absent_fact_stays_absent() -> None:
    antarctica = _country("ATA")
    assert (antarctica.capital, antarctica.currency, antarctica.languages) == ("", None, ())
    assert antarctica.coast
    assert not antarctica.complete


def test_a_box_is_not_a_coastline() -> None:
    assert not _country("AND").coast
    assert not _country("PSE").coast


def test_a_country_of_the_past_is_called_so() -> None:
    assert [c.name for c in load_countries() if c.former] == ["Netherlands Antilles", "Serbia and Montenegro"]


def test_the_split_is_fixed_and_disjoint() -> None:
    held_out, training = {c.code for c in held_out_countries()}, {c.code for c in training_countries()}
    assert len(held_out) == HELD_OUT
    assert not held_out & training
    assert held_out | training == {c.code for c in load_countries() if c.complete}
    assert {"DNK", "TUN", "UGA"} <= held_out  # a change of the split would spoil every trained weight


def test_training_countries_name_no_held_out_neighbour() -> None:
    held_out = {c.code for c in held_out_countries()}
    assert not held_out & {n for c in training_countries() for n in c.neighbours}
    coastlines = [ring for c in held_out_countries() for ring in c.coast]
    assert not any(np.array_equal(a, b) for c in training_countries() for a in c.coast for b in coastlines)
