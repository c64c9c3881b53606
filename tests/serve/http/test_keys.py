"""Keys of a file and of the environment; what cannot be used is refused at start, without a word of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from comem_ray.config import ApiConfig, ConfigError
from serve.http.keys import Keys, load_keys

A, B = "0123456789abcdef", "fedcba9876543210"


def of_file(path: Path, text: str | bytes) -> Keys:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_keys(ApiConfig(keys_file=str(path)), {})


def test_no_keys_are_set() -> None:
    assert not load_keys(ApiConfig(), {})


def test_a_file_of_keys(tmp_path: Path) -> None:
    keys = of_file(tmp_path / "keys", f"# of the team\n\nalice:{A}\r\n  {B}  \n#old:{A}x\n")
    assert keys.name_of(A.encode()) == "alice"
    assert keys.name_of(B.encode()) not in (None, "alice")
    assert keys.name_of(b"") is None
    assert keys.name_of(f"{A}x".encode()) is None
    assert A not in repr(keys)


def test_file_and_environment_together(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice:{A}\nalice:{A}2\n")
    limits = ApiConfig(keys_file=str(tmp_path / "keys"))
    keys = load_keys(limits, {"COMEM_API_KEYS": f"bob:{B}, carol:{B}3"})
    assert [keys.name_of(k.encode()) for k in (A, f"{A}2", B, f"{B}3")] == ["alice", "alice", "bob", "carol"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# nothing\n\n", "holds no key"),
        ("alice:short", "entry 1 has 5 characters, want 16"),
        (f"# one\nalice:{A}\nbob:", "entry 3 has 0 characters"),
        (f"alice:{A} {A}", "holds a space"),
        (f"alice:{A}ü", "not ASCII"),
        (f"al ice:{A}", "its name wants"),
        (f"alice:{A}\nbob:{A}", "the same key has two names, alice and bob"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        of_file(tmp_path / "keys", text)
    assert A not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none: No such file"):
        load_keys(ApiConfig(keys_file=str(tmp_path / "none")), {})
    with pytest.raises(ConfigError, match=r"Is a directory"):
        load_keys(ApiConfig(keys_file=str(tmp_path)), {})


@pytest.mark.parametrize("value", ["", " , ", "short"])
def test_a_variable_that_cannot_be_used(value: str) -> None:
    with pytest.raises(ConfigError, match="COMEM_API_KEYS"):
        load_keys(ApiConfig(), {"COMEM_API_KEYS": value})
