"""A real SLURM of three nodes on this machine, from Debian's packages: munged, slurmctld and one slurmd per node.

Everything is in one folder: key, socket, configuration, spool, logs. Nothing of the system's own is read or changed,
no systemd is needed, and all ports were free when it began, so several of them can live side by side. The daemons stay
children of the process that started them and end with it, even if it is killed.

Everything listens on the loopback alone where the machine's own name leads there; elsewhere SLURM's daemons listen on
all addresses (they offer no choice) and take orders only from who holds the folder's key.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2", "n3")
ENDED = {
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE",
}  # fmt: skip
SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
_LONGEST_FOLDER = 70  # paths of sockets below it must stay under 108 bytes


def missing_programs():
    """Programs of SLURM and munge that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


class SlurmOnThisMachine:
    """Three nodes, n1 to n3, of 2 CPUs and 4 GB each by their own account; partitions ``main`` (default) and ``short``.

    Parameters
    ----------
    folder : path-like
        Holds everything; must exist and be empty.
    cpus, memory_mb : int
        What each node claims to have, whatever the machine has.

    Attributes
    ----------
    environment : dict
        For every command that shall speak with this SLURM: ``SLURM_CONF`` and ``PATH`` in it, no job's variables.

    Examples
    --------
    >>> with SlurmOnThisMachine(folder) as slurm:                                 # doctest: +SKIP
    ...     job = slurm.submit("hostname")
    ...     slurm.wait(job)["JobState"]
    'COMPLETED'
    """

    nodes = NODES

    def __init__(self, folder, cpus=2, memory_mb=4000):
        self.given, self.cpus, self.memory_mb = Path(folder), cpus, memory_mb
        self.daemons, self._rest = {}, ExitStack()

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()

    # ---- start and stop ---------------------------------------------------------------------------------------

    def start(self, attempts=3):
        """Start all daemons and wait until every node is idle; new ports where another process was quicker."""
        for attempt in range(attempts):
            try:
                self._start_once(attempt)
                return self
            except BaseException as error:
                told = self.logs()
                self.stop()
                if not isinstance(error, Exception) or attempt == attempts - 1:
                    raise RuntimeError(f"SLURM did not start: {error}\n{told}") from error

    def _start_once(self, attempt):
        self.folder = self._place(attempt)
        self.conf = self.folder / "slurm.conf"
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.environment = {**kept, "SLURM_CONF": str(self.conf), "PATH": SEARCHED}
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(self._configuration(free_ports(1 + len(NODES))))
        self._start_munge()
        self._start_controller()
        for node in NODES:
            self._start_slurmd(node)
        _until(lambda: set(self.node_states().values()) == {"IDLE"}, 20, "the nodes are idle", self.node_states)

    def _place(self, attempt):
        if len(str(self.given)) <= _LONGEST_FOLDER:
            folder = self.given / str(attempt)
            folder.mkdir(mode=0o755)
            return folder
        return Path(self._rest.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))

    def stop(self):
        """Cancel all jobs, end their processes and the daemons; wait until they are gone."""
        if "slurmctld" in self.daemons and self.daemons["slurmctld"].poll() is None and self._answers():
            self.cancel_all()
        for name in ("slurmctld", *NODES, "munged"):
            self._end(name)
        for pid in self.processes(daemons=True):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._rest.close()

    def _end(self, name, how=signal.SIGTERM):
        daemon = self.daemons.pop(name, None)
        if daemon is None or daemon.poll() is not None:
            return
        daemon.send_signal(how)
        try:
            daemon.wait(5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(5)

    def _daemon(self, name, *command, **variables):
        program = shutil.which(command[0], path=SEARCHED)
        # The signal to a child whose parent is gone: nothing outlives a test session that was killed.
        line = ["setpriv", "--pdeathsig", "SIGTERM", program, *map(str, command[1:])]
        with open(self.folder / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(
                line,
                cwd=self.folder,
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _start_munge(self):
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._daemon(
            "munged", "munged", "--foreground", "--force", f"--socket={folder / 'socket'}", f"--key-file={key}",
            f"--pid-file={folder / 'pid'}", f"--log-file={folder / 'log'}", f"--seed-file={folder / 'seed'}",
            "--num-threads=2",
        )  # fmt: skip
        _until(
            lambda: self._runs("munged") and (folder / "socket").exists(), 10, "munged has its socket", lambda: folder
        )

    def _start_controller(self):
        self._daemon("slurmctld", "slurmctld", "-D", "-f", self.conf)
        _until(lambda: self._runs("slurmctld") and self._answers(), 20, "slurmctld answers", self.logs)

    def _start_slurmd(self, node):
        (self.folder / node).mkdir(exist_ok=True)
        # The variable is inherited by the keepers of its jobs' steps, which is how they are found.
        self._daemon(node, "slurmd", "-D", "-N", node, "-f", self.conf, SLURMD_NODENAME=node)

    def _runs(self, name):
        code = self.daemons[name].poll()
        if code is not None:
            raise RuntimeError(f"{name} ended with {code}")
        return True

    def _answers(self):
        try:
            return "UP" in self.run("scontrol", "ping", check=False, timeout=5).stdout
        except subprocess.TimeoutExpired:
            return False

    def _configuration(self, ports):
        host = socket.gethostname().partition(".")[0]
        address, quiet = _loopback(socket.gethostname())
        user = _user_name()
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs={self.cpus} "
            f"RealMemory={self.memory_mb} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        )
        return _CONF.format(
            host=host, address=address, quiet=quiet, user=user, folder=self.folder, port=ports[0], nodes=nodes,
            listed=",".join(NODES),
        )  # fmt: skip

    # ---- commands and jobs ------------------------------------------------------------------------------------

    def run(self, *command, check=True, timeout=60, **kwargs):
        """Run a command of SLURM, or any other, with this SLURM's environment; gives the completed process."""
        line = [str(word) for word in command]
        kwargs = {"env": self.environment, "capture_output": True, "text": True} | kwargs
        done = subprocess.run(line, timeout=timeout, check=False, **kwargs)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(line)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def submit(self, lines, *options, cwd=None):
        """Submit a script (its text after the first line, or a Path) to sbatch; gives the job's id as text."""
        cwd = cwd or self.folder
        if isinstance(lines, Path):
            done = self.run("sbatch", "--parsable", *options, lines, cwd=cwd)
        else:
            done = self.run("sbatch", "--parsable", *options, input=f"#!/bin/bash\n{lines}\n", cwd=cwd)
        return done.stdout.strip().partition(";")[0]

    def job(self, job):
        """Fields of a job by ``scontrol show job``; of an array the first record (see `records`)."""
        return self.records(job)[0]

    def records(self, job=None):
        """Fields of each record of a job (an array has several), or of all jobs that SLURM still knows."""
        done = self.run("scontrol", "show", "job", "-o", *([job] if job else []), check=job is not None)
        return [_fields(line) for line in done.stdout.splitlines() if line.startswith("JobId=")]

    def state(self, job):
        """SLURM's word for the job's state."""
        return self.job(job)["JobState"]

    def wait(self, job, *states, timeout=60):
        """Wait until the job (all records of an array) is in one of the states, ``COMPLETED`` by default; its fields.

        Fails when a record has ended in another state (and is not queued again at once), or after the time.
        """
        wanted, began, ended = set(states or ["COMPLETED"]), time.monotonic(), None
        while True:
            records, now = self.records(job), time.monotonic()
            found = {record["JobState"] for record in records}
            if found <= wanted:
                return records[0]
            ended = (ended or now) if found & ENDED - wanted else None
            if now - began > timeout or (ended and now - ended > 1.5):
                raise AssertionError(f"job {job} is {found}, not {wanted}: {records}\n{self._tails(records)}")
            time.sleep(0.1)

    def cancel(self, *jobs, options=()):
        """Cancel jobs, or signal them: ``options=["--signal=USR1", "--batch"]``."""
        self.run("scancel", *options, *jobs)

    def cancel_all(self, timeout=30):
        """Cancel every job and wait until nothing of them runs."""
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            self.run("scancel", f"--state={state}", f"--user={_user_name()}", check=False)
        with suppress(AssertionError):
            _until(lambda: not self.active(), timeout, "all jobs are gone", self.active)

    def active(self):
        """Records of the jobs that wait, run or end just now."""
        return [each for each in self.records() if each["JobState"] not in ENDED]

    # ---- faults -----------------------------------------------------------------------------------------------

    def kill_node(self, node, tell=False, timeout=90):
        """Kill a node as a power cut does: its slurmd and every process of its jobs; wait until it counts as down.

        SLURM finds out by itself in half a minute; ``tell`` tells it at once, as a cluster's health check does.
        """
        self._end(node, signal.SIGKILL)
        lost = self.processes(node)
        for pid in sorted(lost, key=lambda pid: "slurmstepd" not in lost[pid]):  # first those who would tell SLURM
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # On a busy machine a killed process is there until it is scheduled once more.
        _until(lambda: not self.processes(node), timeout, f"no process of {node} is left", self.processes)
        if tell:
            self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")
        _until(lambda: self.node_states()[node] == "DOWN", timeout, f"{node} is down", self.node_states)

    def start_node(self, node, timeout=30):
        """Start a node's slurmd again and wait until it takes jobs."""
        self._start_slurmd(node)
        _until(lambda: self.node_states()[node] in ("IDLE", "MIXED", "ALLOCATED"), timeout, f"{node} is up", self.logs)

    def restart_controller(self, down_s=0.0):
        """End slurmctld, leave it down for so many seconds, and start it again; jobs run on."""
        self._end("slurmctld")
        time.sleep(down_s)
        self._start_controller()

    def node_states(self):
        """Each node's state in SLURM's word, without its flags (``*`` for a node that does not answer)."""
        out = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T", check=False).stdout
        return {name: state.upper().rstrip("*~#!%$@+^-") for name, state in map(str.split, out.splitlines())}

    # ---- what is left behind ----------------------------------------------------------------------------------

    def processes(self, node=None, daemons=False):
        """Command lines by pid of what this SLURM's jobs (of one node) run, and of its daemons if asked for."""
        ours = {daemon.pid for daemon in self.daemons.values()} | {os.getpid()}
        mark, name, found = f"SLURM_CONF={self.conf}", "SLURMD_NODENAME=", {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environ = (place / "environ").read_bytes().decode(errors="replace").split("\0")
                on = next((text.removeprefix(name) for text in environ if text.startswith(name)), None)
                if mark in environ and (on or daemons) and node in (None, on) and int(place.name) not in ours:
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def assert_nothing_left(self, timeout=30):
        """No job waits or runs, and no process of a job is left; told with what there is."""
        _until(lambda: not self.active(), timeout, "no job is left", self.active)
        _until(lambda: not self.processes(), timeout, "no process of a job is left", self.processes)

    def logs(self, lines=30):
        """Return the last lines of all daemons' logs."""
        told = []
        for path in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            told += [f"--- {path.name}", *tail]
        return "\n".join(told)

    def _tails(self, records, lines=40):
        told = []
        for path in {record.get("StdOut", "") for record in records}:
            with suppress(OSError):
                told += [f"--- {path}", *Path(path).read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(told)


def free_ports(count):
    """Ports of the loopback that were free a moment ago, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _loopback(name):
    """Address for the daemons and the words that bind them to it; SLURM can bind only to where the name leads."""
    with suppress(OSError):
        address = socket.gethostbyname(name)
        if address.startswith("127."):
            return address, "NoCtldInAddrAny,NoInAddrAny"
    return "127.0.0.1", ""


def _user_name():
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _fields(line):
    parts = re.split(r"(?:^|\s)([A-Z][A-Za-z:/]*)=", line)[1:]
    return dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))


def _until(true, seconds, what, told):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}; {told()}")
        time.sleep(0.05)


_CONF = """ClusterName=tests
SlurmctldHost={host}({address})
SlurmctldPort={port}
CommunicationParameters={quiet}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmdLogFile={folder}/%n/slurmd.log
SlurmdSpoolDir={folder}/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
DefMemPerCPU=1000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
{nodes}
PartitionName=main Nodes={listed} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={listed} MaxTime=10 State=UP
"""
