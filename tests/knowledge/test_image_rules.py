"""What ingest stores is accepted by every later stage: sizes, ratios, colour modes, formats and limits of all kinds."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from support.ingesting import encoded
from support.tiny_clip import ARCHITECTURE, write_clip
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from comem_ray.config import ClipConfig, ImageConfig, load_config
from comem_ray.knowledge.image_rules import MAX_ASPECT, MIN_SIDE, ImageError, check_size, stored_size
from comem_ray.knowledge.images import normalize_image, open_image
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.retrieval.clip import ClipEncoder

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

SIDES = (1, 2, 3, 5, 16, 19, 20, 50, 99, 100, 101, 199, 200, 201, 333, 512, 777, 2_000, 5_000)
LIMITS = (
    ImageConfig(),
    ImageConfig(max_side=16),
    ImageConfig(max_side=101, max_pixels=400_000),
    ImageConfig(max_side=4_096),
    ImageConfig(resize="square"),
    ImageConfig(max_side=16, resize="square", max_pixels=256),
)
QWEN = ((9_408, 9_408), (12_544, 50_176), (200_704, 1_003_520), (56 * 56, 28 * 28 * 1_280))


def usable(width: int, height: int, max_pixels: int) -> bool:
    try:
        check_size(width, height, max_pixels)
    except ImageError:
        return False
    return True


def test_a_size_that_is_accepted_is_stored_in_a_size_that_is_accepted():
    """Every size, also after the image processor's own rounding; nothing is decoded here."""
    for limits, width, height in itertools.product(LIMITS, SIDES, SIDES):
        if usable(width, height, limits.max_pixels):
            stored = stored_size((width, height), limits)
            assert usable(*stored, limits.max_pixels), (limits, width, height, stored)
            assert max(stored) <= max(limits.max_side, MIN_SIDE)
            for low, high in QWEN:
                assert min(smart_resize(stored[1], stored[0], 28, low, high)) >= 28


def test_random_sizes_too():
    rng = np.random.default_rng(18)
    for width, height, side in rng.integers(1, 20_000, (5_000, 3)) // rng.integers(1, 2_000, (5_000, 3)):
        limits = ImageConfig(max_side=max(16, min(int(side), 16_384)))
        if usable(int(width), int(height), limits.max_pixels):
            assert usable(*stored_size((int(width), int(height)), limits), limits.max_pixels), (width, height, side)


def noise(width: int, height: int, mode: str) -> Image.Image:
    pixels = np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


CASES = [
    ((2_000, 20), "RGB", "JPEG"),
    ((20, 2_000), "RGB", "JPEG"),
    ((1_999, 20), "L", "PNG"),
    ((9_000, 90), "P", "PNG"),
    ((2, 200), "RGBA", "WEBP"),
    ((200, 2), "1", "TIFF"),
    ((513, 6), "CMYK", "TIFF"),
    ((2, 2), "LA", "PNG"),
    ((5, 499), "RGB", "BMP"),
    ((700, 500), "RGB", "AVIF"),
    ((640, 7), "P", "GIF"),
]
NEVER = [((1, 50), "RGB", "PNG"), ((50, 1), "RGB", "JPEG"), ((2_001, 20), "RGB", "PNG"), ((1, 1), "L", "PNG")]


@pytest.mark.parametrize(("size", "mode", "kind"), CASES)
@pytest.mark.parametrize("limits", LIMITS[:5:2], ids=["512", "101", "square"])
def test_what_is_stored_is_read_again(size, mode, kind, limits):
    data = encoded(noise(*size, mode), kind)
    if size[0] * size[1] > limits.max_pixels:
        pytest.skip("refused before it is stored")
    stored = normalize_image(data, limits)
    again = open_image(stored.data, limits.max_pixels)
    assert (again.size, again.mode) == ((stored.width, stored.height), "RGB")
    assert max(again.size) <= MAX_ASPECT * min(again.size)
    assert normalize_image(stored.data, limits) == stored


@pytest.fixture(scope="module")
def stored() -> list[Image.Image]:
    """The images of CASES as items hold them, under the limits of the shipped configurations."""
    limits = [load_config(path).ingest.images for path in sorted(CONFIGS.glob("*.yaml"))]
    images = [encoded(noise(*size, mode), kind) for size, mode, kind in CASES]
    made = [(normalize_image(data, limit).data, limit) for data in images for limit in limits]
    return [open_image(data, limit.max_pixels) for data, limit in dict(made).items()]


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_clip_prepares_every_stored_image(stored, tmp_path, resize_mode):
    vision = {**ARCHITECTURE["vision_cfg"], "image_size": 224, "patch_size": 56}
    section, _ = write_clip(
        tmp_path, architecture={**ARCHITECTURE, "vision_cfg": vision}, preprocessing={"resize_mode": resize_mode}
    )
    encoder = ClipEncoder(ClipConfig.model_validate(section))
    assert {tuple(encoder.preprocess(image).shape) for image in stored} == {(3, 224, 224)}


def test_the_memory_encoder_prepares_every_stored_image(stored, make_config):
    for path in sorted(CONFIGS.glob("*.yaml")):
        shipped = load_config(path).backbone
        encoder = MemoryEncoder(make_config(backbone={"item_pixels": shipped.item_pixels.model_dump()}))
        for image in stored:
            sequence = encoder.sequence("Oak", image)
            assert sequence.grids[0][1] >= 2
            assert sequence.grids[0][2] >= 2


@pytest.mark.parametrize(("size", "mode", "kind"), NEVER)
def test_what_no_stage_could_read_is_refused_at_the_door(size, mode, kind):
    with pytest.raises(ImageError) as caught:
        normalize_image(encoded(noise(*size, mode), kind), ImageConfig())
    assert (caught.value.reason, caught.value.retryable) == ("image_degenerate", False)


def test_a_square_of_more_pixels_than_are_read_again_is_a_wrong_configuration():
    with pytest.raises(ValidationError, match="raise max_pixels or lower max_side"):
        ImageConfig(max_side=1_024, resize="square", max_pixels=1_000_000)
    assert ImageConfig(max_side=1_000, resize="square", max_pixels=1_000_000).max_side == 1_000


def test_a_side_that_no_jpeg_holds_is_a_wrong_configuration():
    with pytest.raises(ValidationError, match="max_side"):
        ImageConfig(max_side=70_000)
    with pytest.raises(ValidationError, match="max_pixels"):
        ImageConfig(max_pixels=300_000_000)  # Pillow would refuse what we promise to take
