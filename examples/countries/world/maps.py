"""Turns a country's coordinates into the map that its image shows.

An outline where there is one. Otherwise a locator: the coastlines around the country, with a circle in the middle.
Otherwise (a country without coordinates in the data) the world with its region marked. Projection: longitudes are
scaled by the cosine of the middle latitude; around a pole, by the distance from the pole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from examples.countries.world.countries import Country, load_countries
from examples.countries.world.outlines import Map, Ring

SMALLEST_ISLAND = 0.004  # of the largest ring's area; smaller islands are left out
LOCATOR_DEGREES = (4.0, 60.0)  # half the height of a locator: first try, last try
LOCATOR_POINTS = 14  # the fewest points of coast that a locator shows


def country_map(country: Country) -> Map:
    """The map of a country's item and of the questions about it."""
    if country.coast:
        return Map(land=outline(country.coast))
    if country.latlng is not None:
        return _locator(*country.latlng)
    return _region(country)


def outline(coast: Iterable[Ring]) -> list[Ring]:
    """The rings of one country (degrees), projected (x to the right, y down), without the smallest islands."""
    rings = list(coast)
    largest = max(_area(ring) for ring in rings)
    rings = [ring for ring in rings if _area(ring) >= SMALLEST_ISLAND * largest]
    points = np.concatenate(rings)
    if np.ptp(points[:, 0]) > 300 and points[:, 1].min() < -80:
        return [_around_the_south_pole(ring) for ring in rings]
    if np.ptp(points[:, 0]) > 300:  # across the date line
        rings = [np.where((ring < 0) & [True, False], ring + 360, ring) for ring in rings]
    shrink = max(0.3, math.cos(math.radians(float(np.concatenate(rings)[:, 1].mean()))))
    return [ring * [shrink, -1.0] for ring in rings]


def _locator(latitude: float, longitude: float) -> Map:
    shrink = max(0.3, math.cos(math.radians(latitude)))

    def relative(points: Ring) -> Ring:
        turns = 360.0 * round((float(points[:, 0].mean()) - longitude) / 360.0)  # to this side of the world
        return (points - [turns + longitude, latitude]) * [shrink, -1.0]

    coastlines = [relative(ring) for ring in _all_coasts()]
    points = [relative(np.array([[c.latlng[1], c.latlng[0]]])) for c in load_countries() if c.latlng and not c.coast]
    half = LOCATOR_DEGREES[0]
    while half < LOCATOR_DEGREES[1] and _points_within([*coastlines, *points], half) < LOCATOR_POINTS:
        half *= 1.5
    return Map(
        land=[ring for ring in coastlines if _points_within([ring], 3 * half)],
        frame=(-half * 4 / 3, -half, half * 4 / 3, half),
        ring=(0.0, 0.0),
        dots=[(float(p[0, 0]), float(p[0, 1])) for p in points if _points_within([p], half)],
    )


def _region(country: Country) -> Map:
    same = [c for c in load_countries() if c.area == country.area]
    return Map(
        land=[ring * [1.0, -1.0] for c in same for ring in c.coast],
        pale=[ring * [1.0, -1.0] for ring in _all_coasts()],
        frame=(-180, -90, 180, 90),
        dots=[(c.latlng[1], -c.latlng[0]) for c in same if c.latlng and not c.coast],
    )


def _all_coasts() -> list[Ring]:
    return [ring for country in load_countries() for ring in country.coast]


def _points_within(rings: list[Ring], half: float) -> int:
    return sum(int(((np.abs(r[:, 0]) < half * 4 / 3) & (np.abs(r[:, 1]) < half)).sum()) for r in rings)


def _around_the_south_pole(ring: Ring) -> Ring:
    angle, distance = np.radians(ring[:, 0]), 90 + ring[:, 1]
    return np.stack([distance * np.sin(angle), -distance * np.cos(angle)], 1)


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
