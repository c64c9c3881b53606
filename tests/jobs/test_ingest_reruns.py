"""jobs.ingest run again: a rerun costs what is new, and ends as a run from nothing would.

Without Ray, as a run on Ray takes ten seconds; test_ingest_kills.py has reruns on it.
"""

import re
from collections.abc import Iterator

import pytest
from support.in_process import run_in_process
from support.ingesting import configuration, line, rows_of, stored, tsv
from support.tiny import png
from support.website import Site, running

from jobs import ingest


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_process(monkeypatch)


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as site:
        yield site


def test_a_rerun_tries_again_only_what_failed(in_process, site, tmp_path):
    good, shaky = [f"/good{n}.png" for n in range(20)], [f"/shaky{n}.png" for n in range(3)]
    site.files = {path: png(n) for n, path in enumerate([*good, *shaky])}
    site.down = set(shaky)
    rows = [line(f"T{n}", site.url(path)) for n, path in enumerate(good)]
    rows[4:4] = [line(f"S{n}", site.url(path)) for n, path in enumerate(shaky)]
    rows += [line("Gone", site.url("/missing"))]
    (tmp_path / "wit.tsv").write_bytes(tsv(*rows))
    sources = [{"path": str(tmp_path / "wit.tsv")}]
    config = configuration(tmp_path, sources)

    offline = ingest.run(configuration(tmp_path, sources, fetch={"enabled": False}))
    assert (offline["items"], offline["retryable"], site.counts.total()) == (0, 24, 0)
    offline = ingest.run(configuration(tmp_path, sources, fetch={"enabled": False}))
    assert offline["shards made now"] == 0

    first = ingest.run(config)
    assert (first["items"], first["retryable"], first["shards made now"]) == (20, 3, 4)
    before = stored(config)
    ingest.run(config.model_copy(update={"ingest": config.ingest.model_copy(update={"retry_failed": False})}))
    assert stored(config) == before

    site.down = set()
    second = ingest.run(config)
    assert (second["items"], second["rejected"], second["retryable"], second["shards made now"]) == (23, 1, 0, 1)
    assert all(site.counts[path] == 1 for path in [*good, "/missing"])
    assert all(site.counts[path] == 2 for path in shaky)
    after = stored(config)
    changed = {re.sub(r"\.[0-9a-f]{12}", "", name) for name in after if after[name] != before.get(name)}
    unit = "wit-000000"
    assert changed == {f"{unit}.parquet", f"rejected/{unit}.parquet", f"records/{unit}.json", "manifest.json"}
    assert len(after) == len(before)

    third = ingest.run(config)
    assert (third["shards made now"], stored(config)) == (0, after)
    from_nothing = configuration(tmp_path, sources, root="from-nothing")
    ingest.run(from_nothing)
    assert stored(from_nothing) == after


def test_rows_and_files_in_front_cost_their_own_images(in_process, site, tmp_path):
    """A row at the top, a source that sorts before the others, another size of shards: nothing is fetched again."""
    site.files = {f"/{n}.png": png(n) for n in range(60)}
    old, top, front = (
        [line(f"T{n}", site.url(f"/{n}.png")) for n in numbers] for numbers in (range(40), [40], [41, 42])
    )
    (tmp_path / "m.tsv").write_bytes(tsv(*old))
    sources = [{"path": str(tmp_path / "*.tsv")}]
    ingest.run(configuration(tmp_path, sources))
    assert site.counts.total() == 40

    (tmp_path / "a.tsv").write_bytes(tsv(*front))
    summary = ingest.run(configuration(tmp_path, sources))
    assert site.counts.total() == 42
    assert (summary["items"], summary["shards made now"], summary["rows taken as unchanged"]) == (42, 1, 40)

    (tmp_path / "m.tsv").write_bytes(tsv(*top, *old))
    summary = ingest.run(configuration(tmp_path, sources))
    assert site.counts.total() == 43
    assert (summary["items"], summary["shards made now"], summary["rows taken as unchanged"]) == (43, 6, 42)
    config = configuration(tmp_path, sources, rows_per_shard=11)
    summary = ingest.run(config)
    assert site.counts.total() == 43
    assert (summary["items"], summary["rows taken as unchanged"]) == (43, 43)
    from_nothing = configuration(tmp_path, sources, root="from-nothing", rows_per_shard=11)
    ingest.run(from_nothing)
    assert stored(from_nothing) == stored(config)


def test_an_image_replaced_under_its_path_is_named_in_the_summary_and_read_on_request(in_process, tmp_path):
    rows = [line(f"T{n}", f"{n}.png") for n in range(10)]
    (tmp_path / "wit.tsv").write_bytes(tsv(*rows))
    for n in range(10):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    config = configuration(tmp_path, [{"path": str(tmp_path / "wit.tsv")}])
    ingest.run(config)
    (tmp_path / "3.png").write_bytes(png(33))
    summary = ingest.run(config)
    assert summary["rows taken as unchanged"] == 10
    assert "ingest.recheck=true" in str(summary["unchanged means"])
    assert rows_of(config)[0][3]["image"] == png(3)
    summary = ingest.run(config.model_copy(update={"ingest": config.ingest.model_copy(update={"recheck": True})}))
    assert summary["rows taken as unchanged"] == 0
    assert [item["image"] for item in rows_of(config)[0]] == [png(33 if n == 3 else n) for n in range(10)]


def test_a_longer_file_costs_its_new_rows(in_process, tmp_path):
    (tmp_path / "good.png").write_bytes(png(0))
    rows = [line(f"T{n}", "good.png") for n in range(30)]
    path = tmp_path / "wit.tsv"
    path.write_bytes(tsv(*rows[:20]))
    config = configuration(tmp_path, [{"path": str(path)}])
    assert ingest.run(config)["shards made now"] == 3
    path.write_bytes(tsv(*rows))
    assert ingest.run(config)["shards made now"] == 3  # the last one of then, and two more
    assert [item["title"] for item in rows_of(config)[0]] == [f"T{n}" for n in range(30)]
    path.write_bytes(tsv(*rows[:8]))
    assert ingest.run(config)["shards"] == 2
    assert len([name for name in stored(config) if name.endswith(".parquet")]) == 4
