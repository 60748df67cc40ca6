"""How ranks find each other: through files in the study's folder, up to an open communicator.

Under horovodrun all is settled by the launcher. Of any other launcher's ranks each leaves a file that says where it
is; rank 0 waits for all of them and answers with one file: for Horovod the address of Horovod's own rendezvous server,
which it starts, for torch a file that torch's ranks meet in. A number drawn by each rank, and repeated in the answer,
tells these files from those of an earlier start.
"""

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError, MissingPackageError, MotorsweepError, StoreError
from ..zarr_store.atomic import atomic_write_text
from .slurm_config import BACKENDS
from .task_queue import machine_id

MEETING_SECONDS = 300.0
"""How long the first rank waits for the last one: Python may load for minutes from a busy file system."""

_POLL_SECONDS = 0.05


def choose_backend(wanted: str, elastic: bool = False) -> str:
    """Return what ranks talk through: "horovod" or "torch".

    Parameters
    ----------
    wanted : str
        One of `slurm_config.BACKENDS`; ``"auto"`` is Horovod where it is installed.
    elastic : bool
        Whether ranks may come and go, which Horovod alone can do.

    Raises
    ------
    ConfigError
        Something else is wanted, or torch for elastic ranks.
    MissingPackageError
        Horovod is needed and not installed.

    Examples
    --------
    >>> choose_backend("torch")
    'torch'
    """
    if wanted not in BACKENDS or (elastic and wanted == "torch"):
        valid = ("auto", "horovod") if elastic else BACKENDS
        raise ConfigError(f"MOTORSWEEP_BACKEND is {wanted!r}; here it must be one of {', '.join(valid)}")
    if wanted == "torch" or (wanted == "auto" and not elastic and find_spec("horovod") is None):
        return "torch"
    if find_spec("horovod") is None:
        raise MissingPackageError(
            'ranks should talk through Horovod, which is not installed; `pip install "motorsweep[cluster]"`, or set '
            "MOTORSWEEP_BACKEND=torch."
        )
    return "horovod"


@contextmanager
def meet(ranks, folder, backend: str, interface: str = "", seconds: float = MEETING_SECONDS):
    """Meet the other ranks, and leave them at the end of the block.

    Parameters
    ----------
    ranks : Ranks
    folder : path-like
        Shared by all ranks.
    backend : str
        From `choose_backend`.
    interface : str
        Network interface to talk on. Without one: the loopback where all ranks are on one machine, else the one that
        the machine's name leads to.
    seconds : float
        How long to wait for the others.

    Yields
    ------
    Communicator

    Raises
    ------
    MotorsweepError
        Some rank did not come.
    ConfigError
        This machine has no such interface.
    """
    from ..learn.communicator import open_communicator  # with torch

    at = {"rank": ranks.rank, "size": ranks.size}
    local = {"local_rank": ranks.local_rank, "local_size": max(ranks.local_size, ranks.local_rank + 1)}
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", "120")  # of ranks whose machine is busy
    # Ranks have little to say: Horovod's own 1 ms costs a core 5 %, and a step of a training is long beside 5 ms.
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")
    if ranks.launcher == "horovodrun" and backend == "horovod":
        with _opened(ranks, open_communicator("horovod", **at, **local)) as communicator:
            yield communicator
        return
    folder = Path(folder) / f"meeting-{ranks.start}"
    with ExitStack() as stack:
        if ranks.rank == 0:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            plan = _invite(ranks, folder, backend, interface, stack, time.monotonic() + seconds)
        else:
            plan = _arrive(ranks, folder, time.monotonic() + seconds)
        own = plan["ranks"][ranks.rank]
        interface = interface or _own_interface(plan["one_machine"])
        _interface_address(interface)
        if backend == "horovod":
            _tell_horovod(plan, own, interface)
        where = {name: own[name] for name in ("rank", "size", "local_rank", "local_size")}
        address = plan.get("file") and Path(folder, plan["file"]).absolute().as_uri()
        opening = open_communicator(backend, **where, address=address, interface=interface)
        yield stack.enter_context(_opened(ranks, opening))


@contextmanager
def _opened(ranks, opening):
    with ExitStack() as stack:
        try:
            communicator = stack.enter_context(opening)
        except MotorsweepError:
            raise
        except (RuntimeError, ValueError) as error:  # of Horovod, and of torch
            raise MotorsweepError(_missing_text(ranks, f"{type(error).__name__}: {error}")) from error
        yield communicator


def _arrive(ranks, folder, deadline):
    """Leave word, wait for rank 0's answer, and say that it was read."""
    own = _card(ranks)
    mine, answer = folder / f"rank-{ranks.rank}.json", folder / "answer.json"
    while True:
        if not mine.exists():
            try:
                atomic_write_text(mine, json.dumps(own))
            except StoreError as error:  # rank 0 has just cleared the folder of what is old: the next turn writes again
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        plan = _read(answer)
        if plan and plan["size"] == ranks.size and plan["numbers"][ranks.rank] == own["number"]:
            atomic_write_text(mine, json.dumps(own | {"read": plan["id"]}))
            return plan
        if time.monotonic() > deadline:
            raise MotorsweepError(_missing_text(ranks, "rank 0 did not answer"))
        time.sleep(_POLL_SECONDS)


