"""Draws the demo's maps, and invents coastlines to train on.

A map is darker land on a light ground, nothing else. Colour, line, rotation, size and position belong to the *view*,
so two views of one map share the shape alone. Land is always darker than its ground: with free colours, contrastive
training collapsed. Knows nothing of countries and files.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely import MultiPolygon, Polygon, unary_union

IMAGE_SIZE = (448, 336)
"""Width and height of a drawn image in pixels; 4:3, as are the inputs of the demo's models."""

Ring = NDArray[np.float64]
"""One closed coastline: (points, 2), x to the right and y down, without a repeated end."""
Colour = tuple[int, int, int]
OVERSAMPLING = 2  # drawn larger and scaled down, for smooth edges


@dataclass(frozen=True)
class Map:
    """The content of an image, in map coordinates. Without `frame` the land fills the image."""

    land: Sequence[Ring]
    pale: Sequence[Ring] = ()  # land that is only scenery, in a colour between ground and land
    frame: tuple[float, float, float, float] | None = None  # left, top, right, bottom of the visible part
    ring: tuple[float, float] | None = None  # centre of the circle that marks a position
    dots: Sequence[tuple[float, float]] = ()  # countries without a coastline


@dataclass(frozen=True)
class View:
    """How a map is content. Lengths are fractions of the image's height."""

    ground: Colour
    land: Colour
    line: Colour
    line_width: float
    rotation: float  # radians
    stretch: float  # x by this, y by its inverse
    shear: float
    fill: float  # fraction of the image that the land, or the frame, takes
    shift: tuple[float, float]  # where the remaining margin goes: 0 left or top, 1 right or bottom


def random_view(rng: random.Random) -> View:
    """A view for training and for questions: another hue, a small rotation, stretch, shear, other size and position."""
    return View(
        ground=_colour(rng, (0.03, 0.3), (0.88, 1.0)),
        land=(land := _colour(rng, (0.3, 0.9), (0.3, 0.75))),
        line=_darker(land, rng.uniform(0.2, 0.6)),
        line_width=rng.uniform(0.005, 0.018),
        rotation=rng.uniform(-0.14, 0.14),
        stretch=math.exp(rng.uniform(-0.14, 0.14)),
        shear=rng.uniform(-0.06, 0.06),
        fill=rng.uniform(0.76, 0.96),
        shift=(rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)),
    )


def upright_view(rng: random.Random) -> View:
    """The view of an item's own image: north up, as in an atlas; only the colours differ from map to map."""
    land = _colour(rng, (0.35, 0.8), (0.4, 0.7))
    ground = _colour(rng, (0.05, 0.2), (0.93, 1.0))
    return View(ground, land, _darker(land, 0.45), 0.008, 0.0, 1.0, 0.0, 0.88, (0.5, 0.5))


