"""Which knowledge items are about an entity: those whose page is its page in the English Wikipedia, or in Wikidata.

An item names its page by `page_url`; one without is about no known entity. Items of other languages
have their pages in other Wikipedias, which name no entity. Reads two columns of the item shards; knows no task.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from comem_ray.artifacts import load_manifest
from comem_ray.knowledge.items import STAGE, item_shards

HOSTS = ("en.wikipedia.org", "en.m.wikipedia.org", "www.wikidata.org", "wikidata.org")


def items_of(folder: Path, entities: Iterable[str]) -> dict[str, list[str]]:
    """item_ids by entity, in the order of the shards of the finished items/ stage in `folder`.

    An entity is a Wikidata id ("Q90") or a title of the English Wikipedia ("Paris"); one without items is left out.
    """
    wanted = {entity: _plain(entity) for entity in entities}
    pages, items = set(wanted.values()), dict[str, list[str]]()
    for shard in item_shards(load_manifest(folder, STAGE)).values() if wanted else ():
        table = pq.read_table(folder / shard.name, columns=["item_id", "page_url"])
        for item_id, url in zip(table["item_id"].to_pylist(), table["page_url"].to_pylist(), strict=True):
            if url and (page := page_entity(url)) in pages:
                items.setdefault(str(page), []).append(item_id)
    return {entity: items[page] for entity, page in wanted.items() if page in items}


def page_entity(url: str) -> str | None:
    """The title or Wikidata id at the end of a page's address, as `items_of` compares it; None for another address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.hostname not in HOSTS or not parts.path.startswith("/wiki/"):
        return None
    return _plain(unquote(parts.path.removeprefix("/wiki/")))


def _plain(title: str) -> str:
    """Wikipedia's titles begin with a capital whatever is written, and underscores are spaces."""
    plain = " ".join(title.replace("_", " ").split())
    return plain[:1].upper() + plain[1:]