def _invite(ranks, folder, backend, interface, stack, deadline):
    """Wait for a word of every rank, answer, and wait until all have read it; answer anew where a word was old."""
    own, plan = _card(ranks), None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        cards = [own, *(_read(folder / f"rank-{rank}.json") for rank in range(1, ranks.size))]
        if None not in cards:
            if plan is None or plan["numbers"] != [card["number"] for card in cards]:
                plan = _plan(cards, backend, interface, stack)
                atomic_write_text(folder / "answer.json", json.dumps(plan))
            if all(card.get("read") == plan["id"] for card in cards[1:]):
                return plan
        if time.monotonic() > deadline:
            late = [str(rank) for rank, card in enumerate(cards) if card is None] or ["some"]
            raise MotorsweepError(_missing_text(ranks, f"rank {', '.join(late)} did not come"))
        time.sleep(_POLL_SECONDS)


def _card(ranks):
    node = ranks.node or socket.gethostname()
    return {"number": secrets.token_hex(8), "machine": machine_id(), "node": node, "rank": ranks.rank}


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _missing_text(ranks, found):
    return (
        f"the {ranks.size} ranks that {ranks.launcher} started could not meet: {found}. Its machine may have failed, "
        "or does not see the study's folder. What was finished is kept; start the same command again."
    )


def _plan(cards, backend, interface, stack):
    one_machine = len({card["machine"] for card in cards}) == 1
    plan = {
        "id": secrets.token_hex(8),
        "size": len(cards),
        "numbers": [card["number"] for card in cards],
        "one_machine": one_machine,
        "ranks": slots_of([card["node"] for card in cards]),
    }
    if backend == "torch":
        return plan | {"file": f"torch-{plan['id']}"}
    address = _interface_address(interface or _own_interface(one_machine))
    return plan | {"address": address, "port": _serve_rendezvous(address, plan["ranks"], stack)}


def slots_of(nodes) -> list[dict]:
    """Places of ranks on their nodes, as Horovod names them.

    Parameters
    ----------
    nodes : sequence of str
        Node of each rank.

    Returns
    -------
    list of dict
        Of each rank: hostname, rank, size, local_rank, local_size, cross_rank (which of the nodes that have a rank of
        this local number) and cross_size.

    Examples
    --------
    >>> [(slot["local_rank"], slot["cross_rank"], slot["cross_size"]) for slot in slots_of(["a", "b", "a"])]
    [(0, 0, 2), (0, 1, 2), (1, 0, 1)]
    """
    sizes, met, crossed, slots = Counter(nodes), Counter(), Counter(), []
    for rank, node in enumerate(nodes):
        local = met[node]
        slots.append(
            {
                "hostname": node,
                "rank": rank,
                "size": len(nodes),
                "local_rank": local,
                "local_size": sizes[node],
                "cross_rank": crossed[local],
            }
        )
        met[node] += 1
        crossed[local] += 1
    return [slot | {"cross_size": crossed[slot["local_rank"]]} for slot in slots]


def _serve_rendezvous(address, slots, stack) -> int:
    """Start Horovod's rendezvous server; its own start would listen on all interfaces."""
    from horovod.runner.common.util.hosts import SlotInfo
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = RendezvousHTTPServer((address, 0), RendezvousHandler, False)
    server.init([SlotInfo(**slot) for slot in slots])
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return server.server_address[1]


def _tell_horovod(plan, own, interface):
    os.environ.update(
        HOROVOD_GLOO_RENDEZVOUS_ADDR=plan["address"],
        HOROVOD_GLOO_RENDEZVOUS_PORT=str(plan["port"]),
        HOROVOD_CONTROLLER="gloo",
        HOROVOD_CPU_OPERATIONS="gloo",
        HOROVOD_GLOO_IFACE=interface,
    )
    os.environ.update({f"HOROVOD_{name.upper()}": str(value) for name, value in own.items()})


def _addresses():
    import psutil

    found = psutil.net_if_addrs()
    return {name: [each.address for each in held if each.family == socket.AF_INET] for name, held in found.items()}


def _interface_address(interface) -> str:
    held = _addresses()
    if not held.get(interface):
        named = ", ".join(name for name, addresses in held.items() if addresses)
        raise ConfigError(
            f"ranks should talk on the network interface {interface!r}, and {socket.gethostname()} has none of that "
            f"name with an address of IPv4; it has {named}. Set [slurm] interface, or MOTORSWEEP_INTERFACE."
        )
    return held[interface][0]


def _own_interface(one_machine) -> str:
    """The loopback for ranks of one machine; else the interface that this machine's name leads to."""
    held = {name: addresses[0] for name, addresses in _addresses().items() if addresses}
    outside = {name: address for name, address in held.items() if not address.startswith("127.")}
    if one_machine or not outside:
        return next(name for name, address in held.items() if address.startswith("127."))
    try:
        wanted = socket.gethostbyname(socket.gethostname())
    except OSError:
        wanted = ""
    return next((name for name, address in outside.items() if address == wanted), next(iter(outside)))
