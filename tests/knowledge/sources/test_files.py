import pytest

from comem_ray.config import ConfigError, SourceConfig
from comem_ray.knowledge.sources.files import source_files


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COMEM_HOME", str(tmp_path))
    (tmp_path / "wit" / "images").mkdir(parents=True)
    for name in ("b.tsv.gz", "a.tsv", "c.jsonl", "d.parquet", "e.txt"):
        (tmp_path / "wit" / name).touch()
    return tmp_path


def test_globs_are_sorted_and_files_labelled(home):
    sources = [
        SourceConfig(path="wit/*.tsv*"),
        SourceConfig(path="wit/c.jsonl"),
        SourceConfig(path=str(home / "wit/d.parquet")),
    ]
    files = source_files(sources)
    assert [f.label for f in files] == ["a", "b", "c", "d"]
    assert [f.name for f in files] == ["a.tsv", "b.tsv.gz", "c.jsonl", "d.parquet"]
    assert [f.format for f in files] == ["wit_tsv", "wit_tsv", "jsonl", "wit_parquet"]


def test_images_are_in_the_folder_of_the_file_or_in_the_configured_one(home):
    default, elsewhere = source_files(
        [SourceConfig(path="wit/a.tsv"), SourceConfig(path="wit/a.tsv", images="wit/images")]
    )
    assert (default.images, elsewhere.images) == (str(home / "wit"), str(home / "wit/images"))


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"path": "wit/missing.tsv"}, "sources.0.path"),
        ({"path": "wit/*.csv"}, "sources.0.path"),
        ({"path": "wit"}, "sources.0.path"),
        ({"path": "wit/e.txt"}, "sources.0.format"),
        ({"path": "wit/a.tsv", "images": "nowhere"}, "sources.0.images"),
    ],
)
def test_what_names_no_file_is_a_wrong_configuration(home, source, field):
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        source_files([SourceConfig(**source)])


def test_a_folder_becomes_its_shards_with_labels_of_their_own(home):
    for name in ("cc/00000.tar", "cc/00001.tar", "more/cc/00000.tar", "trees/a.jpg"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    files = source_files([SourceConfig(path="cc"), SourceConfig(path="more/cc"), SourceConfig(path="trees")])
    assert [(f.label, f.name, f.format) for f in files] == [
        ("cc_00000", "00000.tar", "webdataset"),
        ("cc_00001", "00001.tar", "webdataset"),
        ("cc_00000~2", "00000.tar", "webdataset"),
        ("trees", "trees", "image_folder"),
    ]
    assert {f.images for f in files} == {str(home / name) for name in ("cc", "more/cc", "trees")}


def test_columns_travel_and_are_refused_where_they_are_fixed(home):
    (home / "a.tar").touch()
    (file,) = source_files([SourceConfig(path="a.tar", columns={"title": "name", "text": "alt"})])
    assert file.columns == (("text", "alt"), ("title", "name"))
    with pytest.raises(ConfigError, match=r"sources\.0\.columns: format jsonl has fixed columns"):
        source_files([SourceConfig(path="wit/c.jsonl", columns={"text": "alt"})])


def test_a_stated_format_needs_no_ending(home):
    (file,) = source_files([SourceConfig(path="wit/e.txt", format="wit_tsv")])
    assert file.format == "wit_tsv"


def test_a_file_keeps_its_label_whatever_is_read_beside_it(home):
    (home / "more").mkdir()
    for name in ("more/a.tsv", "wit/Ünï codé (1).jsonl", "wit/.jsonl", "wit/wit_v1.train.all-1.tsv.gz"):
        (home / name).touch()
    alone = source_files([SourceConfig(path="wit/b.tsv.gz")])
    beside = source_files([SourceConfig(path="wit/*.*sv*"), SourceConfig(path="more/a.tsv")])
    assert alone[0].label == next(f.label for f in beside if f.name == "b.tsv.gz")
    assert [f.label for f in beside] == ["a", "b", "wit_v1.train.all-1", "a~2"]
    named = source_files([SourceConfig(path="wit/Ünï codé (1).jsonl"), SourceConfig(path="wit/.jsonl")])
    assert [f.label for f in named] == ["_n_cod_1_", "file"]
