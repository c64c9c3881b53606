"""One Ray cluster for the tests of all jobs; each of them would take longer to start one than to run."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import ray
from support.job_process import Cluster, Job


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def cluster(ray_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with the tests' own process as one of its drivers."""
    ray.init(ray_cluster.address, log_to_driver=False)
    yield ray_cluster
    ray.shutdown()


@pytest.fixture(scope="session")
def start_job(ray_cluster: Cluster) -> Callable[..., Job]:
    """A function (module, configuration file, further arguments) -> the job, running."""
    return partial(Job, ray_cluster)
