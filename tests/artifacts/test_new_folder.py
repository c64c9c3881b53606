"""A folder appears when it is whole, or not at all."""

import pytest

from comem_ray.artifacts import ArtifactError
from comem_ray.artifacts.new_folder import new_folder, require_new


def test_it_appears_at_the_end(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as building:
        (building / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_exception_leaves_nothing(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "out") as building:
            (building / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_and_a_full_one_is_left(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as building:
        (building / "a").write_text("1")
    with pytest.raises(ArtifactError, match="is there already and holds files"), new_folder(tmp_path / "out"):
        raise AssertionError
    assert (tmp_path / "out" / "a").read_text() == "1"
    with pytest.raises(ArtifactError, match="is a file: name a new folder"):
        require_new(tmp_path / "out" / "a")
