#!/usr/bin/env bash
# Trains the demo's model from nothing into $COMEM_HOME/demo-model, then copies its weights into
# examples/countries/weights/. `make train-demo` runs it.
# SIZES=large takes the longer recipe, for a GPU. May be killed at any point and run again: finished stages are kept, an
# unfinished one resumes from its checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$COMEM_HOME/demo-model config=examples/countries/train.yaml sizes=${SIZES:-real}
unset RAY_ADDRESS

echo "== 1. the retriever's CLIP model"
[ -e "$out/clip/comem-demo-clip.safetensors" ] || python -m examples.countries.train.clip --out "$out/clip"
echo "== 2. vision tower, base, Q-Former, warm-up, knowledge base"
python -m examples.countries.train.stages --out "$out" --sizes "$sizes"
echo "== 3. the items of the knowledge base"
python -m jobs.ingest --config "$config"
echo "== 4. samples over the items"
python -m examples.countries.train.stages --out "$out" --sizes "$sizes" --stage samples
echo "== 5. the adapter, by the project's own training"
python -m jobs.train --config "$config"
echo "== 6. the weights into examples/countries/weights"
python -m examples.countries.train.ship --run "$out" --adapter "$out/trained"
du -sh examples/countries/weights
