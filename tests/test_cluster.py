"""cluster.yaml: Ray accepts it, no port is open to the world, and the token keeps others out of a real head."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import ray.autoscaler
import requests
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

REPOSITORY = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Start:
    """One `ray start` of the file: its environment, and its options as Ray's own parser reads them."""

    environment: dict[str, str]
    options: dict[str, Any]


def start_commands(commands: list[str]) -> list[Start]:
    starts = []
    for command in commands:
        words = shlex.split(command.rpartition(";")[2])
        if "start" in words:
            at = words.index("start")
            assert words[at - 1] == "ray"
            environment = dict(word.split("=", 1) for word in words[: at - 1])
            starts.append(Start(environment, ray_start.make_context("start", words[at + 1 :]).params))
    return starts


@pytest.fixture(scope="module")
def head(cluster: dict[str, Any]) -> Start:
    (only,) = start_commands(cluster["head_start_ray_commands"])
    return only


@pytest.fixture(scope="module")
def worker(cluster: dict[str, Any]) -> Start:
    (only,) = start_commands(cluster["worker_start_ray_commands"])
    return only


def test_the_file_is_valid_against_rays_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)


def test_ray_up_accepts_it_with_the_providers_defaults(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(yaml.safe_load(yaml.safe_dump(cluster)))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_groups_and_their_bounds(cluster: dict[str, Any]) -> None:
    groups = cluster["available_node_types"]
    workers = {name: group for name, group in groups.items() if name != cluster["head_node_type"]}
    assert cluster["head_node_type"] in groups
    assert [name for name, group in workers.items() if group["resources"].get("GPU")] == ["gpu"]
    assert [name for name, group in workers.items() if not group["resources"].get("GPU")] == ["cpu"]
    assert all(0 <= group["min_workers"] < group["max_workers"] for group in workers.values())
    assert sum(group["max_workers"] for group in workers.values()) <= cluster["max_workers"]


def test_every_start_carries_the_token_mode_and_every_node_gets_the_token(
    cluster: dict[str, Any], head: Start, worker: Start
) -> None:
    home = f"/home/{cluster['auth']['ssh_user']}"
    assert head.environment["RAY_AUTH_MODE"] == worker.environment["RAY_AUTH_MODE"] == "token"
    assert cluster["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_MODE=token" in " ".join(cluster["initialization_commands"])


def test_dashboard_and_job_api_listen_on_localhost(head: Start) -> None:
    assert head.options["dashboard_host"] == "127.0.0.1"
    assert head.options["dashboard_port"] == 8265


@pytest.mark.parametrize("path", sorted((REPOSITORY / "serve").glob("*.yaml")), ids=lambda p: p.name)
def test_http_api_listens_on_localhost(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["http_options"]["host"] == "127.0.0.1"


def test_no_port_is_open_to_the_world(cluster: dict[str, Any]) -> None:
    # Ray makes a security group, with SSH from 0.0.0.0/0, for a node type that names none.
    assert all(group["node_config"]["SecurityGroupIds"] for group in cluster["available_node_types"].values())
    assert "security_group" not in cluster["provider"]
    values = json.dumps(cluster)
    assert "0.0.0.0" not in values
    assert "::/0" not in values


def test_no_secret_stands_in_the_file() -> None:
    text = (REPOSITORY / "cluster.yaml").read_text(encoding="utf-8")
    assert not re.search(r"RAY_AUTH_TOKEN\s*=|AKIA[0-9A-Z]{16}|aws_secret|PRIVATE KEY|\b[0-9a-f]{32,}\b", text)
    placeholders = re.findall(r"\b(?:ami|sg|subnet|fs)-[0-9A-Z]\w+", text)
    assert set(placeholders) == {f"{kind}-REPLACE_ME" for kind in ("ami", "sg", "subnet", "fs")}


def test_the_shared_filesystem_is_where_comem_home_points(cluster: dict[str, Any], head: Start, worker: Start) -> None:
    home = head.environment["COMEM_HOME"]
    assert worker.environment["COMEM_HOME"] == home
    (mount,) = [c for c in cluster["initialization_commands"] if "mount -t nfs4" in c]
    assert mount.split()[-1] == home
    assert f"COMEM_HOME={home}" in " ".join(cluster["initialization_commands"])


def test_nodes_install_the_pinned_requirements(cluster: dict[str, Any]) -> None:
    for remote, local in cluster["file_mounts"].items():
        assert local.startswith("~") or (REPOSITORY / local).is_file(), remote
    # Ray replaces both general lists by a group's own, so that a group's own must be complete.
    for commands, extra in (
        (cluster["available_node_types"]["gpu"]["worker_setup_commands"], "gpu"),
        (cluster["setup_commands"], "cpu"),
    ):
        assert "--python 3.11" in commands[0]
        assert commands[1].endswith(f"-r pyproject.toml --extra {extra} -c constraints.txt")


@dataclass(frozen=True)
class Head:
    """A running head node with token authentication."""

    dashboard: str
    token: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, head: Start) -> Iterator[Head]:
    """Starts a head with the token mode and the dashboard host of cluster.yaml, on ports and folders of its own."""
    token, home = secrets.token_hex(32), tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token, encoding="utf-8")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is the one that Ray's head would find
    mode = head.environment["RAY_AUTH_MODE"]
    environment = {**inherited, "HOME": str(home), "PATH": path, "RAY_AUTH_MODE": mode}
    sessions = tempfile.mkdtemp(prefix="ray-")  # short: socket paths have at most 107 characters
    ports = free_ports(4)
    command = [
        str(RAY), "start", "--head", "--block", "--num-cpus=1", f"--temp-dir={sessions}", "--disable-usage-stats",
        "--object-store-memory=100000000", f"--dashboard-host={head.options['dashboard_host']}",
        f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}",
        f"--ray-client-server-port={ports[3]}", "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    with open(home / "head.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        dashboard = f"http://127.0.0.1:{ports[1]}"
        # A job is taken by the dashboard but started by its agent, which comes up some seconds later.
        for url in (f"{dashboard}/api/jobs/", f"http://127.0.0.1:{ports[2]}/api/local_raylet_healthz"):
            wait_for(url, token, process, home / "head.log")
        yield Head(dashboard, token, environment)
    finally:
        end(process)
        shutil.rmtree(sessions, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Free ports below those of outgoing connections: one of Ray's own could take a port before its server does."""
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    pytest.fail(f"no {count} free ports between 20000 and 32000")


def wait_for(url: str, token: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(url, headers=bearer(token), timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    pytest.fail(f"{url} did not come up: {log.read_text(encoding='utf-8')[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the head and everything it started, and nothing else."""
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def job(head: Head, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ray job submit --working-dir .` of this repository, as a user types it."""
    return subprocess.run(
        [str(RAY), "job", "submit", "--address", head.dashboard, "--working-dir", ".", "--", *command],
        cwd=REPOSITORY,
        env={**head.environment, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_job_api_refuses_whoever_has_no_token(running: Head) -> None:
    for path in ("/api/jobs/", "/nodes?view=summary"):
        assert requests.get(running.dashboard + path, timeout=10).status_code == 401
        assert requests.get(running.dashboard + path, headers=bearer("0" * 64), timeout=10).status_code == 403
    refused = requests.post(f"{running.dashboard}/api/jobs/", json={"entrypoint": "true"}, timeout=10)
    assert refused.status_code == 401
    assert requests.get(f"{running.dashboard}/api/jobs/", headers=bearer(running.token), timeout=10).json() == []


def test_only_localhost_reaches_the_dashboard(running: Head) -> None:
    port = int(running.dashboard.rpartition(":")[2])
    bound = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    assert bound == {"127.0.0.1"}


def test_a_job_of_this_repository_runs_with_the_token_and_not_without(running: Head) -> None:
    code = "import comem_ray, jobs.common, serve, ray; ray.init(); print('nodes', len(ray.nodes()), jobs.__file__)"
    accepted = job(running, "python", "-c", code)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    print(accepted.stdout)
    print(accepted.stderr)
    assert re.search(r"nodes 1 \S*_ray_pkg_\w+/jobs/__init__.py", accepted.stdout)
    refused = job(running, "python", "-c", "1", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()


def test_a_job_with_a_wrong_configuration_says_which_field(running: Head) -> None:
    command = ("python", "-m", "jobs.ingest", "--config", "configs/demo.yaml", "--set", "index.factroy=Flat")
    result = job(running, *command)
    assert result.returncode != 0
    assert "field index.factroy: there is no such field" in result.stdout + result.stderr
    assert "exit code 2" in result.stdout + result.stderr
