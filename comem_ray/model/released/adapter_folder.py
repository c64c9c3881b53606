"""An adapter folder as the source of an import: our own layout, or that of `comem export`. Checked, then copied."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from comem_ray.artifacts import ArtifactError, storage_errors, write_atomic
from comem_ray.artifacts.new_folder import new_folder
from comem_ray.model.adapter import ADAPTER_FILES, LORA_FILES, LORA_FOLDER, REASONER_FOLDER, adapter_files, lora_folder
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.weights import brief, read_settings

SETTINGS = "comem.yaml"


@dataclass(frozen=True)
class AdapterReport:
    """What was copied: bytes by file, and whether a configuration was among it."""

    bytes: dict[str, int]
    configured: bool

    def table(self) -> str:
        """The report in some lines for a terminal."""
        lines = [f"{size:>15,}  {name}" for name, size in self.bytes.items()]
        if not self.configured:
            lines.append(f"the source has no {SETTINGS}: name the folder as adapter.path in a configuration of yours")
        return "\n".join(["this is an adapter already, made on this base; copied:", *lines])


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, not a release."""
    return (folder / "adapter.json").is_file()


def import_adapter(folder: Path, base_folder: Path, base: str, out: Path) -> AdapterReport:
    """Copies an adapter to `out`, in our layout; `base` is what its configuration names as backbone.

    Raises ArtifactError where a file is damaged or the adapter is of another base, ConfigError where one is missing.
    """
    adapter_files(folder)
    made_on, present = read_settings(folder / "adapter.json").get("backbone"), checkpoint_fingerprint(base_folder)
    if made_on != present:
        raise ArtifactError(
            f"{folder} is an adapter of backbone {str(made_on)[:12]}, {base_folder} is {present[:12]}: "
            "name as --base the checkpoint that it was trained on"
        )
    sources = {name: folder / name for name in ADAPTER_FILES if "/" not in name}
    sources |= {f"{LORA_FOLDER}/{name}": lora_folder(folder) / name for name in LORA_FILES}
    if (folder / REASONER_FOLDER).is_dir():
        sources |= {f"{REASONER_FOLDER}/{name}": folder / REASONER_FOLDER / name for name in LORA_FILES}
    with new_folder(out) as building, storage_errors(out):
        for name, source in sources.items():
            (building / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, building / name)
        configured = _write_settings(folder / SETTINGS, building / SETTINGS, base, out)
        sizes = {name: (building / name).stat().st_size for name in sources}
    return AdapterReport(sizes, configured)


def _write_settings(source: Path, target: Path, base: str, out: Path) -> bool:
    """The configuration that came with the adapter, with the places of this machine; False where none came."""
    if not source.is_file():
        return False
    try:
        settings: Any = yaml.safe_load(source.read_text(encoding="utf-8"))
        settings["backbone"]["model"], settings["adapter"]["path"] = base, str(out)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, LookupError) as error:
        raise ArtifactError(f"{source} is not a configuration ({brief(error)}): copy or download it again") from error
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_atomic(target, lambda path: path.write_text(text, encoding="utf-8"))
    return True
