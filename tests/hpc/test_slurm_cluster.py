"""Worker jobs of SLURM, as far as no SLURM is needed: their script, addresses, encryption, and how a worker ends."""

import asyncio
import importlib.util
import json
import os
import stat
import subprocess
import sys
import time

import pytest

if importlib.util.find_spec("dask_jobqueue") is None:  # not by an import, which would take over Ctrl-C
    pytest.skip("worker jobs need dask-jobqueue (extra cluster)", allow_module_level=True)
pytest.importorskip("cryptography", reason="TLS needs cryptography (extra cluster)")

from distributed import Client, LocalCluster, Scheduler
from motorsweep.errors import ConfigError, MissingPackageError, MotorsweepError
from motorsweep.hpc import slurm_cluster
from motorsweep.hpc.executors import ExecutorConfig, open_executor
from motorsweep.hpc.slurm_config import SimulateConfig, SlurmConfig
from motorsweep.hpc.slurm_worker import PatientWorker, node_address, worker_arguments
from motorsweep.hpc.tls import is_encrypted, temporary_security
from motorsweep.hpc.worker_jobs import WorkerJobs, _words_of, last_lines, slurm_classes
from motorsweep.zarr_store.study import Study

ODD = 'a study\'s $(touch gone); "quoted"'


def _job(tmp_path, slurm, threads=1, folder="study"):
    study = Study(tmp_path / folder)
    config = ExecutorConfig(kind="slurm", threads=threads)
    settings = slurm_cluster._job_settings(config, slurm, "quick-simulate-worker", study.scratch / "dask-1")
    job_class, _ = slurm_classes()
    return job_class("tcp://10.0.0.1:4000", "quick-simulate-worker-3", study=study, verb="simulate", **settings)


def _directives(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


# ---- the script ------------------------------------------------------------------------------------------------------


def test_the_script_asks_for_what_the_study_says(tmp_path):
    slurm = SlurmConfig(
        partition="long",
        account="lab",
        qos="night",
        constraint="a&b",
        extra=("--mail-type=FAIL",),
        modules=("gcc/12",),
        prologue=("ulimit -n 4096",),
        interface="ib0",
        simulate=SimulateConfig(processes=2, cpus=8, memory_gb=31.5, walltime="4:00:00"),
    )
    script = _job(tmp_path, slurm, threads=4).job_script()
    assert _directives(script) == [
        "-J quick-simulate-worker",
        "-p long",
        "-A lab",
        "-n 1",
        "--cpus-per-task=8",
        "--mem=32256M",
        "-t 4:00:00",
        "--qos=night",
        '--constraint="a&b"',
        "--open-mode=append",
        "--mail-type=FAIL",
        "--no-requeue",
    ]
    lines = script.splitlines()
    assert lines.index("module load gcc/12") < lines.index("ulimit -n 4096") < len(lines) - 1
    assert "export OMP_NUM_THREADS=4 OPENBLAS_NUM_THREADS=4 MKL_NUM_THREADS=4" in lines
    assert lines[-1].startswith(f"exec {sys.executable} -m motorsweep.hpc.slurm_worker tcp://10.0.0.1:4000")
    for words in (
        "--name quick-simulate-worker-3 ",
        "--nworkers 2 ",
        "--nthreads 1 ",
        "--memory-limit 14.67GiB ",
        "--interface ib0",
        "--lifetime 10800s --lifetime-stagger 720s --no-lifetime-restart",
    ):
        assert words in lines[-1]


def test_the_partition_of_the_workers_goes_before_that_of_all_jobs(tmp_path):
    slurm = SlurmConfig(partition="long", simulate=SimulateConfig(partition="many"))
    assert "-p many" in _directives(_job(tmp_path, slurm).job_script())


@pytest.mark.parametrize("walltime", ["0:02:00", "4:00:00", "7-00:00:00"])
def test_workers_end_well_before_their_walltime_and_not_at_once(tmp_path, walltime):
    slurm = SlurmConfig(simulate=SimulateConfig(walltime=walltime))
    words = _job(tmp_path, slurm).job_script().split()
    seconds = [float(words[words.index(name) + 1].rstrip("s")) for name in ("--lifetime", "--lifetime-stagger")]
    total = slurm_cluster.walltime_seconds(walltime)
    assert total / 2 < seconds[0] - seconds[1] and seconds[0] + seconds[1] <= 0.8 * total + 1
    assert 0 < seconds[1] <= 900


def test_odd_paths_come_through_the_shell_as_they_are(tmp_path):
    folder = tmp_path / f"{ODD}\nand a line"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    slurm = SlurmConfig(simulate=SimulateConfig())
    job = _job(tmp_path, slurm, folder=folder.name)
    script = job.job_script().replace(f"exec {sys.executable}", f"exec {_quoted(python)}")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    words = json.loads(done.stdout)
    assert words[:2] == ["-m", "motorsweep.hpc.slurm_worker"]
    assert words[words.index("--local-directory") + 1] == str(folder / "scratch" / "dask-1")
    assert not (tmp_path / "gone").exists()


def _quoted(path):
    return "'" + str(path).replace("'", "'\"'\"'") + "'"


def test_the_worker_listens_at_one_address_only():
    words = worker_arguments(["tcp://127.0.0.1:1", "--interface", "lo"])
    assert words[3:7] == ["--dashboard-address", "127.0.0.1:0", "--no-dashboard", "--worker-class"]
    words = worker_arguments(["tcp://127.0.0.1:1"])
    assert words[1:5] == ["--host", node_address(), "--dashboard-address", f"{node_address()}:0"]
    with pytest.raises(ConfigError, match=r'interface is "nowhere0", but on '):
        node_address("nowhere0")


# ---- what is wanted, and what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "at_most", "jobs"), [(0, None, 10), (0, 5, 3), (7, None, 4), (7, 1, 1), (100, 100, 10)]
)
def test_jobs_are_no_more_than_asked_for_and_of_use(workers, at_most, jobs):
    config, simulate = ExecutorConfig(kind="slurm", workers=workers), SimulateConfig(jobs=10, processes=2, cpus=2)
    assert slurm_cluster._wanted_jobs(config, simulate, at_most) == jobs


