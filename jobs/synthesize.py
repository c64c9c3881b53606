"""Training samples: the backbone answers the training questions of tasks, and its right answers are kept.

    ray job submit --working-dir . -- python -m jobs.synthesize --config configs/qwen2_5_vl_7b.yaml

The questions of `synthesis.sources` are cut into units in order, on an actor pool: retrieval, answers with the items in
the prompt, official scoring. A unit leaves `part-NNNNNN.parquet` (TRAINING_SCHEMA) and `part-NNNNNN.rejected.parquet`
(file, row, reason, answer). A question that comes again is left out and counted. Where
`synthesis.translation` is set, each language is one more unit, `translated-<language>.parquet`, of kept samples drawn
by seed. The folder is training-data/ below the run's root; `training.data` names it.

The summary and the manifest say how many questions of each source were asked, answered, right and kept, and with which
seed and decoding.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from comem_ray.artifacts import Manifest, StageFolder, fingerprint, load_manifest, write_parquet
from comem_ray.config import Config, ConfigError, SynthesisConfig
from comem_ray.prompts import translation_instruction
from comem_ray.retrieval.index import STAGE as INDEX
from comem_ray.tasks.example import Example
from comem_ray.tasks.rules.own import import_rules
from comem_ray.training.data.counts import COUNTED, by_source, sampling, source_counts
from comem_ray.training.data.questions import DUPLICATE, RejectedSample, read_questions, without_duplicates
from comem_ray.training.data.samples import REJECTED, REJECTED_SAMPLE_SCHEMA, TRAINING_SCHEMA
from comem_ray.training.data.synthesis import Synthesizer, synthesis_identity
from comem_ray.training.data.translation import ChatTranslator, draw_samples, translate_samples
from jobs.common import Summary, main, run_units

STAGE = "synthesize"
Rows = list[tuple[str, Example | RejectedSample]]
"""Rows with the name of the source that each is of."""


def run(config: Config) -> Summary:
    """Writes training-data/ under the run's root. ConfigError: no `synthesis`, or a source that is not there."""
    synthesis = _section(config)
    if synthesis.translation is not None:
        ChatTranslator(synthesis.translation)  # a missing key is refused now, not after hours of answers
    index = load_manifest(config.folder("index"), INDEX).fingerprint
    stage = StageFolder(config.folder("training-data"), STAGE, synthesis_identity(config, synthesis))
    units = list(_units(config, synthesis, index))
    inputs = {unit["unit"]: unit["inputs"] for unit in units}
    done = stage.finished(inputs)
    todo = [unit for unit in units if unit["unit"] not in done]
    run_units(todo, SynthesizeUnit, (config, stage), synthesis.workers, STAGE)
    translations = _translations(config, synthesis, stage, list(inputs))
    if translations and synthesis.translation:
        kept = stage.finished({**inputs, **translations})
        more = [{"unit": unit, "inputs": digest} for unit, digest in translations.items() if unit not in kept]
        run_units(more, TranslateUnit, (config, stage, list(inputs)), synthesis.translation.workers, "translate")
    counts = Counter[str]()
    for record in stage.records():
        if record.unit in inputs:
            counts.update(record.counts)
    extra = {"sources": by_source(counts), "sampling": sampling(config, synthesis)}
    return _summary(stage.close([*inputs, *translations], extra), len(todo))


def _section(config: Config) -> SynthesisConfig:
    if config.synthesis is None:
        raise ConfigError("field synthesis: is missing, it names the questions to make training samples of")
    return config.synthesis


def _units(config: Config, synthesis: SynthesisConfig, index: str) -> Iterator[dict[str, Any]]:
    """Numbered runs of rows, each with the digest of what its samples are made from: rows, images, index."""
    own_rules = import_rules(config.scoring_rules)
    sources = [zip(repeat(s.name or s.task), read_questions(s, own_rules)) for s in synthesis.sources]
    rows = without_duplicates(chain.from_iterable(sources))
    number = 0
    while chunk := list(islice(rows, synthesis.questions_per_unit)):
        digest = fingerprint([index, [_input(row) for _, row in chunk]])
        yield {"unit": f"part-{number:06d}", "inputs": digest, "payload": pickle.dumps(chunk)}
        number += 1


def _input(row: Example | RejectedSample) -> dict[str, Any]:
    """The fields of a row; of the paths of its image and its file, the names alone."""
    if isinstance(row, RejectedSample):
        return asdict(row)
    assert row.place is not None
    at = row.image_at and replace(row.image_at, file=Path(row.image_at.file).name)
    return {**asdict(replace(row, image_at=at, place=None)), "place": [row.place.path.name, row.place.number]}


def _translations(
    config: Config, synthesis: SynthesisConfig, stage: StageFolder, parts: Sequence[str]
) -> dict[str, str]:
    """The units of the translation, each with the digest of what it is made from."""
    settings = synthesis.translation
    if settings is None:
        return {}
    wanted = set(parts)
    shards = [s for r in stage.records() if r.unit in wanted for s in r.shards]
    samples = [s.sha256 for s in shards if not s.logical_name.endswith(REJECTED)]
    made_by = [samples, settings.model, settings.samples_per_language, config.seed]
    return {f"translated-{lang}": fingerprint([made_by, translation_instruction(lang)]) for lang in settings.languages}


