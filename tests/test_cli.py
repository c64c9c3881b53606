"""The `comem` command; `ask` against a real HTTP server that records what it is asked."""

import json

import pytest
from support.endpoint import listening
from support.tiny import png, shard_paths, write_items
from typer.testing import CliRunner

from comem_ray.cli import app


@pytest.fixture
def endpoint():
    with listening() as endpoint:
        yield endpoint


def run(*words: object):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_ask(endpoint, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    done = run("ask", "Which?", "--image", tmp_path / "a.png", "--top-k", 2, "--url", endpoint.url)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "   memory 'Sofia'",
        f"          0.900  Bulgaria  ({'a' * 24})",
        "          10 prompt tokens, 8 memory vectors, 2 completion tokens, 6 ms",
    ]
    ((path, body),) = endpoint.requests
    assert path == "/v1/answer"
    assert body.keys() == {"question", "image", "mode", "top_k"}


def test_ask_says_what_is_wrong(endpoint, tmp_path):
    assert "cannot read the image" in run("ask", "x", "--image", tmp_path / "no.png", "--url", endpoint.url).output
    endpoint.fail(422, "empty_text", "question is empty: write one", "question")
    for words, message in [
        (["", "--url", endpoint.url], "422 empty_text: question is empty: write one"),
        (["x", "--url", "http://127.0.0.1:9"], "no answer from http://127.0.0.1:9"),
    ]:
        done = run("ask", *words)
        assert done.exit_code == 1
        assert message in done.stderr


def test_ask_sends_the_key_of_the_option_or_the_environment(endpoint, monkeypatch):
    monkeypatch.setenv("COMEM_API_KEY", "from-environment")
    assert run("ask", "x", "--url", endpoint.url).exit_code == 0
    assert run("ask", "x", "--url", endpoint.url, "--api-key", "from-option").exit_code == 0
    assert [h["Authorization"] for h in endpoint.received] == ["Bearer from-environment", "Bearer from-option"]


@pytest.mark.parametrize("url", ["127.0.0.1:99999", "http:/127.0.0.1:8000", "htp://x", ""])
def test_an_address_that_is_none_is_one_sentence(url):
    done = run("ask", "x", "--url", url)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert f"ask: {url!r} is not an address (" in done.stderr


@pytest.fixture
def scored_files(tmp_path):
    """Two reference files of OVEN and predictions for both."""
    from support.scored import jsonl

    for part, entity in (("entity", "Lion"), ("query", "Avocado")):
        row = {"data_id": part, "entity_id": f"Q-{entity}", "entity_text": entity, "data_split": f"{part}_val_seen"}
        jsonl(tmp_path / f"{part}.jsonl", [row])
    predictions = [{"data_id": "entity", "prediction": "lion"}, {"data_id": "query", "prediction": "Ananas"}]
    return tmp_path / "entity.jsonl", tmp_path / "query.jsonl", jsonl(tmp_path / "predictions.jsonl", predictions)


def test_score_prints_one_object_and_writes_the_questions(scored_files, tmp_path):
    entity, query, predictions = scored_files
    rows = tmp_path / "rows.jsonl"
    words = ["--task", "oven", "--references", entity, query, "--predictions", predictions, "--per-question", rows]
    done = run("score", *words)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["overall"], summary["n"], summary["unparsable"]) == (50.0, 2, 1)
    assert "no --titles" in done.stderr
    assert run("score", *words).stdout == done.stdout
    assert [json.loads(line)["score"] for line in rows.read_text().splitlines()] == [1.0, 0.0]


def test_score_warns_of_the_papers_rules(scored_files):
    entity, _, predictions = scored_files
    words = ["--task", "oven", "--references", entity, "--predictions", predictions, "--titles", "x", "--rules"]
    assert "x: the file cannot be read" in run("score", *words, "paper").stderr
    paper = run("score", "--task", "oven", "--references", entity, "--predictions", predictions, "--rules", "paper")
    assert paper.exit_code == 0
    assert "cut at every 'is'" in paper.stderr
    assert json.loads(paper.stdout)["rules"] == "paper"


