"""What is exported is an adapter folder, a PEFT folder, and the source of an import: always the same memory."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.tiny import image
from transformers import AutoModelForImageTextToText

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError, load_config
from comem_ray.export.hub import export_adapter
from comem_ray.model.lora import adapter_enabled
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.prompt import Prompt
from comem_ray.model.random_backbone import write_random_backbone
from comem_ray.model.reasoner import Reasoner
from comem_ray.model.released.adapter_folder import AdapterReport
from comem_ray.model.released.importing import import_checkpoint

ITEMS = [("Title: text", image(1)), ("Another: a longer text", image(2, 84, 56))]
PROMPT = Prompt("What is it?", image(7), "memory")


def at(config, folder):
    return config.model_copy(update={"adapter": config.adapter.model_copy(update={"path": str(folder)})})


def changed(config, section, **fields):
    return config.model_copy(update={section: getattr(config, section).model_copy(update=fields)})


def memory_and_answer(config):
    encoder = MemoryEncoder(config)
    memory = encoder.encode(ITEMS)
    reasoner = Reasoner(config, backbone=encoder.backbone, adapter=encoder.adapter)
    return memory, reasoner.answer([Prompt(PROMPT.text, PROMPT.image, "memory", memory=memory)])[0].text


def test_there_and_back_is_the_same_memory(adapter, tmp_path):
    _, base, config = adapter
    memory, answer = memory_and_answer(config)
    files = export_adapter(config, tmp_path / "out")
    assert {"adapter_config.json", "adapter_model.safetensors", "qformer.safetensors", "adapter.json"} <= files.keys()
    assert {"comem.yaml", "README.md", "reasoner/adapter_model.safetensors"} <= files.keys()
    again, text = memory_and_answer(at(config, tmp_path / "out"))  # as it is
    assert torch.equal(again, memory)
    assert text == answer
    report = import_checkpoint(str(tmp_path / "out"), str(base), tmp_path / "back")
    assert isinstance(report, AdapterReport)
    assert report.configured
    back = load_config(tmp_path / "back" / "comem.yaml")
    assert (back.adapter.path, back.backbone.model) == (str(tmp_path / "back"), str(base))
    again, text = memory_and_answer(back)
    assert torch.equal(again, memory)
    assert text == answer


def test_plain_peft_gives_the_same_hidden_states(adapter, tmp_path):
    _, base, config = adapter
    export_adapter(config, tmp_path / "out")
    encoder = MemoryEncoder(config)
    ids = torch.arange(9)[None]
    with torch.no_grad(), adapter_enabled(encoder.adapter.lora):
        ours = encoder.backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), tmp_path / "out")
    with torch.no_grad():
        theirs = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    second = AutoModelForImageTextToText.from_pretrained(base)
    PeftModel.from_pretrained(second, tmp_path / "out", subfolder="reasoner")


def test_names_of_earlier_software_are_exported_under_todays(adapter, tmp_path):
    folder, base, config = adapter
    old = shutil.copytree(folder, tmp_path / "old")
    weights = old / "lora" / "adapter_model.safetensors"
    tensors = load_file(weights)
    renamed = {n.replace("model.model.language_model.", "model.model."): t for n, t in tensors.items()}
    save_file({n.replace("model.model.visual.", "model.visual."): t for n, t in renamed.items()}, weights)
    export_adapter(at(config, old), tmp_path / "out")
    exported = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert exported.keys() == tensors.keys()
    assert all(torch.equal(exported[n], t) for n, t in tensors.items())
    PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), tmp_path / "out")


def test_no_path_of_this_machine_is_published(adapter, tmp_path):
    folder, base, config = adapter
    export_adapter(config, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    for name in ("comem.yaml", "README.md", "adapter_config.json"):
        text = (tmp_path / "out" / name).read_text()
        assert str(folder) not in text
        assert str(base) not in text


def test_what_cannot_be_exported(adapter, tmp_path):
    folder, _, config = adapter
    with pytest.raises(ConfigError, match="random weights are not exported"):
        export_adapter(changed(config, "adapter", path=None), tmp_path / "out")
    write_random_backbone(tmp_path / "other", seed=9)
    with pytest.raises(ArtifactError, match=r"was trained on backbone .*name the backbone it was trained on"):
        export_adapter(changed(config, "backbone", model=str(tmp_path / "other")), tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"is an adapter of backbone .*--base"):
        import_checkpoint(str(folder), str(tmp_path / "other"), tmp_path / "out")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    weights = damaged / "lora" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is not a whole safetensors file"):
        export_adapter(at(config, damaged), tmp_path / "out")
    assert not (tmp_path / "out").exists()
