"""What the benchmarks print of the machine that they ran on."""

import os
import platform
import resource
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from motorsweep.sim.distributed import no_open_ports

_PACKAGES = ("torch", "numpy", "scipy", "numba", "petsc4py", "zarr")


def set_threads(threads):
    """Let Numba, BLAS and OpenMP take so many threads in this process, PETSc's libraries included."""
    import numba
    import petsc4py
    from threadpoolctl import threadpool_limits

    with no_open_ports():
        petsc4py.init(["-malloc_debug", "0"])
        from petsc4py import PETSc  # noqa: F401  only libraries that are loaded can be limited

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    threadpool_limits(threads)


def describe(threads):
    """Lines of Markdown: processor, memory, versions, command."""
    import psutil

    memory = psutil.virtual_memory().total / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = os.getloadavg()[0]
    load = f", other work on the machine (load {busy:.1f})" if busy > 0.5 else ""
    return "\n".join(
        [
            f"- machine: {processor()}, {cores} cores, {threads} threads, {memory:.0f} GB{load}",
            f"- versions: Python {platform.python_version()}, {', '.join(versions())}",
            f"- command: `python {shlex.join([_short(sys.argv[0]), *sys.argv[1:]])}`",
        ]
    )


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions():
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} absent"


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(*titles):
    print()
    row(*titles)
    row(*["---"] * len(titles))


def forget_peak():
    """Let `peak_gb` count from now on; where Linux does not offer that, it counts from the start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_gb():
    """Largest memory that this process held, GB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    except (OSError, StopIteration):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / 1e9 if sys.platform == "darwin" else largest * 1024 / 1e9


def held_gb():
    """Memory that this process holds now, GB."""
    import psutil

    return psutil.Process().memory_info().rss / 1e9


def _short(path):
    parts = Path(path).parts
    return str(Path(*parts[-2:])) if "benchmarks" in parts else path
