"""Scripts for sbatch: compared with recorded ones, and run by a real bash."""

import difflib
import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from motorsweep.hpc.slurm_config import DriverConfig, SlurmConfig, TrainConfig
from motorsweep.hpc.slurm_scripts import (
    SubmittedStudy,
    collect_script,
    directive,
    hosts_script,
    sbatch_words,
    script_name,
    scripts_of,
    simulate_script,
    train_script,
)
from motorsweep.hpc.slurm_walltime import signal_seconds

RECORDED = Path(__file__).with_name("slurm_scripts")
QUICK = SubmittedStudy(name="quick", path="/home/ada/quick.toml", folder="/home/ada/studies/quick", cwd="/home/ada")
PAPER = SubmittedStudy(name="paper", path="/home/ada/my studies/paper.toml", folder="/scratch/paper", cwd="/home/ada")
FULL = SlurmConfig(
    partition="long",
    account="tms",
    qos="night",
    constraint="skylake&ib",
    modules=("gcc/12", "petsc"),
    prologue=("source ~/motorsweep/bin/activate", 'export DATA="$HOME/my data"'),
    extra=("--mail-type=END", "--exclude=n7"),
    interface="ib0",
    at_once=1,
    requeue=3,
    driver=DriverConfig(cpus=2, memory_gb=4.5, walltime="2-00:00:00", partition="service"),
    train=TrainConfig(nodes=2, ranks_per_node=4, cpus_per_rank=3, memory_gb=64.0, gpus_per_node=2, backend="torch"),
)


def horovodrun(**keys):
    return SlurmConfig(interface="lo", train=TrainConfig(launcher="horovodrun", **keys))


def recorded():
    """File name to the text that the program makes."""
    files = {f"full-{name}": text for name, text in scripts_of(FULL, [QUICK], "/opt/python/bin/python3").items()}
    plain = scripts_of(SlurmConfig(), [QUICK, PAPER], "/usr/bin/python3")
    files |= {f"plain-{name}": text for name, text in plain.items()}
    files["horovodrun-train.sh"] = train_script(horovodrun(nodes=3, min_ranks=2), [QUICK], "/usr/bin/python3")
    elastic = scripts_of(horovodrun(nodes=3, min_ranks=2, elastic=True), [QUICK], "/usr/bin/python3")
    files |= {f"elastic-{name}": elastic[name] for name in ("train.sh", "hosts.sh")}
    files["mpirun-train.sh"] = train_script(SlurmConfig(train=TrainConfig(launcher="mpirun")), [QUICK], "python3")
    return files


