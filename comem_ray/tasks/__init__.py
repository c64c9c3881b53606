"""One module per task: an evaluation set with its published files, the words to ask with, and its official rule.

A module `comem_ray/tasks/<name>.py` ("-" written "_") holds one object, `TASK`. The names are `TaskName` of
comem_ray/config/evaluation.py. To add a task, write its module and add its name there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, get_args

from comem_ray.config.evaluation import TaskName

if TYPE_CHECKING:
    from comem_ray.tasks.task import Task

TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


def load_task(name: str) -> Task:
    """The task called `name`. Raises ValueError where there is none."""
    if name not in TASK_NAMES:
        raise ValueError(f"there is no task {name!r}, want one of {', '.join(TASK_NAMES)}")
    task: Task = import_module(f"comem_ray.tasks.{name.replace('-', '_')}").TASK
    return task
