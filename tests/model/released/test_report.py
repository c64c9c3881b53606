"""The report of an import, as JSON and as a table."""

import json

from support.release import imported


def test_the_report_names_every_linear_and_every_file(release, backbones, tmp_path):
    report, _ = imported(release[0], backbones["qwen2_5_vl"], tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "import.json").read_text())
    assert stored == json.loads(json.dumps(report.to_json()))
    assert (stored["model_inf"], stored["reasoner"]) == ("equal to the base", None)
    encoder = stored["encoder"]
    assert (encoder["rank"], encoder["rank_found"], encoder["linears_changed"]) == (16, 16, 33)
    assert encoder["parameters"] == sum(16 * sum(linear["shape"]) for linear in encoder["linears"].values())
    assert 0 < encoder["largest_relative_residual"] < 0.02
    files = {str(p.relative_to(tmp_path / "out")): p.stat().st_size for p in (tmp_path / "out").rglob("*.safetensors")}
    assert stored["bytes"] == files
    assert stored["qformer_parameters"] > 0


def test_the_table_has_one_row_per_kind_of_linear(release, backbones, tmp_path):
    report, _ = imported(release[0], backbones["qwen2_5_vl"], tmp_path / "out")
    lines = report.table().splitlines()
    (row,) = [line.split() for line in lines if "gate_proj" in line and "language" in line]
    assert row[:3] == ["language.layers.*.mlp.gate_proj", "3/3", "16"]
    assert any("model_inf is equal to the base: dropped" in line for line in lines)
    assert max(map(len, lines)) <= 120