@pytest.mark.parametrize("name", recorded())
def test_scripts_are_as_recorded(name):
    path, text = RECORDED / name, recorded()[name]
    if os.environ.get("MOTORSWEEP_RECORD"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = path.read_text()
    changes = difflib.unified_diff(before.splitlines(), text.splitlines(), "recorded", "now", lineterm="", n=1)
    assert text == before, "\n" + "\n".join(changes) + "\nif that is meant: MOTORSWEEP_RECORD=1 writes the records anew"


def test_every_record_is_of_a_script():
    assert {path.name for path in RECORDED.iterdir()} == set(recorded())


@pytest.mark.parametrize("name", recorded())
def test_bash_finds_nothing_to_complain_of(name):
    done = subprocess.run(["bash", "-n", RECORDED / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("long", "#SBATCH --x=long"),
        ("12:00:00", "#SBATCH --x=12:00:00"),
        ("a b", '#SBATCH --x="a b"'),
        ("[a*2&b]", '#SBATCH --x="[a*2&b]"'),
        ('a"b\\c', '#SBATCH --x="a\\"b\\\\c"'),
        ("a#b", '#SBATCH --x="a#b"'),
        (4, "#SBATCH --x=4"),
    ],
)
def test_directives_are_quoted_as_sbatch_reads_them(value, line):
    assert directive("x", value) == line


def test_directive_without_value():
    assert directive("requeue") == "#SBATCH --requeue"


@pytest.mark.parametrize(("walltime", "seconds"), [("0:01:00", 20), ("0:05:00", 100), ("0:06:00", 120), ("0:00:01", 1)])
def test_short_jobs_are_told_late(walltime, seconds):
    assert signal_seconds(walltime) == seconds
    text = simulate_script(SlurmConfig(driver=DriverConfig(walltime=walltime)), [QUICK], "python3")
    assert f"#SBATCH --signal=B:USR1@{seconds}\n" in text


def test_sbatch_waits_element_by_element_for_arrays():
    assert sbatch_words("/a b/train.sh", "/a b", "7", several=True) == [
        "sbatch",
        "--parsable",
        "--dependency=aftercorr:7",
        "--kill-on-invalid-dep=yes",
        "--chdir=/a b",
        "/a b/train.sh",
    ]
    assert script_name("train", [QUICK]) == "train.sh"


def test_throttle_of_arrays():
    assert "#SBATCH --array=0-1%1\n" in simulate_script(FULL, [QUICK, PAPER], "python3")
    assert "#SBATCH --array=0-1\n" in simulate_script(SlurmConfig(), [QUICK, PAPER], "python3")


def test_secrets_of_the_environment_do_not_get_into_scripts(monkeypatch):
    monkeypatch.setenv("MOTORSWEEP_TOKEN", "hush")
    assert "hush" not in "".join(scripts_of(FULL, [QUICK], "python3").values())


# ---- run by a real bash ---------------------------------------------------------------------------------------------

TELLS = """#!/bin/bash
printf '%s\\0' "$@" >> "$TOLD/arguments"
printf '%s %s\\n' "$OMP_NUM_THREADS" "${MOTORSWEEP_BACKEND-}" >> "$TOLD/threads"
[ -f python ] && touch "$TOLD/in-the-directory-of-submit"
"""
PASSES = '#!/bin/bash\nwhile [[ "$1" != *python ]]; do shift; done\nexec "$@"\n'


def submitted(folder):
    return SubmittedStudy(name="q", path=str(folder / "study.toml"), folder=str(folder), cwd=str(folder))


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """A folder of programs that stand for SLURM's in front of PATH; ``scontrol`` notes what it is asked."""
    folder = tmp_path / "bin"
    program(folder / "srun", PASSES)
    program(folder / "mpirun", PASSES)
    program(folder / "scontrol", '#!/bin/bash\necho "$*" >> "$TOLD/scontrol"\n')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    return folder


def run(text, folder, **kwargs):
    program(folder / "script.sh", text)
    return subprocess.run(["bash", folder / "script.sh"], capture_output=True, text=True, timeout=60, **kwargs)


def calls(folder):
    """The arguments of each call of the python that stands for ours."""
    words = (folder / "arguments").read_text().split("\0")[:-1]
    starts = [k for k, word in enumerate(words) if word == "-m"] + [len(words)]
    return [words[a:b] for a, b in itertools.pairwise(starts)]


UGLY = [
    "two words",
    "it's",
    'say "so"',
    "a; touch harm",
    "$(touch harm)",
    "`touch harm`",
    "a\nb",
    "*",
    "-x",
    "ü",
    "#",
    "a&b",
]


@pytest.mark.parametrize("name", UGLY)
@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_paths_arrive_unchanged(tmp_path, bin_folder, name, launcher):
    python = program(tmp_path / name / "python", TELLS)
    study = submitted(tmp_path / name)
    slurm = SlurmConfig(train=TrainConfig(launcher=launcher, cpus_per_rank=3))
    for make in (simulate_script, train_script, collect_script):
        done = run(make(slurm, [study], python), tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    cli = ["-m", "motorsweep.jobs.cli"]
    assert calls(tmp_path) == [
        [*cli, "simulate", study.path, "--executor", "slurm", "--allow-failed"],
        [*cli, "encode", study.path, "--allow-failed"],
        [*cli, "train", study.path, "--allow-failed"],
        [*cli, "collect", study.path, "--allow-failed"],
        [*cli, "report", study.path],
    ]
    assert (tmp_path / "threads").read_text().splitlines() == ["1 ", "3 auto", "3 auto", "1 ", "1 "]
    assert not list(tmp_path.rglob("harm")) and (tmp_path / "in-the-directory-of-submit").exists()


def test_an_element_takes_its_own_study(tmp_path, bin_folder, monkeypatch):
    python = program(tmp_path / "python", TELLS)
    studies = [
        SubmittedStudy(name=f"s{k}", path=f"/a {name}/s.toml", folder="/a", cwd=str(tmp_path))
        for k, name in enumerate(UGLY)
    ]
    text = collect_script(SlurmConfig(), studies, python)
    for element in (0, 6, 11):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(element))
        assert run(text, tmp_path).returncode == 0
    assert [call[3] for call in calls(tmp_path)][::2] == [studies[k].path for k in (0, 6, 11)]


def test_a_stage_that_fails_stops_the_job_with_its_code(tmp_path, bin_folder):
    python = program(tmp_path / "python", TELLS + "exit 3\n")
    assert run(train_script(SlurmConfig(), [submitted(tmp_path)], python), tmp_path).returncode == 3
    assert [call[2] for call in calls(tmp_path)] == ["encode"]
    assert not (tmp_path / "scontrol").exists()


def test_prologue_runs_first_and_may_use_variables_that_are_not_set(tmp_path, bin_folder):
    python = program(tmp_path / "python", '#!/bin/bash\necho "$GREETING,$LOADED" >> "$TOLD/said"\n')
    program(bin_folder / "module", '#!/bin/bash\necho "module $*" >> "$TOLD/said"\n')
    slurm = SlurmConfig(
        modules=("my petsc",), prologue=('export GREETING="hello$NOT_SET"', 'LOADED="a b"; export LOADED')
    )
    done = run(simulate_script(slurm, [submitted(tmp_path)], python), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "said").read_text().splitlines() == ["module load my petsc", "hello,a b"]


def test_a_prologue_that_fails_stops_the_job(tmp_path, bin_folder):
    python = program(tmp_path / "python", TELLS)
    assert (
        run(simulate_script(SlurmConfig(prologue=("false",)), [submitted(tmp_path)], python), tmp_path).returncode == 1
    )
    assert not (tmp_path / "arguments").exists()


def test_exit_code_of_a_stop_queues_the_job_again(tmp_path, bin_folder):
    python = program(tmp_path / "python", "#!/bin/bash\nexit 75\n")
    done = run(simulate_script(SlurmConfig(), [submitted(tmp_path)], python), tmp_path)
    assert done.returncode == 75 and "the job is queued again" in done.stderr
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_the_job_is_queued_again_only_so_often(tmp_path, bin_folder, monkeypatch):
    python = program(tmp_path / "python", "#!/bin/bash\nexit 75\n")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    done = run(simulate_script(SlurmConfig(requeue=3), [submitted(tmp_path)], python), tmp_path)
    assert done.returncode == 75 and "after 3 requeues; motorsweep submit goes on" in done.stderr
    assert not (tmp_path / "scontrol").exists()


WAITS = """#!/bin/bash
trap 'echo told >> "$TOLD/said"; exit {code}' USR1
echo ready >> "$TOLD/said"
for _ in $(seq 300); do sleep 0.1; done
"""
IGNORES = "#!/bin/bash\ntrap '' USR1\necho ready >> \"$TOLD/said\"\nexec sleep 30\n"


def signalled(tmp_path, text):
    """Run a script, send it USR1 once its command is ready, and return it when it has ended."""
    program(tmp_path / "script.sh", text)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["bash", tmp_path / "script.sh"], stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(300):
                if (tmp_path / "said").exists() and (tmp_path / "said").read_text():
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGUSR1)
            process.wait(timeout=30)
        finally:
            # What the job had started; SLURM would end it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    return process.returncode, (tmp_path / "said").read_text().split()


