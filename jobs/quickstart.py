"""The whole product on one screen: a WIT file becomes a knowledge base that answers questions.

    ray job submit --working-dir . -- python -m jobs.quickstart --config configs/demo.yaml

Each stage is also a job of its own. Any of them may be killed and run again; finished units are kept.
"""

from __future__ import annotations

from comem_ray.config import Config
from jobs import build_index, embed_items, encode_memory, ingest
from jobs.common import Summary, main, run_stage

STAGES = {
    "ingest": ingest.run,  # WIT rows          -> items/       numbered parquet shards of knowledge items
    "embed_items": embed_items.run,  # items   -> embeddings/  CLIP embeddings, image and text
    "build_index": build_index.run,  # vectors -> index/       FAISS
    "encode_memory": encode_memory.run,  # items -> memory/    8 vectors per item
}


def run(config: Config) -> Summary:
    """Runs the stages in turn. serve/app.py serves what they make."""
    summaries = {name: run_stage(name, stage, config) for name, stage in STAGES.items()}
    return {f"{name} (s)": summary["seconds"] for name, summary in summaries.items()}


if __name__ == "__main__":
    main("quickstart", run, __doc__)
