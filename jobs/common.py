"""What every job shares: its command line, its exit codes, its pool of workers and its summary table.

Exit codes: 0 done; 1 the stage failed (or another run of it is at work, or the disk refuses); 2 the configuration is
wrong; 3 an artifact is missing, damaged or of another make; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
import ray.data

from comem_ray.artifacts import ArtifactError, StorageError, write_json
from comem_ray.artifacts.lock import LockedError, stage_lock
from comem_ray.config import Config, ConfigError, WorkersConfig, load_config
from jobs.console import Progress, quiet
from jobs.refusals import COLUMN, COUNT, raise_refusal, returns_refusals

Summary = dict[str, int | float | str]


class StageFailed(Exception):
    """A stage that gave up for a reason that another try would not change. Exit code 1, and the message."""


def main(
    stage: str,
    run: Callable[..., Summary],
    description: str,
    dry_run: Callable[[Config], str] | None = None,
    lists: Mapping[str, str] | None = None,
    numbers: Mapping[str, str] | None = None,
) -> None:
    """Parses the command line, connects to Ray, runs the stage, prints its summary and exits.

    With `dry_run` there is a flag --dry-run, which prints its text in place of all that. `lists` are flags for fields
    that are lists: {"k": "evaluation.k"} makes `--k 1,3` the same as `--set evaluation.k=[1,3]`. `numbers` are flags
    with a whole number and their help: `run` gets those that are given as keyword arguments.
    """
    parser = argparse.ArgumentParser(prog=f"python -m jobs.{stage}", description=description)
    parser.add_argument("--config", required=True, help="YAML configuration of the run")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides")
    for flag, name in (lists or {}).items():
        parser.add_argument(f"--{flag}", dest=name, metavar="A,B,...", help=f"replaces {name}")
    for flag, text in (numbers or {}).items():
        parser.add_argument(f"--{flag}", type=int, metavar="N", help=text)
    if dry_run is not None:
        parser.add_argument("--dry-run", action="store_true", help="say what it would take, and run nothing")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args.overrides += [f"{f}=[{value}]" for f in (lists or {}).values() if (value := getattr(args, f)) is not None]
    planned = dry_run if getattr(args, "dry_run", False) else None
    given = {flag: value for flag in numbers or {} if (value := getattr(args, flag)) is not None}
    sys.exit(guarded(stage, partial(run, **given), args.config, args.overrides, planned))


def guarded(
    stage: str,
    run: Callable[[Config], Summary],
    path: str,
    overrides: Sequence[str],
    dry_run: Callable[[Config], str] | None = None,
) -> int:
    """Runs a stage (or its dry run) and returns its exit code; what went wrong is one message on standard error."""
    try:
        config = load_config(path, overrides)
        if dry_run is not None:
            print(dry_run(config), flush=True)
            return 0
        quiet()
        # Joins the cluster of RAY_ADDRESS (a submitted job has it), else starts one for the length of the job. The
        # address is explicit: by itself Ray would join any cluster of this machine, and wait for one that died.
        address = os.environ.get("RAY_ADDRESS") or "local"
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
        run_stage(stage, run, config)
    except (StageFailed, LockedError, StorageError) as error:
        return _ended(1, f"{stage}: {error}")
    except ConfigError as error:
        return _ended(2, f"configuration: {error}")
    except ArtifactError as error:
        return _ended(3, f"artifact: {error}")
    except KeyboardInterrupt:
        return _ended(130, f"{stage}: interrupted. Finished units are kept: the same command goes on from there")
    return 0


def _ended(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


def run_stage(stage: str, run: Callable[[Config], Summary], config: Config) -> Summary:
    """Runs one stage under the clock, saves summaries/<stage>.json in the run's folder and prints it as a table.

    Raises LockedError where another process runs the same stage of the same run.
    """
    with stage_lock(config.folder("locks") / stage, f"{stage} in {config.folder('')}"):
        print(f"{stage}: started", flush=True)
        start = time.monotonic()
        summary = run(config)
        summary["seconds"] = round(time.monotonic() - start, 2)
        write_json(config.folder("summaries") / f"{stage}.json", summary)
        print(table(stage, summary), flush=True)
    return summary


def table(stage: str, summary: Summary) -> str:
    """The summary as aligned lines under the stage's name."""
    width = max(len(k) for k in summary)
    return "\n".join([f"== {stage}", *(f"   {k.ljust(width)}  {_number(v)}" for k, v in summary.items())])


def _number(value: int | float | str) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else value


def run_units(
    units: Sequence[dict[str, Any]], worker: type, arguments: tuple[Any, ...], workers: WorkersConfig, name: str
) -> int:
    """Runs `worker(*arguments)` over `units` on an actor pool (Ray Data); each unit is one row and commits itself.

    `worker.__call__` takes a batch of one row and may return a number. A worker that dies is started again and its unit
    is done again. Returns the sum of those numbers. Raises the ConfigError, ArtifactError or StorageError of a worker.
    """
    if not units:
        return 0
    dataset = ray.data.from_items(list(units), override_num_blocks=len(units)).map_batches(
        returns_refusals(worker),
        batch_size=1,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(units))),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    dataset.set_name(name)
    return drain(dataset, Progress(name, len(units)))


def drain(dataset: ray.data.Dataset, progress: Progress) -> int:
    """Runs a dataset to its end. Its rows hold a refusal or none, and maybe a count (`jobs.refusals`): their sum."""
    total = 0
    # One block per unit, none ahead: a unit counts as soon as it is done.
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
        for refusal in batch[COLUMN]:
            raise_refusal(str(refusal))
            progress.advance()
        total += int(sum(batch.get(COUNT, ())))
    return total