class SynthesizeUnit:
    """An actor: each call makes the samples and the rejected rows of one unit."""

    def __init__(self, config: Config, stage: StageFolder):
        synthesis = _section(config)
        torch.set_num_threads(synthesis.workers.thread_count)
        self.seed, self.stage = config.seed, stage
        self.synthesizer = Synthesizer(config, synthesis, "cuda" if synthesis.workers.gpus else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
        rows: Rows = pickle.loads(batch["payload"][0])
        torch.manual_seed(int(fingerprint([self.seed, unit])[:8], 16))  # counts where answers are sampled
        answered = iter(self.synthesizer.outcomes([row for _, row in rows if isinstance(row, Example)]))
        outcomes = [next(answered) if isinstance(row, Example) else row for _, row in rows]
        samples = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        rejected = [one for one in outcomes if isinstance(one, RejectedSample) and one.reason != DUPLICATE]
        names = f"{unit}.parquet", unit + REJECTED
        write_parquet(self.stage.path / names[0], pa.Table.from_pylist(samples, TRAINING_SCHEMA))
        write_parquet(self.stage.path / names[1], _rejected_table(rejected))
        files = dict(zip(names, (len(samples), len(rejected)), strict=True))
        by_name = source_counts((name, outcome) for (name, _), outcome in zip(rows, outcomes, strict=True))
        self.stage.commit(unit, inputs, files, {**_counts(len(rows), len(samples), rejected), **by_name})
        return {"unit": [unit]}


class TranslateUnit:
    """An actor: each call translates a draw from the samples of all `parts` into one language."""

    def __init__(self, config: Config, stage: StageFolder, parts: list[str]):
        settings = _section(config).translation
        assert settings is not None
        self.seed, self.stage, self.settings, self.translate = config.seed, stage, settings, ChatTranslator(settings)
        self.paths = [path for part in parts if (path := stage.find(f"{part}.parquet")) is not None]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        unit, inputs = str(batch["unit"][0]), str(batch["inputs"][0])
        language = unit.removeprefix("translated-")
        tables = [pq.read_table(path, columns=["sample_id", "language"]) for path in self.paths]
        samples = [(row["sample_id"], row["language"]) for table in tables for row in table.to_pylist()]
        chosen = draw_samples(samples, language, self.settings.samples_per_language, self.seed)
        tables = [pq.read_table(path, filters=[("sample_id", "in", chosen)]) for path in self.paths] if chosen else []
        rows = [row for table in tables for row in table.to_pylist()]
        translations = translate_samples(rows, self.translate, language, self.settings.model)
        write_parquet(self.stage.path / f"{unit}.parquet", pa.Table.from_pylist(translations, TRAINING_SCHEMA))
        counts = {"translated": len(translations), "translations left out": len(rows) - len(translations)}
        self.stage.commit(unit, inputs, {f"{unit}.parquet": len(translations)}, counts)
        return {"unit": [unit]}


def _rejected_table(rejected: Sequence[RejectedSample]) -> pa.Table:
    def clean(value: Any) -> Any:  # a file may hold text that parquet cannot
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    return pa.Table.from_pylist([{k: clean(v) for k, v in asdict(r).items()} for r in rejected], REJECTED_SAMPLE_SCHEMA)


def _counts(questions: int, kept: int, rejected: Sequence[RejectedSample]) -> dict[str, int]:
    reasons = Counter(f"rejected.{rejection.reason}" for rejection in rejected)
    main = {"questions": questions, "kept": kept, "rejected": len(rejected)}
    return {**main, "duplicates": questions - kept - len(rejected), **dict(sorted(reasons.items()))}


def _summary(manifest: Manifest, units_now: int) -> Summary:
    counts = Counter(manifest.counts)  # a run without any question has no counts
    assert counts["questions"] == counts["kept"] + counts["rejected"] + counts["duplicates"]
    reasons = {name: counts[name] for name in sorted(counts) if name.startswith("rejected.")}
    return {
        "questions": counts["questions"],
        "kept": counts["kept"],
        "rejected": counts["rejected"],
        **reasons,
        "duplicates": counts["duplicates"],
        "translated": counts["translated"],
        "translations left out": counts["translations left out"],
        **{f"source {name}": _counts_text(own) for name, own in manifest.extra["sources"].items()},
        "sampling": ", ".join(f"{name} {value}" for name, value in manifest.extra["sampling"].items()),
        "units": len(manifest.records),
        "units made now": units_now,
        "bytes": sum(shard.bytes for shard in manifest.shards()),
    }


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]:,} {name}" for name in COUNTED)


if __name__ == "__main__":
    main(STAGE, run, __doc__ or "")
