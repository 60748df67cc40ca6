"""Many mapper trainings in one task, for a GPU that one small mapper leaves idle."""

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass

from ..learn.accelerator import accelerator_of
from ..learn.fused_mappers import Member, fit_fused_mappers, fused_pays
from ..zarr_store.runs import write_failure
from ..zarr_store.study import Study
from .outcomes import classify
from .records import record_of
from .train import TrainTask, finish_run, prepare_run, train_prepared, train_run

log = logging.getLogger(__name__)

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

    @property
    def size(self):
        """Trainings, for the progress bar."""
        return len(self.tasks)


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

    A member that fails has a record that says why, and the others go on.

    Parameters
    ----------
    task : TrainTask or TrainGroup
    pays : callable
        Whether members on an accelerator are trained together: `fused_pays`.

    Returns
    -------
    float
        NRMSE of the (last) run on the trials it was evaluated on; NaN where none of a group was trained.
    """
    if not isinstance(task, TrainGroup):
        return train_run(task)
    first = task.tasks[0]
    accelerator = accelerator_of(first.device, deterministic=first.deterministic)
    alike, score = {}, float("nan")
    for each in task.tasks:
        with _recorded(each):
            prepared = prepare_run(each)
            alike.setdefault(_shape(prepared), []).append((each, prepared))
    for pairs in alike.values():
        score = _train_alike(pairs, accelerator, pays, score)
    return score


def _shape(prepared):
    """What members of one program share: folds differ by a trial, and synergies may differ in number."""
    goal = prepared.goal
    return len(prepared.train), goal.targets.shape[1], None if goal.basis is None else goal.basis.shape[1]


def _train_alike(pairs, accelerator, pays, score):
    members = [_member(each, prepared) for each, prepared in pairs]
    try:
        if len(members) > 1 and pays(members, accelerator):
            return _train_together(pairs, members, accelerator)
    except RuntimeError as error:  # torch's: most likely the device's memory
        log.warning("%d mappers in one program: %s; they are trained one by one", len(members), error)
    for each, prepared in pairs:
        with _recorded(each):
            score = train_prepared(each, prepared, time.time())
    return score


@contextmanager
def _recorded(task):
    """Write the failure of one member; what must stop the whole run does."""
    began = time.time()
    try:
        yield
    except Exception as error:
        kind = classify(error)
        if not kind:
            raise
        record = record_of(task.run, began, reason=f"{kind}: {error}")
        write_failure(Study(task.study), task.run.id, record)


def _member(task, prepared):
    build, codes, targets, train, config = prepared.mapper
    seed = task.run.spec["training_seed"]
    return Member(build=build, codes=codes, targets=targets, train=train, config=config, seed=seed)


def _train_together(pairs, members, accelerator):
    began, score = time.time(), float("nan")
    for (task, prepared), fitted in zip(pairs, fit_fused_mappers(members, accelerator)):
        if fitted.error is None:
            score = finish_run(
                task, prepared.finish(fitted.module, fitted.loss), began, accelerator, fused=len(members)
            )
        else:
            record = record_of(task.run, began, reason=f"diverged: {fitted.error}")
            write_failure(Study(task.study), task.run.id, record)
    return score
