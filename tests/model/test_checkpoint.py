"""A checkpoint's fingerprint is that of the model, not of the software that wrote it."""

import json

from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.random_backbone import write_random_backbone


def test_fingerprint_is_the_models_own(tmp_path):
    write_random_backbone(tmp_path)
    before = checkpoint_fingerprint(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"transformers_version": "99"}, indent=4))
    assert checkpoint_fingerprint(tmp_path) == before
    path.write_text(json.dumps(config | {"vision_start_token_id": 7}))
    assert checkpoint_fingerprint(tmp_path) != before
    write_random_backbone(tmp_path, seed=1)
    assert checkpoint_fingerprint(tmp_path) != before
