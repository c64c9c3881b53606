"""The inputs, models and artifacts of a run: present, whole, and whether they belong together.

Every file of a stage is read, for its SHA-256. Models are not loaded and nothing is downloaded: call it with
HF_HUB_OFFLINE set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from comem_ray.artifacts import ArtifactError, Manifest
from comem_ray.artifacts.manifest import read_manifest
from comem_ray.artifacts.verify import StageReport, verify
from comem_ray.config import Config, ConfigError, resolve
from comem_ray.doctor.finding import Finding
from comem_ray.knowledge.sources.files import source_files

STAGES = {"items": "ingest", "embeddings": "embed_items", "index": "build_index", "memory": "encode_memory"}


def check_inputs(config: Config) -> Iterator[Finding]:
    """The files that the knowledge base and the training data are made from."""
    for number, source in enumerate(config.ingest.sources):
        name = f"ingest.sources.{number}"
        try:
            files = source_files([source])
        except ConfigError as error:
            yield Finding("inputs", name, "missing", str(error).replace("ingest.sources.0", name))
            continue
        lost = [file.path for file in files if not Path(file.path).exists()]
        size = sum(Path(file.path).stat().st_size for file in files if Path(file.path).is_file())
        facts = {"files": len(files), "bytes": size, "formats": ", ".join(sorted({file.format for file in files}))}
        if lost:
            yield Finding("inputs", name, "missing", f"{len(lost)} of {len(files)} files are missing: {lost[0]}", facts)
        else:
            text = f"{source.path}: {len(files)} files ({facts['formats']}), {size:,} bytes"
            yield Finding("inputs", name, "ok", text, facts)
    for number, questions in enumerate(config.synthesis.sources if config.synthesis else []):
        for field in ("path", "annotations", "images"):
            path = getattr(questions, field)
            if path is not None:
                name, place = f"synthesis.sources.{number}.{field}", resolve(path)
                status, text = ("ok", "is there") if place.exists() else ("missing", "is not there")
                yield Finding("inputs", name, status, f"{place} {text}")  # type: ignore[arg-type]


def check_models(config: Config) -> Iterator[Finding]:
    """The CLIP model, the backbone and the adapter, by their files."""
    # Imported here: they load torch.
    from comem_ray.model.adapter import encoder_fingerprint
    from comem_ray.model.checkpoint import checkpoint_fingerprint, checkpoint_folder
    from comem_ray.retrieval.clip import locate

    yield _model("clip", config.clip.model, lambda: locate(config.clip).fingerprint)
    backbone = _model(
        "backbone", config.backbone.model, lambda: checkpoint_fingerprint(checkpoint_folder(config.backbone.model))
    )
    yield backbone
    if not backbone.is_fault:
        yield _model("encoder", config.adapter.path or "random adapter", lambda: encoder_fingerprint(config))


def _model(name: str, place: str, fingerprint: Callable[[], str]) -> Finding:
    try:
        digest = fingerprint()
    except ConfigError as error:
        return Finding("models", name, "missing", str(error))
    except ArtifactError as error:
        return Finding("models", name, "wrong", str(error))
    return Finding("models", name, "ok", f"{place}: fingerprint {digest[:12]}", {"fingerprint": digest})


def check_artifacts(config: Config, models: list[Finding]) -> Iterator[Finding]:
    """The stages of the run, then whether the models of `models` made them."""
    root = config.folder("")
    try:
        reports = {report.folder.name: report for report in verify(root)}
    except ArtifactError:
        reports = {}
    for folder, stage in STAGES.items():
        if folder not in reports:
            detail = f"{config.folder(folder)} is missing: run python -m jobs.{stage} with this configuration"
            yield Finding("run", folder, "missing", detail)
    for folder, report in reports.items():
        yield _stage(folder, report)
    yield from _made_by(config, {m.name: m.facts["fingerprint"] for m in models if m.status == "ok"})


def _stage(folder: str, report: StageReport) -> Finding:
    facts: dict[str, Any] = {"files": report.files, "bytes": report.bytes, "generation": report.generation}
    if report.faults:
        more = f" ({len(report.faults)} faults, this is the first)" if len(report.faults) > 1 else ""
        unfinished = not report.generation
        return Finding("run", folder, "missing" if unfinished else "wrong", report.faults[0] + more, facts)
    manifest = read_manifest(report.folder)
    facts |= {"fingerprint": manifest.fingerprint, "made_from": manifest.made_from, "counts": manifest.counts}
    items = f", {manifest.counts['items']:,} items" if "items" in manifest.counts else ""
    text = f"whole{items}, {report.files:,} files of {report.bytes:,} bytes, fingerprint {manifest.fingerprint[:12]}"
    return Finding("run", folder, "ok", text, facts)


def _made_by(config: Config, models: dict[str, str]) -> Iterator[Finding]:
    """Whether index and memory were made by the models of the configuration."""
    from comem_ray.memory_store import refuse_other_encoder
    from comem_ray.retrieval.retriever import refuse_other_clip

    for folder, model, refuse in (("index", "clip", refuse_other_clip), ("memory", "encoder", refuse_other_encoder)):
        manifest = _finished(config.folder(folder))
        if manifest is None or model not in models:
            continue
        name = f"{folder} and {model}"
        try:
            refuse(config.folder(folder), manifest, models[model])
        except (ArtifactError, KeyError) as error:
            yield Finding("run", name, "wrong", str(error))
        else:
            yield Finding("run", name, "ok", f"the {folder} was made by the {model} of this configuration")


def _finished(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ArtifactError:
        return None
