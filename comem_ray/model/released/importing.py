"""From a release to an adapter: the whole of `comem import-checkpoint`.

The base is read beside the release, tensor by tensor. What LoRA cannot have changed must be the same; the Linears'
differences become the LoRA; the Q-Former is renamed. A second model in the release that answers (`model_inf`) is
dropped where it is the base, and becomes a second LoRA, in `reasoner/`, where it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from comem_ray.artifacts import write_json
from comem_ray.artifacts.new_folder import new_folder, require_new
from comem_ray.config import ConfigError
from comem_ray.home import resolve
from comem_ray.model.adapter import REASONER_FOLDER
from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
from comem_ray.model.released.adapter_folder import SETTINGS, AdapterReport, import_adapter, is_adapter
from comem_ray.model.released.differences import require_equal
from comem_ray.model.released.folder import write_facts, write_lora, write_qformer
from comem_ray.model.released.recovery import RecoveredLora, recover_lora, zero_matrices
from comem_ray.model.released.release import Release, lora_pattern, open_release, qformer_sizes
from comem_ray.model.released.report import ImportReport
from comem_ray.model.released.settings import authors_settings, write_settings

REPORT = "import.json"
Progress = Callable[[int, int], object]
"""Called with the number of Linears that are done, and of all."""


def import_checkpoint(
    source: str,
    base: str,
    out: Path,
    rank: int | None = None,
    passes: int = 8,
    heads: int = 16,
    progress: Progress = lambda done, all_: None,
) -> ImportReport | AdapterReport:
    """Makes the adapter folder `out` of the release `source` (a folder, or a name on the hub) and its base.

    `rank` None takes 16, or more where more is found. `passes` and `heads` are those of the Q-Former. `out` appears
    when all is well, or not at all. It also gets the report (import.json) and a configuration (comem.yaml).

    An adapter folder, ours or one that `comem export` wrote, is checked and copied.

    Raises ConfigError where a folder is not a checkpoint, ArtifactError where `out` holds files, a file is missing or
    damaged, or the release was not trained from this base; the message names tensor, shapes and what would be right.
    """
    begin = time.monotonic()
    out = out.absolute()
    require_new(out)
    folder, base_folder = folder_of(source, "the release"), folder_of(base, "--base")
    if is_adapter(folder):
        return import_adapter(folder, base_folder, name_on_the_hub(base) or str(base_folder.absolute()), out)
    release = open_release(folder, base_folder)
    sizes = qformer_sizes(release.qformer, passes, heads)
    compared = require_equal(release, release.encoder) + require_equal(release, release.reasoner)
    lora, reasoner = _loras(release, rank, progress)
    hub_name = name_on_the_hub(base)
    with new_folder(out) as building:
        _write_lora(building / "lora", release, lora, hub_name)
        if reasoner is not None and reasoner.changed:
            _write_lora(building / REASONER_FOLDER, release, reasoner, hub_name)
        parameters = write_qformer(building / "qformer.safetensors", release.qformer)
        write_facts(building / "adapter.json", checkpoint_fingerprint(base_folder), sizes, lora.rank, lora.alpha)
        settings = authors_settings(out.name, hub_name or str(base_folder.absolute()), out)
        write_settings(building / SETTINGS, str(source), settings)
        report = ImportReport.of(
            building, release, lora, reasoner, sizes, parameters, compared, time.monotonic() - begin
        )
        write_json(building / REPORT, report.to_json())
    return report


def name_on_the_hub(model: str) -> str | None:
    """The name of a checkpoint that is not a folder here."""
    return None if Path(model).expanduser().is_dir() or resolve(model).is_dir() else model


def folder_of(name: str, what: str) -> Path:
    """The folder of a checkpoint: a path from here, a path below $COMEM_HOME, or the snapshot of a name on the hub."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    try:
        return checkpoint_folder(name)
    except ConfigError as error:
        raise ConfigError(f"{what}: {str(error).removeprefix('backbone.model: ')}") from error


def _loras(release: Release, rank: int | None, progress: Progress) -> tuple[RecoveredLora, RecoveredLora | None]:
    total = len(release.linears & release.encoder.keys()) + len(release.linears & release.reasoner.keys())
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    lora = recover_lora(release, release.encoder, rank, count)
    reasoner = recover_lora(release, release.reasoner, rank, count) if release.reasoner else None
    return lora, reasoner


def _write_lora(folder: Path, release: Release, lora: RecoveredLora, base: str | None) -> None:
    matrices = lora.matrices or dict(zero_matrices(release, lora.rank))
    targets = lora_pattern(release.base_folder) if len(matrices) == len(release.linears) else None
    write_lora(folder, matrices, {"r": lora.rank, "lora_alpha": lora.alpha}, targets, base)
