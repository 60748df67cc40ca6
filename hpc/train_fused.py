"""Many mapper trainings in one task, for a GPU that one small mapper leaves idle."""

import time
from dataclasses import dataclass

from ..learn.accelerator import accelerator_of
from ..learn.fused_mappers import Member, fit_fused_mappers, fused_pays
from ..zarr_store.runs import write_failure
from ..zarr_store.study import Study
from .records import record_of
from .train import TrainTask, finish_run, prepare_run, train_run

LARGEST_GROUP = 30
"""Mappers in one program at most: three repeats of ten folds."""


@dataclass(frozen=True, kw_only=True)
class TrainGroup:
    """Train mappers of one architecture.

    Parameters
    ----------
    tasks : tuple of TrainTask
    """

    tasks: tuple[TrainTask, ...]

    @property
    def name(self):
        """What messages call it."""
        return f"{len(self.tasks)} mappers, the first {self.tasks[0].name}"

    @property
    def runs(self):
        """The runs that are lost if the task is."""
        return tuple(task.run for task in self.tasks)


def group_mappers(tasks):
    """Tasks with mappers of one architecture put together; the others as they are.

    Parameters
    ----------
    tasks : sequence of TrainTask

    Returns
    -------
    list of TrainTask and TrainGroup

    Examples
    --------
    >>> group_mappers([])
    []
    """
    groups, rest = {}, []
    for task in tasks:
        cell = task.run.cell
        if cell is None:
            rest.append(task)
        else:
            groups.setdefault((cell.depth, cell.connection, cell.activation, task.run.trials), []).append(task)
    parts = [
        group[start : start + LARGEST_GROUP]
        for group in groups.values()
        for start in range(0, len(group), LARGEST_GROUP)
    ]
    return [TrainGroup(tasks=tuple(part)) if len(part) > 1 else part[0] for part in parts] + rest


def train_any(task, pays=fused_pays):
    """Train what the task says; a group as one program where a timed probe says that this is faster.

    Parameters
    ----------
    task : TrainTask or TrainGroup
    pays : callable
        Whether members on an accelerator are trained together: `fused_pays`.

    Returns
    -------
    float
        NRMSE of the (last) run on the trials it was evaluated on.
    """
    if not isinstance(task, TrainGroup):
        return train_run(task)
    first = task.tasks[0]
    accelerator, score = accelerator_of(first.device, deterministic=first.deterministic), float("nan")
    by_size = {}  # folds differ by a trial
    for each in task.tasks:
        prepared = prepare_run(each)
        by_size.setdefault((len(prepared.train), prepared.goal.targets.shape[1]), []).append((each, prepared))
    for pairs in by_size.values():
        members = [_member(each, prepared) for each, prepared in pairs]
        if len(members) > 1 and pays(members, accelerator):
            score = _train_together(pairs, members, accelerator)
        else:
            score = [train_run(each) for each, _ in pairs][-1]
    return score


def _member(task, prepared):
    build, codes, targets, train, config = prepared.mapper
    return Member(build=build, codes=codes, targets=targets, train=train, config=config, seed=task.split.seed)


def _train_together(pairs, members, accelerator):
    began, score = time.time(), float("nan")
    for (task, prepared), fitted in zip(pairs, fit_fused_mappers(members, accelerator)):
        if fitted.error is None:
            score = finish_run(task, prepared.finish(fitted.module, fitted.loss), began, accelerator)
        else:
            record = record_of(task.run, began, reason=f"diverged: {fitted.error}")
            write_failure(Study(task.study), task.run.id, record)
    return score
