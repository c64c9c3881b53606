"""configs/training_data.yaml: what the paper says of its training data (arXiv 2505.17670)."""

from comem_ray.config import load_config


def test_the_recipe_of_the_paper():
    config = load_config("configs/training_data.yaml")
    synthesis, training = config.synthesis, config.training
    assert synthesis is not None
    assert training is not None
    assert synthesis.translation is not None
    assert [source.task for source in synthesis.sources] == ["infoseek", "encyclopedic_vqa", "okvqa"]
    assert (synthesis.top_k, synthesis.prompt_items, training.items, synthesis.min_score) == (3, 3, 3, 1)
    languages = synthesis.translation.languages
    assert set(languages) == {"bg", "zh", "ar", "fil", "fr", "ja", "pt", "ru", "es"}
    assert 13_800 + len(languages) * synthesis.translation.samples_per_language == 15_600
    assert training.max_steps is not None
    assert training.max_steps * training.global_batch == 15_600
    assert (training.learning_rate, training.weight_decay, training.warmup, training.clip_norm) == (5e-5, 0.1, 0.03, 3)
