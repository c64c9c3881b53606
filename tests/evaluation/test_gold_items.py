"""Which items are about an entity, by the addresses of their pages."""

import pyarrow as pa
import pytest
from support.tiny import item_row

from comem_ray.artifacts import StageFolder, write_parquet
from comem_ray.evaluation.gold_items import items_of, page_entity
from comem_ray.knowledge.schema import ITEM_SCHEMA


@pytest.mark.parametrize(
    ("url", "entity"),
    [
        ("https://en.wikipedia.org/wiki/Aare_Gorge", "Aare Gorge"),
        ("http://en.m.wikipedia.org/wiki/S%C3%A3o_Paulo#History", "São Paulo"),
        ("https://www.wikidata.org/wiki/Q90", "Q90"),
        ("https://en.wikipedia.org/wiki/AC/DC", "AC/DC"),
        ("https://de.wikipedia.org/wiki/Aareschlucht", None),  # its title names nothing in English
        ("https://en.wikipedia.org.example.org/wiki/Paris", None),
        ("https://en.wikipedia.org/w/index.php?title=Paris", None),
        ("https://[broken/wiki/Paris", None),
    ],
)
def test_the_entity_of_a_page(url, entity):
    assert page_entity(url) == entity


def test_items_of_entities(tmp_path):
    urls = ["https://en.wikipedia.org/wiki/Paris", None, "https://www.wikidata.org/wiki/Q90", *["x"] * 2]
    urls += ["https://en.wikipedia.org/wiki/Paris"]
    rows = [{**item_row(i), "page_url": url} for i, url in enumerate(urls)]
    write_parquet(tmp_path / "part-0000-000000.parquet", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    stage = StageFolder(tmp_path, "ingest", {})
    stage.commit("part-0000-000000", "", {"part-0000-000000.parquet": len(rows)}, {})
    stage.close(["part-0000-000000"])
    ids = [row["item_id"] for row in rows]
    assert items_of(tmp_path, ["paris", "Q90", "Rome"]) == {"paris": [ids[0], ids[5]], "Q90": [ids[2]]}
    assert items_of(tmp_path, []) == {}