def _open(tmp_path, slurm, **config):
    return open_executor(ExecutorConfig(kind="slurm", **config), slurm=slurm, study=Study(tmp_path), verb="simulate")


def test_threads_need_cpus(tmp_path):
    slurm = SlurmConfig(simulate=SimulateConfig(processes=2, cpus=3))
    with pytest.raises(ConfigError, match=r"cpus is 3, but 2 workers of 2 threads \(\[executor\] threads\) need 4"):
        _open(tmp_path, slurm, threads=2).__enter__()


def test_without_slurm_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match=r'there is no sbatch here; without SLURM take kind = "local"'):
        _open(tmp_path, SlurmConfig()).__enter__()


def test_too_little_memory_is_told(capsys):
    slurm_cluster._warn_of_memory(SimulateConfig(memory_gb=16.0, processes=4, cpus=4), 6.5, "simulate")
    assert capsys.readouterr().err.startswith("simulate  a worker may need 6.5 GB and has 4.0: raise memory_gb")
    slurm_cluster._warn_of_memory(SimulateConfig(memory_gb=16.0), 15.9, "simulate")
    assert capsys.readouterr().err == ""


def test_what_sbatch_said_is_found():
    text = (
        "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nsbatch /scratch/x.sh\nstdout:\n\nstderr:\n"
        "sbatch: error: invalid partition specified: lng\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n\n"
    )
    assert _words_of(text) == "Batch job submission failed: Invalid partition name specified"
    assert _words_of("Could not parse\njob id") == "Could not parse job id"


def test_the_end_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_lines(log) == "(there is no such file)"
    log.write_text("")
    assert last_lines(log) == "(it is empty)"
    log.write_text("\n".join(map(str, range(100_000))))
    assert last_lines(log, 2) == "99998\n99999"


class _Refused:
    """As `WorkerJobs` with what it needs to judge."""

    jobs, verb = 4, "simulate"
    _judge, _say = WorkerJobs._judge, WorkerJobs._say

    def __init__(self):
        self._told = set()


def test_a_refusal_stops_only_where_nothing_is_left_to_wait_for(capsys):
    with pytest.raises(MotorsweepError, match=r"4 worker jobs: it refuses them \(Invalid account\)"):
        _Refused()._judge({"Invalid account"}, 0)
    for words, others in (({"QOSMaxSubmitJobPerUserLimit"}, 2), ({"Unable to contact slurm controller"}, 0)):
        _Refused()._judge(words, others)
    assert capsys.readouterr().err.count("is asked again later") == 2


def test_ctrl_c_stays_the_programs_own():
    line = (
        "import signal; from motorsweep.hpc.worker_jobs import slurm_classes; slurm_classes(); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", line], check=True)


# ---- encryption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tls", "address", "on"),
    [("auto", "127.0.0.1", False), ("auto", "::1", False), ("auto", "10.0.0.1", True), ("on", "127.0.0.1", True),
     ("off", "10.0.0.1", False)],
)  # fmt: skip
def test_encryption_is_on_beyond_the_loopback(tls, address, on):
    assert is_encrypted(tls, address) is on


def test_only_who_has_the_certificate_is_let_in(tmp_path):
    with temporary_security(tmp_path / "scratch") as security, temporary_security(tmp_path / "other") as other:
        (folder,) = (tmp_path / "scratch").iterdir()
        files = sorted(folder.iterdir())
        assert [file.name for file in files] == ["certificate.pem", "key.pem"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert "PRIVATE KEY" in files[1].read_text()
        assert "PRIVATE" not in repr({name: getattr(security, name) for name in security.__slots__})

        async def clients():
            scheduler = Scheduler(host="127.0.0.1", security=security, dashboard=False, dashboard_address="127.0.0.1:0")
            async with scheduler:
                assert scheduler.address.startswith("tls://")
                async with Client(scheduler.address, security=security, asynchronous=True) as client:
                    assert (await client.scheduler.identity())["type"] == "Scheduler"
                plain = scheduler.address.replace("tls://", "tcp://")
                for address, known in ((plain, None), (scheduler.address, other)):
                    with pytest.raises(OSError):
                        await Client(address, security=known, asynchronous=True, timeout=2)
                assert len(scheduler.clients) <= 1  # its own first one, if it is not yet forgotten

        asyncio.run(clients())
    assert not list((tmp_path / "scratch").iterdir())


# ---- the end of a worker ---------------------------------------------------------------------------------------------


def _slow(folder):
    with open(os.path.join(folder, "runs"), "a") as file:
        file.write("run\n")
    time.sleep(2.0)
    return "done"


def test_a_worker_ends_between_two_tasks(tmp_path):
    with (
        LocalCluster(
            n_workers=1,
            processes=False,
            threads_per_worker=1,
            worker_class=PatientWorker,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            lifetime="1s",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        futures = [client.submit(_slow, str(tmp_path), key=f"slow-{k}") for k in range(2)]
        assert futures[0].result(timeout=20) == "done"
        del futures[0]
        end = time.monotonic() + 20
        while cluster.scheduler.workers and time.monotonic() < end:
            time.sleep(0.1)
        assert not cluster.scheduler.workers  # it has ended
        assert (tmp_path / "runs").read_text() == "run\n"  # and neither given up the first nor begun the second
        assert futures[0].status == "pending"
