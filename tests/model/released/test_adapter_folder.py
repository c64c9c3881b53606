"""An adapter folder as the source of an import is checked and copied."""

import pytest
import yaml
from support.release import imported

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError, load_config
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.model.released.adapter_folder import import_adapter, is_adapter


@pytest.fixture
def adapter(release, backbones, tmp_path):
    return imported(release[0], backbones["qwen2_5_vl"], tmp_path / "adapter")[1]


def test_the_copy_is_the_same_encoder(adapter, release, backbones, tmp_path):
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(release[0])
    report = import_adapter(tmp_path / "adapter", backbones["qwen2_5_vl"], "Qwen/base", tmp_path / "copy")
    assert "lora/adapter_model.safetensors" in report.table()
    settings = yaml.safe_load((tmp_path / "copy" / "comem.yaml").read_text())
    assert (settings["backbone"]["model"], settings["adapter"]["path"]) == ("Qwen/base", str(tmp_path / "copy"))
    copied = load_config(tmp_path / "copy" / "comem.yaml", [f"backbone.model={backbones['qwen2_5_vl']}"])
    assert encoder_fingerprint(copied) == encoder_fingerprint(adapter)


def test_one_without_a_configuration(adapter, backbones, tmp_path):
    (tmp_path / "adapter" / "comem.yaml").unlink()
    report = import_adapter(tmp_path / "adapter", backbones["qwen2_5_vl"], "Qwen/base", tmp_path / "copy")
    assert not report.configured
    assert "has no comem.yaml" in report.table()


def test_what_is_not_whole(adapter, backbones, tmp_path):
    settings = tmp_path / "adapter" / "comem.yaml"
    for text in ("a list", "- 1", "backbone: {", "adapter: 3"):
        settings.write_text(text)
        with pytest.raises(ArtifactError, match="is not a configuration"):
            import_adapter(tmp_path / "adapter", backbones["qwen2_5_vl"], "base", tmp_path / "copy")
    (tmp_path / "adapter" / "qformer.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"lacks qformer\.safetensors"):
        import_adapter(tmp_path / "adapter", backbones["qwen2_5_vl"], "base", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