@pytest.mark.parametrize("code", [75, 1])
def test_the_command_is_told_of_the_walltime_and_the_job_queued_again(tmp_path, bin_folder, code):
    python = program(tmp_path / "python", WAITS.format(code=code))  # launchers do not keep exit codes
    assert signalled(tmp_path, train_script(SlurmConfig(), [submitted(tmp_path)], python)) == (75, ["ready", "told"])
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_a_command_that_ends_well_in_the_last_minute_is_done(tmp_path, bin_folder):
    python = program(tmp_path / "python", WAITS.format(code=0))
    assert signalled(tmp_path, simulate_script(SlurmConfig(), [submitted(tmp_path)], python)) == (0, ["ready", "told"])
    assert not (tmp_path / "scontrol").exists()


def test_no_further_stage_begins_after_the_signal(tmp_path, bin_folder):
    python = program(tmp_path / "python", WAITS.format(code=0))
    assert signalled(tmp_path, train_script(SlurmConfig(), [submitted(tmp_path)], python)) == (75, ["ready", "told"])
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_a_command_that_does_not_listen_is_not_waited_for_too_long(tmp_path, bin_folder):
    python = program(tmp_path / "python", IGNORES)
    slurm = SlurmConfig(driver=DriverConfig(walltime="0:00:09"))  # told 3 s before, waited for 2 s
    began = time.monotonic()
    assert signalled(tmp_path, simulate_script(slurm, [submitted(tmp_path)], python)) == (75, ["ready"])
    assert time.monotonic() - began < 15
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


