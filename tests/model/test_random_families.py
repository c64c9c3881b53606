"""Each family's tiny parts fit together: the ids in the configuration are those of its tokenizer."""

import pytest

from comem_ray.model.families import FAMILIES
from comem_ray.model.random_families import RANDOM_FAMILIES, token_ids


@pytest.mark.parametrize("name", RANDOM_FAMILIES)
def test_ids_of_control_tokens(name):
    parts = RANDOM_FAMILIES[name]
    tokenizer = parts.tokenizer()
    ids = token_ids(parts, tokenizer)
    assert tokenizer.convert_tokens_to_ids(FAMILIES[name].image_token) in ids.values()
    assert all(0 <= number < len(tokenizer) for number in ids.values())
    config = parts.config(text_config={**parts.text, "vocab_size": len(tokenizer)}, vision_config=parts.vision, **ids)
    assert FAMILIES[name].misfit(parts.image_processor(), _with_fields(config, parts.fields)) is None


def _with_fields(config, fields):
    for field, value in fields.items():
        setattr(config, field, value)
    return config
