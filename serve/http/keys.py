"""API keys: read from a file and from the environment, kept as digests, compared in constant time.

Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comem_ray.config import ApiConfig, ConfigError, resolve

VARIABLE = "COMEM_API_KEYS"
MIN_CHARS = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]+")  # printable ASCII, no space: what a header can hold


@dataclass(frozen=True)
class Keys:
    """The names of the keys by the SHA-256 of each. Holds no key, so it may travel between processes."""

    names: Mapping[bytes, str]

    def __bool__(self) -> bool:
        return bool(self.names)

    def name_of(self, key: bytes) -> str | None:
        """The name of a key, or None. Compares with every key, whatever matches."""
        digest, match = hashlib.sha256(key).digest(), None
        for known, name in self.names.items():
            if hmac.compare_digest(known, digest):
                match = name
        return match


def load_keys(limits: ApiConfig, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of `api.keys_file` and of COMEM_API_KEYS. None in either: no keys are wanted.

    Raises ConfigError where one of them is set and holds no key, cannot be read, or a key cannot be used.
    """
    names: dict[bytes, str] = {}
    if limits.keys_file is not None:
        _add(names, _lines(resolve(limits.keys_file)), "api.keys_file")
    if VARIABLE in environment:
        _add(names, environment[VARIABLE].split(","), VARIABLE)
    return Keys(names)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"api.keys_file: cannot read {path}: {why}") from error
    return text.splitlines()


def _add(names: dict[bytes, str], entries: Iterable[str], source: str) -> None:
    """Adds `name:key` or `key` of each entry; empty ones and comments are left out. Messages hold no key."""
    numbered = [(number, entry.strip()) for number, entry in enumerate(entries, 1)]
    keys = [(number, entry) for number, entry in numbered if entry and not entry.startswith("#")]
    if not keys:
        raise ConfigError(f"{source} holds no key: write one per line as name:key, or leave {source} out")
    for number, entry in keys:
        digest, name = _named(entry, f"{source}, entry {number}")
        if names.setdefault(digest, name) != name:
            raise ConfigError(f"{source}, entry {number}: the same key has two names, {names[digest]} and {name}")


def _named(entry: str, place: str) -> tuple[bytes, str]:
    name, colon, key = entry.partition(":")
    if not colon:
        name, key = "", entry
    if len(key) < MIN_CHARS:
        raise ConfigError(f"{place} has {len(key)} characters, want {MIN_CHARS} at least: openssl rand -hex 24")
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{place} holds a space or a character that is not ASCII: openssl rand -hex 24")
    digest = hashlib.sha256(key.encode()).digest()
    if colon and not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: its name wants 1 to 64 letters, digits, '.', '_' or '-'")
    return digest, name or digest.hex()[:8]
