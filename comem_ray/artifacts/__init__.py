"""Numbered shards, their commit records, and the manifest that is written last: how every stage keeps what it makes."""

from comem_ray.artifacts.files import (
    ROW_GROUP_ROWS,
    StorageError,
    file_sha256,
    storage_errors,
    write_atomic,
    write_json,
    write_parquet,
)
from comem_ray.artifacts.manifest import (
    ArtifactError,
    Manifest,
    Record,
    Shard,
    check_made_from,
    check_shard,
    fingerprint,
    load_manifest,
)
from comem_ray.artifacts.reading import OpenStage
from comem_ray.artifacts.stage import StageFolder

__all__ = [
    "ROW_GROUP_ROWS",
    "ArtifactError",
    "Manifest",
    "OpenStage",
    "Record",
    "Shard",
    "StageFolder",
    "StorageError",
    "check_made_from",
    "check_shard",
    "file_sha256",
    "fingerprint",
    "load_manifest",
    "storage_errors",
    "write_atomic",
    "write_json",
    "write_parquet",
]
