"""The diagnosis of a configuration: all findings, as text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Literal

from comem_ray.config import Config
from comem_ray.doctor.benchmarks import check_benchmarks
from comem_ray.doctor.finding import Finding
from comem_ray.doctor.run import check_artifacts, check_inputs, check_models

Part = Literal["all", "benchmarks", "run"]
MARKS = {"ok": "ok", "missing": "MISSING", "wrong": "WRONG", "note": "note"}


def diagnose(config: Config, part: Part = "all") -> Iterator[Finding]:
    """The findings, in order: benchmarks, inputs, models, run. Reads every file; see the modules for what they cost."""
    if part != "run":
        yield from check_benchmarks(config)
    if part != "benchmarks":
        yield from check_inputs(config)
        models = list(check_models(config))
        yield from models
        yield from check_artifacts(config, models)


def as_text(findings: Sequence[Finding]) -> str:
    """The findings under a heading for each part, with one line per finding, then the sum."""
    lines = []
    for part, group in groupby(findings, key=lambda finding: finding.part):
        lines.append(f"== {part}")
        lines += [f"   {MARKS[f.status]:8} {f.name}: {f.detail}" for f in group]
    return "\n".join([*lines, verdict(findings)])


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """{"ok", "missing", "wrong", "findings": [...]}."""
    counts = {status: sum(f.status == status for f in findings) for status in ("missing", "wrong")}
    return {"ok": not any(counts.values()), **counts, "findings": [asdict(finding) for finding in findings]}


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence: whether anything is missing or wrong."""
    counts = as_json(findings)
    if counts["ok"]:
        return "nothing is missing"
    return f"{counts['missing']} missing, {counts['wrong']} wrong: see above"
