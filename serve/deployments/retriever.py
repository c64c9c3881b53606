"""The retriever as a deployment: batches across users in a thread; the event loop stays free to take requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from comem_ray.config import Config
from serve.deployments.model import ModelDeployment, blank_image, device_of_replica, open_or_refuse
from serve.messages import Hits, Refusal, Search
from serve.scheduling.batching import Batcher
from serve.start import in_one_sentence


class RetrieverDeployment(ModelDeployment):
    """An image or text in, item ids and scores out."""

    def __init__(self, config: Config, generations: Mapping[str, str]):
        from comem_ray.retrieval import retriever

        with in_one_sentence():
            self.module, self.model = retriever, retriever.Retriever(config, device_of_replica(), generations["index"])
        self.max_pixels = config.api.max_image_pixels
        self.batcher: Batcher[Search, Hits | Refusal] = Batcher(self._search, config.api.max_batch, self._check)

    async def retrieve(self, search: Search) -> Hits | Refusal:
        reply: Hits | Refusal = await self._reply(search)
        return reply

    def _check(self) -> None:
        self.model.retrieve([self.module.Query(blank_image(), None)], 1)

    def _search(self, searches: list[Search]) -> list[Hits | Refusal]:
        replies: dict[int, Hits | Refusal] = {}
        groups: dict[Any, dict[int, Any]] = defaultdict(dict)  # queries by position, those that one call can do
        for position, s in enumerate(searches):
            image = None if s.image is None or s.by == "text" else open_or_refuse(s.image, self.max_pixels)
            if isinstance(image, Refusal):
                replies[position] = image
            else:
                query = self.module.Query(image, None if s.by == "image" else s.text)
                groups[s.k, s.by, s.language, s.text_weight][position] = query
        for options, queries in groups.items():
            replies |= zip(queries, self._retrieve(list(queries.values()), options), strict=True)
        return [replies[position] for position in range(len(searches))]

    def _retrieve(self, queries: list[Any], options: tuple[Any, ...]) -> list[Hits | Refusal]:
        """Hits of queries with the same options. A query that cannot be answered is refused, the others are answered.

        What else goes wrong is a fault of the service and is raised.
        """
        try:
            results = self.model.retrieve(queries, *options)
        except self.module.QueryError as error:
            if len(queries) == 1:
                return [Refusal("nothing_to_search", str(error), error.field)]
            return [reply for query in queries for reply in self._retrieve([query], options)]
        return [[(hit.item_id, hit.score) for hit in hits] for hits in results]