def draw(content: Map, view: View, size: tuple[int, int] = IMAGE_SIZE) -> Image.Image:
    """The map as an RGB image of `size` (width, height) pixels."""
    width, height = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    to_pixels = _placement(content, view, width, height)
    canvas = Image.new("RGB", (width, height), view.ground)
    pen = ImageDraw.Draw(canvas)
    line = max(1, round(view.line_width * height))
    pale = _between(view.ground, view.land)
    for ring in content.pale:
        _polygon(pen, to_pixels(ring), pale, _between(pale, view.line), max(1, line // 2))
    for ring in content.land:
        _polygon(pen, to_pixels(ring), view.land, view.line, line)
    for dot in content.dots:
        pen.ellipse(_box(to_pixels(np.array([dot]))[0], 0.018 * height), fill=view.line)
    if content.ring is not None:
        circle = _box(to_pixels(np.array([content.ring]))[0], 0.07 * height)
        pen.ellipse(circle, outline=view.line, width=max(2, 2 * line))
    return canvas.resize(size, Image.Resampling.BOX)


def _placement(content: Map, view: View, width: int, height: int) -> Callable[[Ring], Ring]:
    """The function from map coordinates to pixels: the linear part of the view, then fitted into the image."""
    c, s = math.cos(view.rotation), math.sin(view.rotation)
    linear = np.array([[c * view.stretch, -s + view.shear], [s, c / view.stretch]])
    if content.frame is None:
        points = np.concatenate(list(content.land)) @ linear.T
    else:  # a frame keeps its own corners, so that turning does not shrink it
        left, top, right, bottom = content.frame
        centre = linear @ np.array([(left + right) / 2, (top + bottom) / 2])
        half = np.array([(right - left) / 2, (bottom - top) / 2])
        points = np.stack([centre - half, centre + half])
    low, high = points.min(0), points.max(0)
    extent = np.maximum(high - low, 1e-6)
    scale = min(width / extent[0], height / extent[1]) * view.fill
    offset = (np.array([width, height]) - extent * scale) * np.array(view.shift)
    return lambda ring: (ring @ linear.T - low) * scale + offset


def _box(centre: NDArray[np.float64], radius: float) -> tuple[float, float, float, float]:
    x, y = float(centre[0]), float(centre[1])
    return x - radius, y - radius, x + radius, y + radius


def _polygon(pen: ImageDraw.ImageDraw, points: Ring, fill: Colour, line: Colour, width: int) -> None:
    corners = [(float(x), float(y)) for x, y in points]
    if len(corners) >= 3:
        pen.polygon(corners, fill=fill)
        pen.line([*corners, corners[0]], fill=line, width=width)


def _colour(rng: random.Random, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return round(255 * r), round(255 * g), round(255 * b)


def _darker(colour: Colour, by: float) -> Colour:
    return round(colour[0] * by), round(colour[1] * by), round(colour[2] * by)


def _between(a: Colour, b: Colour) -> Colour:
    return (2 * a[0] + b[0]) // 3, (2 * a[1] + b[1]) // 3, (2 * a[2] + b[2]) // 3


def invented_land(seed: int) -> list[Ring]:
    """Coastlines of a country that does not exist: noisy blobs joined into a mainland, with or without islands."""
    rng = np.random.default_rng(seed)
    while True:
        blobs = [_blob(rng, 90)]
        blobs += [_blob(rng, 60) * rng.uniform(0.3, 0.8) + rng.normal(size=2) * 0.9 for _ in range(rng.integers(0, 3))]
        islands = rng.choice([0, 0, 1, 2, 4])
        blobs += [_blob(rng, 24) * rng.uniform(0.06, 0.25) + rng.normal(size=2) * 1.3 for _ in range(islands)]
        joined = unary_union([Polygon(blob).buffer(0) for blob in blobs])
        joined = joined.simplify(rng.choice([0.0, 0.0, 0.02, 0.06, 0.12, 0.2]))  # some borders are straight
        pieces = list(joined.geoms) if isinstance(joined, MultiPolygon) else [joined]
        rings = [np.asarray(p.exterior.coords)[:-1] for p in pieces if isinstance(p, Polygon) and p.area > 0.004]
        if rings:
            return rings


def _blob(rng: np.random.Generator, points: int) -> Ring:
    """A closed curve r(angle) whose harmonics fall off as 1/k^p: small p gives a ragged coast, large p a smooth one."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    k = np.arange(1, 26)[:, None]
    amplitude = rng.uniform(0.15, 0.5) * rng.normal(size=(25, 1)) / k ** rng.uniform(1.0, 1.7)
    radius = 1 + (amplitude * np.cos(k * angle + rng.uniform(0, 2 * np.pi, (25, 1)))).sum(0)
    radius = np.clip(radius, 0.15, 3)
    curve = np.stack([radius * np.cos(angle), -radius * np.sin(angle)], 1)
    stretch, turn = math.exp(rng.normal() * 0.35), rng.uniform(0, np.pi)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return np.asarray((curve * [stretch, 1 / stretch]) @ rotation.T)
