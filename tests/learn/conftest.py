import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_FRAME = """
import os, sys
from pathlib import Path
import torch
from motorsweep.learn.communicator import open_communicator
{program}
if __name__ == "__main__":
    kind, size, rank, folder = sys.argv[1:]
    rank, size = int(os.environ.get("HOROVOD_RANK", rank)), int(size)
    where = dict(rank=rank, size=size, local_rank=rank, local_size=size)
    with open_communicator(kind, **where, address="file://" + folder + "/meeting", interface="lo") as communicator:
        answer = main(communicator, Path(folder))
        torch.save(answer, Path(folder) / f"answer-{{rank}}.pt")
    if kind == "torch":  # a thread of Gloo that still runs when Python ends can abort the process
        threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.fixture
def on_ranks(tmp_path):
    """Run a program with ``main(communicator, folder)`` on ranks that are real processes; each rank's answer."""

    def run(kind, size, program, name="ranks"):
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "program.py"
        path.write_text(_FRAME.format(program=program))
        commands = _commands(kind, size, path, folder)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for command in commands
        ]
        try:
            said = [rank.communicate(timeout=300)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.terminate()  # which horovodrun passes on
            for rank in ranks:
                rank.wait(timeout=30)
        assert not any(rank.returncode for rank in ranks), "\n".join(said)
        return [torch.load(folder / f"answer-{rank}.pt", weights_only=True) for rank in range(size)]

    return run


def _commands(kind, size, path, folder):
    program = [sys.executable, str(path), kind, str(size)]
    if kind == "torch":
        return [[*program, str(rank), str(folder)] for rank in range(size)]
    pytest.importorskip("horovod.torch", reason="Horovod for torch is not installed")
    launcher = Path(sys.executable).with_name("horovodrun")
    where = ["-np", str(size), "--gloo", "-H", f"localhost:{size}", "--network-interfaces", "lo"]
    return [[sys.executable, str(launcher), *where, *program, "-1", str(folder)]]
