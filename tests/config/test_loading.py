"""A configuration is complete and valid, or refused in a sentence that names each wrong field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from comem_ray.config import ConfigError, load_config
from comem_ray.config.loading import unknown_field

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))

SMALL: dict[str, Any] = {
    "name": "small",
    "root": "small",
    "ingest": {"sources": [{"path": "a.tsv"}, {"path": "b.tsv"}]},
    "clip": {"model": "ViT-B-32"},
    "backbone": {"model": "backbone"},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path, SMALL)


def written(folder: Path, data: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_configuration_of_the_repository_is_valid(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem.replace("-", "_")


NO, ON, OFF = ("no is false", '"no"'), ("on is true", '"on"'), ("off is false", '"off"')


@pytest.mark.parametrize(
    ("field", "text", "messages"),
    [
        ("retrieval.language", "no", [NO]),
        ("retrieval.language", "NO", [("NO is false", '"NO"')]),
        ("name", "22:30", [("22:30 is the number 1350", '"22:30"')]),
        ("name", "1.10", [("1.10 is the number 1.1", '"1.10"')]),
        ("name", "0123", [("0123 is the number 83", '"0123"')]),
        ("name", "2024-01-01", [("2024-01-01 is the date 2024-01-01", '"2024-01-01"')]),
        ("memory.languages", "[en, no, on]", [NO, ON]),
        ("memory.languages", "\n- en\n- off", [OFF]),
        ("scoring_rules", "{a: yes}", [("yes is true", '"yes"')]),
        ("scoring_rules", '{on: "a:b"}', [ON]),
        ("retrieval", "{on: 5}", [ON]),
    ],
)
def test_a_word_that_yaml_does_not_read_as_text_wants_quotes(tmp_path: Path, field, text, messages) -> None:
    lines = "\n".join(f"{name}: {value}" for name, value in SMALL.items() if name != field)
    *parents, last = field.split(".")
    indented = text.replace("\n", "\n    ")
    lines += f"\n{parents[0]}:\n  {last}: {indented}\n" if parents else f"\n{last}: {text}\n"
    path = tmp_path / "run.yaml"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ConfigError) as from_file:
        load_config(path)
    with pytest.raises(ConfigError) as from_override:
        load_config(written(tmp_path, SMALL), [f"{field}={text}"])
    for caught in (from_file, from_override):
        for meaning, quoted in messages:
            assert f"{meaning} in YAML, put it in quotes: {quoted}" in str(caught.value)


def test_a_word_in_quotes_is_text(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, SMALL), ['retrieval.language="no"']).retrieval.language == "no"
    with pytest.raises(ConfigError, match=r"'image', 'text' or 'both'; off is false in YAML$"):
        load_config(written(tmp_path, SMALL), ["retrieval.by=off"])


def test_a_field_that_is_left_out_has_its_default(small: Path) -> None:
    config = load_config(small)
    assert config.retrieval.top_k == 10
    assert config.adapter.queries == 8
    assert config.ingest.fetch.allow_private is False
    assert (config.backbone.item_pixels.min, config.backbone.item_pixels.max) == (16 * 28 * 28, 64 * 28 * 28)


def test_a_configuration_does_not_change(small: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(small).retrieval.top_k = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("root", None, "field root: Input should be a valid string, got None"),
        ("name", "", "field name: String should have at least 1 character, got ''"),
        ("ingest.sources", [], "field ingest.sources: List should have at least 1 item"),
        ("ingest.sources.0.path", "", "field ingest.sources.0.path: String should have at least 1 character"),
        ("ingest.sources.1.format", "csv", "field ingest.sources.1.format: Input should be 'auto', "),
        ("ingest.images.jpeg_quality", 101, "field ingest.images.jpeg_quality: Input should be less than or equal"),
        ("ingest.workers.count", 0, "field ingest.workers.count: Input should be greater than or equal to 1, got 0"),
        ("clip.precision", "int8", "field clip.precision: Input should be 'float32', 'bfloat16' or 'float16'"),
        ("index.search.nprobe", "many", "field index.search.nprobe: Input should be a valid integer"),
        ("retrieval.by", "sound", "field retrieval.by: Input should be 'image', 'text' or 'both', got 'sound'"),
        ("retrieval.text_weight", 1.5, "field retrieval.text_weight: Input should be less than or equal to 1"),
        ("reasoner.top_p", 0, "field reasoner.top_p: Input should be greater than 0, got 0"),
        ("backbone.item_pixels", {"min": 9, "max": 4}, "field backbone.item_pixels: Value error, min (9) must not"),
        ("index.factroy", "Flat", "field index.factroy: there is no such field"),
        ("indexes", {}, "field indexes: there is no such field"),
        ("clip", "ViT-B-32", "field clip: "),
    ],
)
def test_a_wrong_field_is_named_in_file_and_override(tmp_path: Path, field: str, value: Any, message: str) -> None:
    data = copy.deepcopy(SMALL)
    *parents, last = field.split(".")
    node: Any = data
    for name in parents:
        node = node[int(name)] if name.isdecimal() else node.setdefault(name, {})
    node[last] = value
    path = written(tmp_path, data)
    with pytest.raises(ConfigError) as in_file:
        load_config(path)
    assert f"{path}: " in str(in_file.value)
    assert message in str(in_file.value)
    with pytest.raises(ConfigError) as overridden:
        load_config(written(tmp_path, SMALL), [f"{field}={yaml.safe_dump(value, default_flow_style=True)}"])
    assert message in str(overridden.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ingest.pictures", {}, "field ingest.pictures: it was renamed to 'images'"),
        ("ingest.sources.1.pictures", "a", "field ingest.sources.1.pictures: it was renamed to 'images'"),
        ("api.max_picture_pixels", 1, "field api.max_picture_pixels: it was renamed to 'max_image_pixels'"),
        ("retrieval.by", "picture", "field retrieval.by: 'picture' was renamed to 'image'"),
        ("evaluation.places", [1], "field evaluation.places: it was renamed to 'gold_positions'"),
        ("evaluation.gallery.picture_side", 9, "field evaluation.gallery.picture_side: it was renamed to 'image_side'"),
        ("index.places", [1], "field index.places: there is no such field"),
    ],
)
def test_a_field_of_version_0_1_says_its_new_name(small: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(small, [f"{field}={yaml.safe_dump(value, default_flow_style=True)}"])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (("evaluation", "sources", 0, "benchmark"), "renamed to 'task'"),
        (("synthesis", "sources", 2, "format"), "renamed to 'task'"),
        (("synthesis", "picture_limits"), "renamed to 'image_limits'"),
        (("evaluation", "demo_languages"), "it was removed"),
        (("clip", "format"), "there is no such field"),
    ],
)
def test_the_section_decides_the_new_name(location: tuple[str | int, ...], message: str) -> None:
    assert message in unknown_field(location)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    data = copy.deepcopy(SMALL)
    del data["backbone"]["model"], data["clip"]
    with pytest.raises(ConfigError) as refused:
        load_config(written(tmp_path, data))
    assert "field backbone.model: is missing" in str(refused.value)
    assert "field clip: is missing" in str(refused.value)


def test_all_wrong_fields_are_named_at_once(small: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(small, ["seed=-1", "retrieval.top_k=0", "api.speed=9"])
    assert [name in str(refused.value) for name in ("seed", "retrieval.top_k", "api.speed")] == [True] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [unclosed", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- a\n- b\n", "must hold a mapping of sections, it holds list"),
        (b"", "must hold a mapping of sections, it holds NoneType"),
        (b"1: 2\n", "field 1: "),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*: Is a directory"):
        load_config(tmp_path)


def test_overrides_reach_every_kind_of_field(small: Path) -> None:
    config = load_config(
        small,
        [
            "index.factory=IVF16,PQ8",  # a comma and no quotes
            "index.search={nprobe: 4, efSearch: 64}",
            "index.search.nprobe=8",  # a later one wins, and keeps its neighbours
            "ingest.fetch.cache=null",
            "ingest.workers.cpus=0.5",
            "ingest.sources.1.path=c=d.tsv",  # only the first sign of equality parts
            " seed = 7",
            "adapter.path='01'",
            "ingest.images.max_pixels=1_000_000",
        ],
    )
    assert config.index.factory == "IVF16,PQ8"
    assert config.index.search == {"nprobe": 8, "efSearch": 64}
    assert config.ingest.fetch.cache is None
    assert config.ingest.workers.cpus == 0.5
    assert [source.path for source in config.ingest.sources] == ["a.tsv", "c=d.tsv"]
    assert config.seed == 7
    assert config.adapter.path == "01"
    assert config.ingest.images.max_pixels == 1_000_000


def test_overrides_replace_a_whole_list(small: Path) -> None:
    config = load_config(small, ["ingest.sources=[{path: only.jsonl, format: jsonl}]"])
    assert [(source.path, source.format) for source in config.ingest.sources] == [("only.jsonl", "jsonl")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("retrieval.top_k", "want section.field=value"),
        ("=3", "want section.field=value"),
        ("", "want section.field=value"),
        ("ingest.sources.2.path=x", "ingest.sources.2 has no field 'path'"),
        ("ingest.sources.2=x", "ingest.sources has no field '2'"),
        ("ingest.sources.path=x", "ingest.sources has no field 'path'"),
        ("name.first=x", "name has no field 'first'"),
        ("name.a.b=1", "name.a has no field 'b'"),
        ("index.factory=[1", "the value is not YAML"),
        ("index..factory=Flat", "there is no such field"),
    ],
)
def test_an_override_that_reaches_nothing_is_quoted(small: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(small, [override])
    assert message in str(refused.value)


def test_an_override_does_not_touch_the_file(small: Path) -> None:
    before = small.read_bytes()
    load_config(small, ["seed=9"])
    assert small.read_bytes() == before
