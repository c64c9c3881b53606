"""Checkpoints of a training run: `step-000100/` holds the adapter, the optimizer's state and the number of the step.

The adapter part is an ordinary adapter folder, usable as `adapter.path`, without frozen weights. The position in the
data and the random numbers of a step are functions of its number, so a run needs nothing else to continue. A folder
appears complete, by renaming. Tensors are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from comem_ray.artifacts import ArtifactError, file_sha256, storage_errors, write_json
from comem_ray.model.adapter import Adapter, save_adapter
from comem_ray.training.optimizer import MasterAdamW

_PREFIX = "step-"
MADE_BY = "training.json"  # in a published adapter: the identity of its run


class Checkpoints:
    """The checkpoints of one run. `identity` (configuration and fingerprints) describes the run."""

    def __init__(self, folder: Path, identity: dict[str, Any], keep: int):
        self.folder, self.identity, self.keep = folder, json.loads(json.dumps(identity)), keep

    def save(self, step: int, adapter: Adapter, optimizer: MasterAdamW) -> Path:
        """Saves the state after `step` steps, and deletes the oldest checkpoints beyond `keep`."""
        with storage_errors(self.folder):
            return self._save(step, adapter, optimizer)

    def _save(self, step: int, adapter: Adapter, optimizer: MasterAdamW) -> Path:
        final = self.folder / f"{_PREFIX}{step:06d}"
        building = self.folder / f".{final.name}.{os.getpid()}.tmp"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        save_adapter(building, adapter, self.identity["backbone"])
        save_file(optimizer.state(), building / "optimizer.safetensors")
        files = {str(p.relative_to(building)): file_sha256(p) for p in building.rglob("*") if p.is_file()}
        write_json(building / "state.json", {"step": step, "identity": self.identity, "files": files})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(building, final)
        for old in self._all()[: -self.keep]:
            shutil.rmtree(old)
        return final

    def latest(self) -> Path | None:
        """The newest checkpoint, None before the first."""
        return self._all()[-1] if self._all() else None

    def publish(self, target: Path) -> None:
        """Copies the adapter of the newest checkpoint to `target`, completely or not at all."""
        newest = self.latest()
        assert newest is not None
        with storage_errors(target):
            self._publish(newest, target)

    def _publish(self, newest: Path, target: Path) -> None:
        building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(newest, building, ignore=shutil.ignore_patterns("optimizer.safetensors", "state.json"))
        write_json(building / MADE_BY, self.identity)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(building, target)

    def refuse_another_target(self, target: Path) -> None:
        """Raises ArtifactError if `target` exists and another run made it: it would be lost."""
        made_by = target / MADE_BY
        if target.exists() and not (
            made_by.is_file() and json.loads(made_by.read_text(encoding="utf-8")) == self.identity
        ):
            raise ArtifactError(
                f"adapter.path {target} holds an adapter that this run did not make: name another, or move it away"
            )

    def restore(self, optimizer: MasterAdamW) -> int:
        """Loads the newest checkpoint into the trained parameters and the optimizer. Returns its step, or 0.

        Raises ArtifactError if the run was started with another configuration, naming the fields that differ, or if a
        file of the checkpoint is not what was written.
        """
        newest = self.latest()
        if newest is None:
            return 0
        self.refuse_another_run()
        for name, sha256 in self._state(newest).get("files", {}).items():  # a checkpoint of 0.2 has no digests
            path = newest / name
            if not path.is_file() or file_sha256(path) != sha256:
                raise self._damage(newest, f"{path} is missing or has changed since it was written")
        optimizer.restore(load_file(newest / "optimizer.safetensors"))
        return self.latest_step()

    def latest_step(self) -> int:
        """The step of the newest checkpoint, 0 before the first."""
        newest = self.latest()
        return 0 if newest is None else int(self._state(newest)["step"])

    def _state(self, checkpoint: Path) -> dict[str, Any]:
        path = checkpoint / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return {"files": {}, **state, "step": int(state["step"]), "identity": dict(state["identity"])}
        except (ValueError, KeyError, TypeError) as error:
            raise self._damage(checkpoint, f"{path} is damaged ({error!r})") from error

    def _damage(self, checkpoint: Path, fault: str) -> ArtifactError:
        earlier = [path.name for path in self._all() if path != checkpoint]
        where = f"from {earlier[-1]}" if earlier else "from the start"
        return ArtifactError(f"{fault}: delete {checkpoint} and run again, training then goes on {where}")

    def refuse_another_run(self) -> None:
        """Raises ArtifactError if the checkpoints are of another configuration, naming the fields that differ."""
        newest = self.latest()
        if newest is None:
            return
        stored = self._state(newest)["identity"]
        if differing := [
            k for k in sorted(stored.keys() | self.identity.keys()) if stored.get(k) != self.identity.get(k)
        ]:
            changes = "; ".join(f"{k}: stored {stored.get(k)!r}, now {self.identity.get(k)!r}" for k in differing)
            raise ArtifactError(f"{newest} is of another run ({changes}): name another root, or delete {self.folder}")

    def _all(self) -> list[Path]:
        return sorted(p for p in self.folder.glob(f"{_PREFIX}*") if (p / "state.json").exists())
