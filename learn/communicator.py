"""What the ranks of one training say to each other: sums of tensors, and small objects from and to one of them.

One interface, three bodies: one process alone ("serial"), Horovod ("horovod"), and torch.distributed ("torch": Gloo,
and NCCL for tensors on GPUs where each rank has one of its own). Who starts the ranks, and how they find each other, is
not settled here.

Every method is called by all ranks, in the same order; a rank that leaves one out leaves the others waiting. An error
that one rank alone may meet is therefore carried to the next `Communicator.raise_first`, where all raise it;
`Communicator.together` does both.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

COMMUNICATORS = ("serial", "horovod", "torch")


class Communicator:
    """One rank among `size`; this body is the one of a process alone.

    Parameters
    ----------
    rank, size : int
        This process's number, from 0, and how many there are.

    Examples
    --------
    >>> alone = Communicator()
    >>> alone.allreduce(torch.ones(2)), alone.gather("here")
    (tensor([1., 1.]), ['here'])
    """

    name = "serial"

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def allreduce(self, tensor: Tensor) -> Tensor:
        """Sum of all ranks' tensors.

        Parameters
        ----------
        tensor : Tensor
            Of the same shape and type (floating point or integer) on every rank.

        Returns
        -------
        Tensor
            A new one on the tensor's device, with the same bits on every rank.
        """
        return tensor.detach().clone()

    def broadcast(self, value, root: int = 0):
        """The value of rank `root`; that of the others is not read.

        Parameters
        ----------
        value : object
            Anything that can be pickled. A tensor arrives on the CPU.
        root : int
        """
        return on_cpu(value)

    def gather(self, value, root: int = 0) -> list | None:
        """The values of all ranks, in their order, on rank `root`; None on the others."""
        return [on_cpu(value)]

    def barrier(self) -> None:
        """Return when all ranks are here."""

    def close(self) -> None:
        """Leave the others; nothing may be called after it."""

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Rows that are this rank's: contiguous, in the order of ranks, of lengths that differ by one at most.

        The first ranks have the longer parts; where there are fewer rows than ranks, the last ones have none.

        Examples
        --------
        >>> [Communicator(rank, 3).share(np.arange(4)).tolist() for rank in range(3)]
        [[0, 1], [2], [3]]
        """
        return np.array_split(rows, self.size)[self.rank]

    def raise_first(self, error: Exception | None) -> None:
        """Raise, on every rank, the error of the first rank that has one; return if none has.

        Parameters
        ----------
        error : Exception or None
            What this rank met.

        Examples
        --------
        >>> Communicator().raise_first(None)
        """
        found = self.gather(None if error is None else (self.rank, _portable(error))) or ()
        first = self.broadcast(next((each for each in found if each is not None), None))
        if first is not None:
            raise error if first[0] == self.rank else first[1]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let a block in which one rank may fail alone end in the same way on all.

        Examples
        --------
        >>> with Communicator().together():
        ...     done = True
        """
        error = None
        try:
            yield
        except Exception as found:
            error = found
        self.raise_first(error)


@contextmanager
def open_communicator(
    kind: str,
    *,
    rank: int,
    size: int,
    local_rank: int = 0,
    local_size: int = 1,
    address: str | None = None,
    interface: str = "",
) -> Iterator[Communicator]:
    """Join the ranks; leave them at the end of the block.

    Parameters
    ----------
    kind : str
        One of `COMMUNICATORS`.
    rank, size : int
        This process's number, from 0, and how many there are.
    local_rank, local_size : int
        The same among the ranks of this machine; they settle which of its GPUs this rank takes.
    address : str, optional
        For "torch", where the ranks meet: ``"file:///…"``, a new file that all can lock, or ``"tcp://host:port"``, a
        port that torch opens on all interfaces of rank 0's machine, without a secret. Horovod reads its own from the
        environment (``HOROVOD_GLOO_RENDEZVOUS_ADDR``).
    interface : str
        Network interface that ranks listen on; the backend's own choice without one.

    Yields
    ------
    Communicator

    Raises
    ------
    InputError
        An unknown kind, a rank that cannot be, or ranks that cannot meet.
    MissingPackageError
        Horovod is asked for and not installed.

    Examples
    --------
    >>> with open_communicator("serial", rank=0, size=1) as communicator:
    ...     communicator.broadcast({"epoch": 3})
    {'epoch': 3}
    """
    _check(kind, rank, size, local_rank, local_size, address)
    if interface:
        os.environ["HOROVOD_GLOO_IFACE" if kind == "horovod" else "GLOO_SOCKET_IFNAME"] = interface
    if kind != "serial" and torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    communicator = _opened(kind, rank, size, address)
    try:
        yield communicator
    finally:
        communicator.close()


def _opened(kind, rank, size, address) -> Communicator:
    if kind == "horovod":
        from .horovod_communicator import HorovodCommunicator

        return HorovodCommunicator(rank, size)
    if kind == "torch":
        from .torch_communicator import TorchCommunicator

        return TorchCommunicator(rank, size, address)
    return Communicator(rank, size)


def _check(kind, rank, size, local_rank, local_size, address) -> None:
    if kind not in COMMUNICATORS:
        raise InputError(f"communicator {kind!r} is not known; choose from {', '.join(COMMUNICATORS)}.")
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise InputError(
            f"rank {rank} of {size}, and {local_rank} of {local_size} on its machine, cannot be: ranks are counted "
            "from 0, and a machine has no more than all. The launcher's environment is mixed up; start the ranks anew."
        )
    if kind == "serial" and size > 1:
        raise InputError(f'the communicator "serial" is for one process, and there are {size}; take "torch".')
    if kind == "torch" and not address:
        raise InputError('the communicator "torch" needs an address at which the ranks meet; give file:// or tcp://.')


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error's own __init__ and __reduce__ may raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def on_cpu(value):
    """The value, on the CPU if it is a tensor.

    Examples
    --------
    >>> on_cpu(3), on_cpu(torch.ones(1, requires_grad=True))
    (3, tensor([1.]))
    """
    return value.detach().cpu() if isinstance(value, Tensor) else value
