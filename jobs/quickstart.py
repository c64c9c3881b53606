"""The whole road on one screen: a WIT file becomes a knowledge base that questions can be asked against.

ray job submit --working-dir . -- python -m jobs.quickstart --config configs/demo.yaml

Each stage is also a job of its own. Any of them may be killed and run again: what is finished is kept.
"""

from __future__ import annotations

from comem_ray.config import Config
from jobs import build_index, embed_items, encode_memory, ingest
from jobs.common import Summary, main, run_stage

STAGES = {
    "ingest": ingest.run,  # WIT rows          -> items/       numbered parquet shards of knowledge items
    "embed_items": embed_items.run,  # items   -> embeddings/  CLIP embeddings, image and text
    "build_index": build_index.run,  # vectors -> index/       FAISS
    "encode_memory": encode_memory.run,  # items -> memory/    8 vectors an item
}


def run(config: Config) -> Summary:
    """Runs the stages in turn; what serves them afterwards is serve/app.py."""
    summaries = {name: run_stage(name, stage, config) for name, stage in STAGES.items()}
    return {f"{name} (s)": summary["seconds"] for name, summary in summaries.items()}


if __name__ == "__main__":
    main("quickstart", run, __doc__ or "")