# horovodrun: a launcher that passes no signal on, ends at USR1, and starts its ranks in sessions of their own.
LAUNCHES = """#!/bin/bash
if [ "$2" != horovod.runner.launch ]; then
{rank}
fi
printf '%s\\0' "$@" >> "$TOLD/arguments"
while [[ "$1" != *python ]]; do shift; done
setsid -w bash -c '"$@" & wait $!' launcher "$@" || exit 1
"""


# A shell could not listen to a signal that it was started deaf to; Python can.
LISTENS = """
import os, signal, sys, time
said = open(os.environ["TOLD"] + "/said", "a", buffering=1)
signal.signal(signal.SIGUSR1, lambda *_: (print("told", file=said), sys.exit(75)))
print("ready", file=said)
time.sleep(30)
"""


def test_ranks_of_horovodrun_are_told_and_it_is_not(tmp_path, bin_folder):
    (tmp_path / "rank.py").write_text(LISTENS)
    rank = f"exec {sys.executable} {tmp_path}/rank.py"
    python = program(tmp_path / "python", LAUNCHES.format(rank=rank))
    text = train_script(horovodrun(ranks_per_node=2), [submitted(tmp_path)], python)
    code, said = signalled(tmp_path, text)
    assert (code, said) == (75, ["ready", "told"])
    assert calls(tmp_path)[0][:8] == "-m horovod.runner.launch --gloo -np 2 -H localhost:2 --network-interfaces".split()


@pytest.mark.parametrize("name", UGLY)
def test_horovodrun_gives_its_host_script_to_a_shell_that_finds_it(tmp_path, bin_folder, name):
    python = program(tmp_path / "python", LAUNCHES.format(rank="exit 0"))
    study = submitted(tmp_path / name)
    program(Path(study.folder, "slurm/hosts.sh"), hosts_script(horovodrun()))
    assert run(train_script(horovodrun(elastic=True, min_ranks=2), [study], python), tmp_path).returncode == 0
    words = calls(tmp_path)[0]
    assert words[3:9] == ["-np", "4", "--min-np", "2", "--max-np", "4"]
    command = words[words.index("--host-discovery-script") + 1]
    assert subprocess.run(command, shell=True, capture_output=True, text=True).stdout == "localhost:2\n127.0.0.1:2\n"
    assert not list(tmp_path.rglob("harm"))


def test_hosts_of_several_nodes(tmp_path, bin_folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    program(bin_folder / "scontrol", '#!/bin/bash\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    python = program(tmp_path / "python", LAUNCHES.format(rank="exit 0"))
    assert run(train_script(horovodrun(nodes=2), [submitted(tmp_path)], python), tmp_path).returncode == 0
    assert calls(tmp_path)[0][4:7] == ["8", "-H", "n1:4,n2:4"]
    program(bin_folder / "sinfo", '#!/bin/bash\n[[ "$*" = *"--nodes=n[1-2]"* ]] && printf "n2\\nn1\\nn1\\n"\n')
    assert run(hosts_script(horovodrun(nodes=2)), tmp_path).stdout == "n1:4\nn2:4\n"
