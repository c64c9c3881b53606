import numpy as np
import pytest

from examples.countries.world.countries import load_countries
from examples.countries.world.maps import country_map, outline


def _country(code: str):
    return next(c for c in load_countries() if c.code == code)


def _extent(rings) -> np.ndarray:
    return np.ptp(np.concatenate(list(rings)), axis=0)


def test_every_country_has_a_map_with_something_on_it() -> None:
    for country in load_countries():
        content = country_map(country)
        assert content.land or content.dots, country.name
        assert (content.ring is None) == (content.frame is None) or content.pale, country.name


@pytest.mark.parametrize("code", ["FJI", "RUS", "USA", "NZL"])
def test_the_date_line_tears_no_country_apart(code: str) -> None:
    width, _ = _extent(outline(_country(code).coast))
    assert width < 200


def test_longitudes_shrink_towards_the_poles() -> None:
    square = np.array([[0.0, 59.0], [2.0, 59.0], [2.0, 61.0], [0.0, 61.0]])
    width, height = _extent(outline([square]))
    assert width / height == pytest.approx(0.5, abs=0.01)


def test_north_is_up() -> None:
    ring = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 2.0]])
    assert outline([ring])[0][2, 1] < outline([ring])[0][0, 1]


def test_the_smallest_islands_are_left_out() -> None:
    big = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert len(outline([big, big * 0.05, big * 0.5])) == 2


def test_antarctica_lies_around_its_pole() -> None:
    width, height = _extent(outline(_country("ATA").coast))
    assert 0.6 < width / height < 1.7


def test_without_a_coast_the_surroundings_are_shown() -> None:
    andorra = country_map(_country("AND"))
    assert andorra.ring == (0.0, 0.0)
    assert len(andorra.land) >= 2  # France and Spain


def test_without_a_place_the_region_is_shown() -> None:
    bouvet = country_map(_country("BVT"))
    assert bouvet.ring is None
    assert len(bouvet.pale) > len(bouvet.land) > 5
