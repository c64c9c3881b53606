"""Images of a request by URL: from the hosts of `api.fetch_hosts` alone, over https, never into a private network.

`comem_ray.knowledge.fetch` connects to the address it checked and holds redirects to the same hosts. Here are the
limits of a request: seconds over all, bytes, and images fetched at once.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from comem_ray.config import ApiConfig, FetchConfig
from comem_ray.knowledge.fetch import Fetcher
from comem_ray.knowledge.fetch_answers import FetchError
from comem_ray.knowledge.images import ImageError, check_header
from serve.http.errors import ApiError, overloaded

THREADS = 8
MAX_WAITING = 64  # images that wait for a thread; with more than that the hosts are too slow
_threads = ThreadPoolExecutor(THREADS, "fetch")
_SENTENCES = {
    "fetch_private": "its host is at a private or reserved address",
    "fetch_host": "its host is not one of api.fetch_hosts (redirects count too)",
    "fetch_scheme": "want https",
}


async def remote_image(url: str, config: ApiConfig, field: str = "image", fetcher: Fetcher | None = None) -> bytes:
    """The encoded image at `url`, of a known format and size by its header. `fetcher`: another than the public one.

    Raises ApiError: 422 with the field where it is not fetched, 429 where too many are being fetched.
    """
    if not config.fetch_hosts:
        raise ApiError(422, "invalid_image", f"{field} is not base64: this is a URL, send the image itself", field)
    if _threads._work_queue.qsize() > MAX_WAITING:
        raise overloaded("too many images are being fetched")
    fetcher = fetcher or _fetcher(tuple(config.fetch_hosts), config.body_timeout_s, config.max_body_bytes)
    fetched = asyncio.get_running_loop().run_in_executor(_threads, fetcher.fetch, url)
    try:
        data = await asyncio.wait_for(fetched, config.body_timeout_s)
        check_header(data, config.max_image_pixels)
    except TimeoutError as error:
        raise _refused("fetch_timeout", f"it did not come within {config.body_timeout_s:g} seconds", field) from error
    except FetchError as error:
        raise _refused(error.reason, _SENTENCES.get(error.reason, error.detail), field) from error
    except ImageError as error:
        raise ApiError(422, error.reason, f"the image cannot be used: {error.detail}", field) from error
    return data


@cache
def _fetcher(hosts: tuple[str, ...], timeout_s: float, max_bytes: int) -> Fetcher:
    settings = FetchConfig(timeout_s=timeout_s / 2, retries=0, user_agent="comem-ray (images of a user's request)")
    return Fetcher(settings, max_bytes, hosts)


def _refused(reason: str, why: str, field: str) -> ApiError:
    return ApiError(422, reason, f"the image cannot be fetched: {why}", field)
