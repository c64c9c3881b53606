"""The model card has the run's own figures, or says that there are none."""

import yaml

from comem_ray.artifacts import StageFolder
from comem_ray.evaluation.predictions import STAGE
from comem_ray.export.card import NOTHING, measured, model_card
from comem_ray.model.adapter import encoder_identity

FACTS = {"qformer": {"queries": 8, "layers": 8}, "lora": {"rank": 16, "alpha": 32.0}}


def test_the_card_says_what_it_is_and_how_it_is_loaded(adapter):
    _, _, config = adapter
    card = model_card(config, FACTS, "Qwen/Qwen2.5-VL-7B-Instruct", ["", "reasoner"], merged=True)
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("Qwen/Qwen2.5-VL-7B-Instruct", "peft")
    for words in (NOTHING, 'PeftModel.from_pretrained(model, ".")', "| lora: rank | 16 |", "`merged_reasoner/`"):
        assert words in card
    assert "| backbone.item_pixels | no minimum to no maximum |" in card
    plain = model_card(config, FACTS, None, [""], merged=False)
    assert "base_model" not in plain.split("---")[1]
    assert "merged" not in plain


def test_figures_are_those_of_this_encoder_alone(adapter, tmp_path):
    _, _, config = adapter
    config = config.model_copy(update={"root": str(tmp_path)})
    stage = StageFolder(config.folder("evaluation"), STAGE, {"encoder": encoder_identity(config)})
    assert measured(config) == NOTHING
    stage.close([])
    (config.folder("evaluation") / "report.md").write_text("| arm | right |\n| --- | --- |\n| memory, 3 | 50.0 |\n")
    assert "| memory, 3 | 50.0 |" in measured(config)
    pixels = config.backbone.model_copy(
        update={"item_pixels": config.backbone.item_pixels.model_copy(update={"max": 99})}
    )
    assert "of another encoder" in measured(config.model_copy(update={"backbone": pixels}))
