"""What an import did: per Linear the rank that was found and what is left over, and the sizes of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comem_ray.model.released.recovery import LinearReport, RecoveredLora
from comem_ray.model.released.release import Release

ABSENT, EQUAL, DIFFERENT = "absent", "equal to the base", "different from the base"


@dataclass(frozen=True)
class LoraReport:
    """One LoRA: its rank and alpha, and every Linear by name."""

    rank: int
    alpha: float
    linears: dict[str, LinearReport]

    @property
    def changed(self) -> list[LinearReport]:
        return [linear for linear in self.linears.values() if linear.changed]

    @property
    def parameters(self) -> int:
        return sum(self.rank * (linear.shape[0] + linear.shape[1]) for linear in self.changed)

    @property
    def rank_found(self) -> int:
        """The largest numerical rank of a Linear."""
        return max((linear.rank for linear in self.changed), default=0)

    @property
    def largest_residual(self) -> float:
        """Largest residual norm of a Linear, as a share of the norm of its change."""
        return max((linear.residual / linear.norm for linear in self.changed), default=0.0)


@dataclass(frozen=True)
class ImportReport:
    """The report of one import. `model_inf` says what the release's second model is."""

    source: str
    base: str
    model_inf: str
    encoder: LoraReport
    reasoner: LoraReport | None
    qformer: dict[str, int]
    qformer_parameters: int
    tensors_compared: int
    bytes: dict[str, int]
    seconds: float

    @classmethod
    def of(
        cls,
        folder: Path,
        release: Release,
        lora: RecoveredLora,
        reasoner: RecoveredLora | None,
        qformer: Mapping[str, int],
        qformer_parameters: int,
        compared: int,
        seconds: float,
    ) -> ImportReport:
        """The report of the adapter that was written to `folder`."""
        model_inf, second = ABSENT if reasoner is None else EQUAL, None
        if reasoner is not None and reasoner.changed:
            model_inf, second = DIFFERENT, LoraReport(reasoner.rank, reasoner.alpha, reasoner.linears)
        files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*.safetensors"))}
        first = LoraReport(lora.rank, lora.alpha, lora.linears)
        source, base = str(release.folder), str(release.base_folder)
        return cls(
            source,
            base,
            model_inf,
            first,
            second,
            dict(qformer),
            qformer_parameters,
            compared,
            files,
            round(seconds, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """The fields, with the derived figures of each LoRA."""
        fields = asdict(self)
        for name, lora in (("encoder", self.encoder), ("reasoner", self.reasoner)):
            if lora is not None:
                fields[name] |= {
                    "rank_found": lora.rank_found,
                    "linears_changed": len(lora.changed),
                    "parameters": lora.parameters,
                    "largest_relative_residual": lora.largest_residual,
                }
        return fields

    def table(self) -> str:
        """The report in some lines for a terminal, Linears of one kind together."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{'Linears of the encoder':40} {_HEAD}"
        yield from _rows(self.encoder)
        if self.reasoner is not None:
            yield f"{'Linears of model_inf':40} {_HEAD}"
            yield from _rows(self.reasoner)
        yield f"{self.tensors_compared:,} other tensors are those of the base"
        yield f"model_inf is {self.model_inf}: {_CONSEQUENCE[self.model_inf]}"
        for name, lora in (("LoRA", self.encoder), ("LoRA of the reasoner", self.reasoner)):
            if lora is not None:
                stored = f"rank {lora.rank} (found: {lora.rank_found}), alpha {lora.alpha:g}"
                yield f"{name}: {lora.parameters:,} parameters, {stored}, {len(lora.changed)} Linears"
        sizes = ", ".join(f"{name} {value}" for name, value in self.qformer.items())
        yield f"Q-Former: {self.qformer_parameters:,} parameters, {sizes}"
        yield f"{sum(self.bytes.values()):,} bytes of weights, {self.seconds:.0f} s"


_HEAD = f"{'changed':>9} {'rank':>7} {'change':>9} {'left over':>9} {'rounding':>9}"
_CONSEQUENCE = {
    ABSENT: "the base answers",
    EQUAL: "dropped, the base answers",
    DIFFERENT: "it is a second LoRA, in reasoner/, which is on while questions are answered",
}


def _rows(lora: LoraReport) -> Iterator[str]:
    kinds: dict[str, list[LinearReport]] = {}
    for name, linear in lora.linears.items():
        kinds.setdefault(re.sub(r"\.\d+\.(?=.*[a-z])", ".*.", name), []).append(linear)
    for kind, linears in kinds.items():
        changed = [linear for linear in linears if linear.changed]
        count = f"{len(changed)}/{len(linears)}"
        if not changed:
            yield f"{_short(kind):40} {count:>9} {'-':>7}"
            continue
        ranks = sorted({linear.rank for linear in changed})
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
        norm, rest, noise = (max(getattr(c, field) for c in changed) for field in ("norm", "residual", "noise"))
        yield f"{_short(kind):40} {count:>9} {rank:>7} {norm:9.3g} {rest:9.3g} {noise:9.3g}"


def _short(kind: str) -> str:
    return kind.removeprefix("model.").replace("language_model.", "language.")
