"""Plots against their arithmetic: where a value is drawn, which ticks an axis has, what the description holds."""

import xml.etree.ElementTree as ET

import pytest

from comem_ray.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Point, Series, plot, short

ITEMS, RIGHT_ANSWERS = Axis("k"), Axis("right, %", limits=(0, 100))


def drawn(*series: Series, x: Axis = ITEMS, y: Axis = RIGHT_ANSWERS) -> ET.Element:
    """The figure, parsed: it is well-formed XML."""
    return ET.fromstring(str(plot("A plot", x, y, series)))


def circles(figure: ET.Element) -> list[tuple[float, float]]:
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in figure.iter("circle")]


def ticks(figure: ET.Element, anchor: str) -> list[str]:
    return [t.text or "" for t in figure.iter("text") if t.get("class") == "tick" and t.get("text-anchor") == anchor]


def test_points_stand_where_their_values_are():
    figure = drawn(Series("memory", "memory", [Point(0, 0), Point(5, 50), Point(10, 100)]))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    want = [(LEFT + wide * s, HEIGHT - BOTTOM - high * s) for s in (0, 0.5, 1)]
    assert circles(figure) == [pytest.approx(point, abs=0.06) for point in want]
    assert ticks(figure, "end") == ["0", "20", "40", "60", "80", "100"]


def test_equal_factors_are_equal_steps_of_a_logarithmic_axis():
    axis = Axis("k", log=True, ticks=[1, 10, 100])
    xs = [x for x, _ in circles(drawn(Series("rag", "rag", [Point(x, 1) for x in (1, 10, 100)]), x=axis))]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
    assert ticks(drawn(Series("rag", "rag", [Point(70, 1), Point(2700, 1)]), x=Axis("tokens", log=True)), "middle") == [
        *("100", "200", "500", "1000", "2000")
    ]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ((0.0, 7.3), ["0", "2", "4", "6", "8"]),
        ((5e-6, 5e-5), ["0", "1e-05", "2e-05", "3e-05", "4e-05", "5e-05"]),
        ((-1.5, 1.5), ["-2", "-1", "0", "1", "2"]),
        ((3.0, 3.0), ["0", "2", "4", "6"]),
        ((0.0, 120_000.0), ["0", "25k", "50k", "75k", "100k", "125k"]),
    ],
)
def test_ticks_are_round_and_hold_the_data(values, want):
    figure = drawn(Series("loss", "memory", [Point(1, v) for v in values]), y=Axis("loss"))
    assert ticks(figure, "end") == want
    assert all(TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1 for _, y in circles(figure))


def test_a_band_has_the_ends_of_every_interval():
    points = [Point(1, 50, 40, 60), Point(2, 60, 50, 70)]
    figure = drawn(Series("memory", "memory", points))
    (band,) = figure.iter("polygon")
    heights = [float(pair.split(",")[1]) for pair in band.get("points", "").split()]
    scale = (HEIGHT - TOP - BOTTOM) / 100
    assert heights == [pytest.approx(HEIGHT - BOTTOM - scale * v, abs=0.06) for v in (40, 50, 70, 60)]
    assert len(list(drawn(Series("memory", "memory", points, "points")).iter("polygon"))) == 0


def test_the_description_has_the_values():
    figure = drawn(
        Series("memory", "memory", [Point(1, 50, description="k=1: 50%")]), Series("none", "none", [Point(0, 7)])
    )
    (svg,) = figure.iter("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "A plot. right, % against k. memory: k=1: 50%. none: 0: 7"
    assert [li.findtext("span") or (li[0].tail) for li in figure.iter("li")] == ["memory", "none"]


def test_a_long_line_has_neither_marks_nor_every_point_in_its_description():
    figure = drawn(Series("loss", "memory", [Point(i, i % 7) for i in range(1000)]), y=Axis("loss"))
    assert circles(figure) == []
    assert len(figure.find("svg").get("aria-label")) < 100


def test_names_are_text():
    figure = plot("<b>", Axis('"x"'), RIGHT_ANSWERS, [Series("<script>", "memory", [Point(1, 2, label="<i>")])])
    assert [name for name in ("<b>", "<script", "<i>") if name in str(figure)] == []
    assert "&lt;script&gt;" in str(figure)


def test_short_numbers():
    assert [short(v) for v in (0, 0.5, 2500, 25_000, 3_000_000, 5e-5)] == ["0", "0.5", "2500", "25k", "3M", "5e-05"]
