"""A pose that kills its process costs that pose: real workers die here, by os._exit and by SIGKILL."""

import os
import signal
import sys
from dataclasses import dataclass, replace

import cloudpickle
import numpy as np
import pytest
from motorsweep.errors import MotorsweepError
from motorsweep.hpc import dask_executor
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.simulate import solve_shard
from motorsweep.jobs import simulation
from motorsweep.jobs.config import load_study_config
from motorsweep.jobs.options import RunOptions
from motorsweep.jobs.stages import Coordinator
from motorsweep.sim.sphere_mesh import layered_sphere
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.volumes import open_volumes

pytestmark = pytest.mark.slow

# Workers cannot import a test file by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True, kw_only=True)
class Block:
    """Numbers that are worked on together; those that are deadly end the process, and so may too many at once."""

    numbers: tuple
    deadly: tuple = ()
    most: int = 100
    probe: bool = False
    killers: tuple = ()
    folder: str = ""

    @property
    def name(self):
        return f"numbers {self.numbers[0]}..{self.numbers[-1]}"

    def pieces(self):
        return {number: replace(self, numbers=(number,), probe=True) for number in self.numbers}

    def without(self, killers):
        left = tuple(number for number in self.numbers if number not in killers)
        return replace(self, numbers=left, killers=tuple(sorted(killers.items())), most=self.most if killers else 100)


def _work(block):
    if set(block.numbers) & set(block.deadly) or len(block.numbers) > block.most:
        os._exit(9)
    if not block.probe:
        with open(os.path.join(block.folder, block.name), "a") as file:
            file.write("written\n")
    return block.numbers, block.killers


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with open_executor(ExecutorConfig(workers=2), scratch=tmp_path_factory.mktemp("local"), announce=False) as executor:
        yield executor


def test_the_piece_that_kills_is_found_and_the_rest_is_done_once(local, tmp_path):
    blocks = [Block(numbers=(k, k + 1, k + 2), deadly=(4,), folder=str(tmp_path)) for k in (0, 3, 6)]
    ended = list(local.run(_work, blocks))
    outcomes = dict(ended)
    assert len(ended) == 3 and ended[-1][0] == blocks[1] and all(outcome.ok for outcome in outcomes.values())
    numbers, ((number, reason),) = outcomes[blocks[1]].value
    assert (numbers, number) == ((3, 5), 4)
    assert reason.startswith("crashed: numbers 4..4: the worker died again") and "exited with status 9" in reason
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == dict.fromkeys(["numbers 0..2", "numbers 3..5", "numbers 6..8"], "written\n")


def test_where_only_the_block_kills_its_pieces_are_done_one_by_one(local, tmp_path):
    block = Block(numbers=(1, 2, 3), most=2, folder=str(tmp_path))
    ((task, outcome),) = local.run(_work, [block])
    assert task is block and outcome.value == ((1, 2, 3), ())


def test_a_block_of_which_every_piece_kills_fails_as_a_whole(local, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "HOPELESS_PIECES", 2)
    block = Block(numbers=tuple(range(20)), deadly=tuple(range(20)), folder=str(tmp_path))
    ((task, outcome),) = local.run(_work, [block])
    assert (task, outcome.reason, outcome.value) == (block, "crashed", None)
    assert outcome.message.startswith("numbers 0..19: the worker died 2 times")
    assert not list(tmp_path.iterdir())


def test_a_run_stops_where_every_task_kills_its_worker(local, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "HOPELESS_TASKS", 0)
    block = Block(numbers=(1,), deadly=(1,), folder=str(tmp_path))
    with pytest.raises(MotorsweepError, match=r"every task kills its worker. numbers 1..1: the worker died 2 times"):
        list(local.run(_work, [block]))


# ---- the real solve -------------------------------------------------------------------------------------------------

STUDY = """name = "poisoned"
[head]
source = "head.msh"
hand_knob_mm = [0.0, 0.0, 75.0]
[poses]
grid = 3
random = 0
[volume]
n = 32
spacing_mm = 2.0
[solver]
kind = "direct"
poses_per_shard = 5
[stimulation]
intensities_percent_rmt = [110, 140]
trials = [14, 12]
[executor]
workers = 1
"""
DEADLY = 7


def _solve_but_die_of_one(task):
    """Solve a shard, in a process that the solve of one pose of the study kills."""
    from motorsweep.hpc import simulate

    solve = simulate._solve_into

    def deadly(rows, where, solver, grid, poses):
        if DEADLY - rows.start in list(where):
            os.kill(os.getpid(), signal.SIGKILL)
        solve(rows, where, solver, grid, poses)

    simulate._solve_into = deadly
    try:
        return solve_shard(task)
    finally:
        simulate._solve_into = solve


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layered_sphere(1).save_msh(tmp_path / "head.msh")
    (tmp_path / "study.toml").write_text(STUDY)
    return load_study_config(tmp_path / "study.toml")


def _simulate(config, **options):
    with Coordinator(config, RunOptions(quiet=True, **options)) as coordinator:
        return coordinator.study, coordinator.simulate()


def test_one_pose_fails_with_its_reason_and_its_neighbours_have_their_fields(study, monkeypatch):
    monkeypatch.setattr(simulation, "solve_shard", _solve_but_die_of_one)
    folder, told = _simulate(study)
    assert (told.done, told.failed) == (8, 1)
    volumes = open_volumes(folder)
    status, reason = volumes["status"].values, volumes["reason"].values
    assert np.flatnonzero(status == int(Status.FAILED)).tolist() == [DEADLY]
    assert reason[DEADLY].startswith(f"crashed: pose {DEADLY}: the worker died again")
    assert "killed by signal 9" in reason[DEADLY]
    found = volumes["e_norm"].values
    assert np.isnan(found[DEADLY]).all()

    # where the pose is none that kills, the same command with --retry-failed leaves nothing
    monkeypatch.undo()
    _, told = _simulate(study, retry_failed=True, executor="serial")
    assert (told.done, told.failed) == (1, 0)
    again = open_volumes(folder)["e_norm"].values
    others = np.arange(9) != DEADLY
    np.testing.assert_allclose(found[others], again[others], rtol=1e-6, atol=1e-9)
