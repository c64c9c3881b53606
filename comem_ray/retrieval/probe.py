"""Whether a saved index can do all that a retriever asks of one: search, search among some items, give back vectors.

A factory string may name an index that can do a part of it only, and FAISS may end the process where it cannot. So the
index is opened in a process of its own, which does each of these once. Knows nothing of items or of Ray.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import numpy as np

from comem_ray.config import ConfigError
from comem_ray.retrieval.index import ItemIndex, faiss_reason

QUERIES, NEAREST, READ_BACK = 3, 100, 64
TOLERANCE = 0.01  # between a score of a search and the inner product with the vector that the index gives back
_DONE, _FAULT, _LINE = "done", "fault: ", "comem probe: "


def index_fault(path: Path, search_parameters: Mapping[str, int]) -> str:
    """What the index in the file `path` cannot do, as the end of "it cannot ..."; "" if it can do all.

    Raises ConfigError for a search parameter that the index does not know, RuntimeError where the process could not
    begin, or was killed from outside.
    """
    # The child must import this very package, wherever its parent has it from.
    home = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-m", "comem_ray.retrieval.probe", str(path), json.dumps(dict(search_parameters))]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.removeprefix(_LINE) for line in ended.stdout.splitlines() if line.startswith(_LINE)]
    if lines and lines[-1] == _DONE:
        return ""
    if len(lines) > 1 and lines[-1].startswith(_FAULT):
        name, reason = json.loads(lines[-1].removeprefix(_FAULT))
        if name == ConfigError.__name__:
            raise ConfigError(reason)
        return f"{lines[-2]}: {reason}"
    if not lines or -ended.returncode in (signal.SIGKILL, signal.SIGTERM):
        what = f"ended with {ended.returncode}, mostly for want of memory: {ended.stderr[-500:].strip()}"
        raise RuntimeError(f"the process that tries the index {path} {what}")
    reason = (ended.stderr.strip().splitlines() or [""])[-1] if ended.returncode > 0 else "FAISS ends the process"
    return f"{lines[-1]}: {reason} (exit code {ended.returncode})"


def _probe(path: str, search_parameters: Mapping[str, int], begin: Callable[[str], None]) -> str:
    """Does all that a retriever does. `begin` is called with the name of each thing before it is done.

    Returns what is wrong with what came out, "" if nothing. Lets FAISS's errors pass.
    """
    begin("be read back from its file")
    index = faiss.read_index(path)
    begin("compare by inner products")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        return "its file says that it compares by another measure"
    none = np.zeros(index.ntotal, "S1")
    begin("be searched")
    items = ItemIndex(index, none, none, search_parameters)
    queries = np.random.default_rng(0).standard_normal((QUERIES, index.d), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores, positions = items.nearest(queries, NEAREST)
    if not index.ntotal:
        return ""
    begin("search among the items of one language")
    half = items.subset(np.arange(0, index.ntotal, 2))
    _, some = items.nearest(queries, NEAREST, subset=half)
    if (some[some >= 0] % 2).any():
        return "it returns others too"
    begin("give its vectors back, which a search by both needs")
    every = np.linspace(0, index.ntotal - 1, min(READ_BACK, index.ntotal)).astype(np.int64)
    if not np.isfinite(items.scores(queries[0], every)).all():
        return "their numbers are not finite"
    begin("score by the vectors that it holds")
    return max((_difference(items, *row) for row in zip(queries, scores, positions, strict=True)), default="", key=len)


def _difference(items: ItemIndex, query: np.ndarray, scores: np.ndarray, positions: np.ndarray) -> str:
    hits = positions >= 0
    difference = np.abs(items.scores(query, positions[hits]) - scores[hits]).max(initial=0)
    return "" if difference <= TOLERANCE else f"its scores are wrong by up to {difference:.2f}"


def _main(path: str, search_parameters: str) -> None:
    def write(text: str) -> None:
        sys.stdout.write(f"{_LINE}{text}\n")
        sys.stdout.flush()

    try:
        fault = _probe(path, json.loads(search_parameters), write)
        write(_FAULT + json.dumps(["", fault]) if fault else _DONE)
    except ConfigError as error:
        write(_FAULT + json.dumps([ConfigError.__name__, str(error)]))
    except RuntimeError as error:
        write(_FAULT + json.dumps(["", faiss_reason(error)]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
