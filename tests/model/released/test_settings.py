"""The configuration that an import writes runs the adapter as its authors do."""

from comem_ray.config import load_config
from comem_ray.model.released.settings import authors_settings, write_settings


def test_the_authors_inference(tmp_path):
    settings = authors_settings("comem", "Qwen/Qwen2.5-VL-7B-Instruct", tmp_path / "comem")
    write_settings(tmp_path / "comem.yaml", "release", settings)
    config = load_config(tmp_path / "comem.yaml")
    assert (config.reasoner.question_vision, config.reasoner.item_order) == ("adapter", "best_last")
    limits = [config.backbone.item_pixels, config.backbone.question_pixels]
    assert [(limit.min, limit.max) for limit in limits] == [(None, None)] * 2
    assert (config.ingest.images.resize, config.ingest.images.max_side) == ("square", 512)
    assert (config.reasoner.temperature, config.reasoner.top_p, config.reasoner.repetition_penalty) == (
        0.1,
        0.001,
        1.05,
    )
    assert config.retrieval.top_k == 10
    assert config.adapter.path == str(tmp_path / "comem")