def test_score_says_what_is_wrong(scored_files, tmp_path):
    entity, query, predictions = scored_files
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"data_id": "entity", "prediction": "a"}\n{"data_id": "query"\n')
    for words, said in [
        (["oven", "--references", entity, "--predictions", broken], "broken.jsonl, line 2: not JSON"),
        (["ovens", "--references", entity, "--predictions", predictions], "there is no task 'ovens'"),
        (["oven", "--references", tmp_path / "none", "--predictions", predictions], "none: the file cannot be read"),
        (
            ["oven", "--references", entity, "--predictions", predictions, "--rules", "mine"],
            "there are no rules 'mine'",
        ),
        (["oven", "--references", entity, "--predictions", predictions, "--question-types", query], "does not take"),
    ]:
        done = run("score", "--task", *words)
        assert done.exit_code == 2
        assert done.stdout == ""
        assert said in done.stderr


def test_score_takes_rules_of_ones_own(tmp_path, monkeypatch):
    from support.scored import jsonl

    rows = [{"data_id": "a", "question": "?", "image": None, "answers": ["Paris"], "rule": "first_letter"}]
    files = ["--references", jsonl(tmp_path / "q.jsonl", rows), "--predictions"]
    files.append(jsonl(tmp_path / "p.jsonl", [{"data_id": "a", "prediction": "pear"}]))
    code = "def first_letter(prediction, gold):\n    return float(prediction[0] == gold[0][0].lower())\n"
    (tmp_path / "own_rules_of_a_test.py").write_text(code)
    done = run("score", "--task", "jsonl", *files)
    assert done.exit_code == 2
    assert "no scoring rule 'first_letter'" in done.stderr
    done = run("score", "--task", "jsonl", *files, "--rules", tmp_path / "own_rules_of_a_test.py")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["overall"] == 100.0
    monkeypatch.chdir(tmp_path)  # the command has no working folder on its path
    text = (
        "name: x\nroot: x\ningest: {sources: [{path: a.tsv}]}\nbackbone: {model: x}\nclip: {model: ViT-B-32}\n"
        "scoring_rules: {first_letter: 'own_rules_of_a_test:first_letter'}\n"
    )
    (tmp_path / "my.yaml").write_text(text)
    done = run("score", "--task", "jsonl", *files, "--config", "my.yaml")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["overall"] == 100.0
    for rules, message in (("none.py", "none.py is not there"), ("q.jsonl", "there are no rules")):
        assert message in run("score", "--task", "jsonl", *files, "--rules", rules).stderr


def test_config_checks_and_prints():
    whole = run("config", "configs/demo.yaml", "--set", "retrieval.top_k=7")
    assert whole.exit_code == 0
    assert "top_k: 7" in whole.output
    wrong = run("config", "configs/demo.yaml", "--set", "retrieval.top_k=0")
    assert wrong.exit_code == 2
    assert "retrieval.top_k" in wrong.output


def test_verify_reads_a_run_and_names_what_is_damaged(tmp_path):
    write_items(tmp_path / "items", [3, 2])
    done = run("verify", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "everything is as it was written"
    path = shard_paths(tmp_path / "items")[1]
    path.write_bytes(path.read_bytes()[:-1])
    done = run("verify", tmp_path)
    assert done.exit_code == 3
    assert f"{path} has " in done.output
    assert "Run the stage 'ingest' again" in done.output
    assert run("verify", tmp_path / "nowhere").exit_code == 3


@pytest.fixture(scope="module")
def release(backbones, tmp_path_factory):
    from support.release import write_release

    folder = tmp_path_factory.mktemp("release")
    write_release(folder, backbones["qwen2_vl"], model_inf="different")
    return folder


def test_import_checkpoint_and_export(release, backbones, tmp_path):
    base, sizes = backbones["qwen2_vl"], ["--passes", 3, "--heads", 4]
    done = run("import-checkpoint", release, "--base", base, "--out", tmp_path / "adapter", *sizes)
    assert done.exit_code == 0, done.output
    assert "model_inf is different from the base: it is a second LoRA, in reasoner/" in done.stdout
    assert f"comem config {tmp_path / 'adapter' / 'comem.yaml'}" in done.stdout
    done = run("export", "--config", tmp_path / "adapter" / "comem.yaml", "--out", tmp_path / "hub", "--merged")
    assert done.exit_code == 0, done.output
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"README.md", "merged/model.safetensors"}
    done = run("import-checkpoint", tmp_path / "hub", "--base", base, "--out", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert "this is an adapter already" in done.stdout


def test_import_checkpoint_and_export_say_what_is_wrong(release, backbones, tmp_path):
    base, out = backbones["qwen2_vl"], tmp_path / "out"
    for words, code, message in [
        ([tmp_path, "--base", base], 3, "holds no .safetensors file"),
        ([tmp_path / "no", "--base", base], 2, "import-checkpoint: the release: "),
        ([release, "--base", backbones["qwen2_5_vl"]], 3, "as --base the checkpoint that it was trained from"),
    ]:
        done = run("import-checkpoint", *words, "--out", out)
        assert (done.exit_code, len(done.stderr.splitlines())) == (code, 1), done.output
        assert message in done.stderr
    (tmp_path / "mine.txt").write_text("kept")
    done = run("import-checkpoint", release, "--base", base, "--out", tmp_path)
    assert "is there already and holds files" in done.stderr
    done = run("export", "--config", "configs/demo.yaml", "--set", "adapter.path=null", "--out", out)
    assert (done.exit_code, "random weights are not exported" in done.stderr) == (2, True)
    assert not out.exists()
