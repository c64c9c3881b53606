import pytest

from comem_ray.config import ConfigError, Source
from comem_ray.sources.files import source_files


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COMEM_HOME", str(tmp_path))
    (tmp_path / "wit" / "pictures").mkdir(parents=True)
    for name in ("b.tsv.gz", "a.tsv", "c.jsonl", "d.parquet", "e.txt"):
        (tmp_path / "wit" / name).touch()
    return tmp_path


def test_globs_are_sorted_and_files_counted(home):
    sources = [Source(path="wit/*.tsv*"), Source(path="wit/c.jsonl"), Source(path=str(home / "wit/d.parquet"))]
    files = source_files(sources)
    assert [f.number for f in files] == [0, 1, 2, 3]
    assert [f.name for f in files] == ["a.tsv", "b.tsv.gz", "c.jsonl", "d.parquet"]
    assert [f.format for f in files] == ["wit_tsv", "wit_tsv", "jsonl", "wit_parquet"]


def test_pictures_are_beside_the_file_or_where_the_configuration_says(home):
    beside, elsewhere = source_files([Source(path="wit/a.tsv"), Source(path="wit/a.tsv", pictures="wit/pictures")])
    assert (beside.pictures, elsewhere.pictures) == (str(home / "wit"), str(home / "wit/pictures"))


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"path": "wit/missing.tsv"}, "sources.0.path"),
        ({"path": "wit/*.csv"}, "sources.0.path"),
        ({"path": "wit"}, "sources.0.path"),
        ({"path": "wit/e.txt"}, "sources.0.format"),
        ({"path": "wit/a.tsv", "pictures": "nowhere"}, "sources.0.pictures"),
    ],
)
def test_what_names_no_file_is_a_wrong_configuration(home, source, field):
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        source_files([Source(**source)])


def test_a_stated_format_needs_no_ending(home):
    (file,) = source_files([Source(path="wit/e.txt", format="wit_tsv")])
    assert file.format == "wit_tsv"
