import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageStat

from examples.countries.world.outlines import IMAGE_SIZE, Map, draw, invented_land, random_view, upright_view

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def _luminance(colour: tuple[int, int, int]) -> float:
    return ImageStat.Stat(Image.new("RGB", (1, 1), colour).convert("L")).mean[0]


def test_same_seed_same_image() -> None:
    land = Map(invented_land(7))
    first, second = (draw(land, random_view(random.Random(3))) for _ in range(2))
    assert first.size == IMAGE_SIZE
    assert first.tobytes() == second.tobytes()
    assert draw(land, random_view(random.Random(4))).tobytes() != first.tobytes()


@pytest.mark.parametrize("view", [random_view, upright_view])
def test_land_is_always_darker_than_its_ground(view) -> None:
    rng = random.Random(0)
    for _ in range(300):
        v = view(rng)
        assert _luminance(v.land) < _luminance(v.ground)
        assert _luminance(v.line) < _luminance(v.land)


def test_upright_land_fills_its_part_of_the_image_centred() -> None:
    view = replace(upright_view(random.Random(0)), line_width=0.0)
    pixels = np.asarray(draw(Map([SQUARE]), view, (200, 150)))
    rows, columns = np.nonzero((np.abs(pixels.astype(int) - view.ground) > 8).any(-1))
    assert rows.max() - rows.min() + 1 == pytest.approx(150 * view.fill, abs=3)
    assert columns.max() - columns.min() + 1 == pytest.approx(150 * view.fill, abs=3)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(99.5, abs=2)


def test_a_frame_shows_its_middle_and_the_circle_around_it() -> None:
    view = upright_view(random.Random(0))
    framed = Map(land=[SQUARE + 50.0], frame=(-4 / 3, -1, 4 / 3, 1), ring=(0.0, 0.0))
    pixels = np.asarray(draw(framed, view, (200, 150))).astype(int)
    marked = np.argwhere((np.abs(pixels - view.ground) > 60).any(-1))
    assert np.allclose(marked.mean(0), (74.5, 99.5), atol=1.5)
    assert np.abs(marked - marked.mean(0)).max() < 15


def test_invented_lands_differ_and_repeat() -> None:
    assert all(np.array_equal(a, b) for a, b in zip(invented_land(1), invented_land(1), strict=True))
    assert not np.array_equal(invented_land(1)[0], invented_land(2)[0])
    assert all(ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 for n in range(50) for ring in invented_land(n))
