"""Shapes of released backbones, without a checkpoint."""

import pytest
import torch

from comem_ray.config import ConfigError
from comem_ray.model.shapes import TEXT, backbone_config, empty_backbone


@pytest.mark.parametrize("name", TEXT)
def test_the_7b_models_have_their_width_and_layers(name):
    text = backbone_config(name).text_config
    assert (text.hidden_size, text.num_hidden_layers, text.vocab_size) == (3584, 28, 152064)


@pytest.mark.parametrize("name", TEXT)
def test_the_empty_model_has_the_released_number_of_parameters_and_no_memory(name):
    model = empty_backbone(name)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(8.29e9, rel=0.01)
    assert {p.device for p in model.parameters()} == {torch.device("meta")}
    assert not any(p.requires_grad for p in model.parameters())


def test_a_folder_gives_its_own_shapes(backbones):
    assert backbone_config(str(backbones["qwen2_vl"])).text_config.hidden_size == 64


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="is not a folder"):
        backbone_config("no/such-model")
