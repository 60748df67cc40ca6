"""The communicator over horovod.torch.

Horovod sums on the CPU here, by Gloo or MPI; tensors on a GPU go there and back. Its operations have names, by which it
knows what ranks do together. Its own functions for objects name them after the value's type, so that ranks with values
of two types wait for ever; objects are therefore sent as bytes under names of ours.
"""

import os
import pickle
import time

import torch
from torch import Tensor

from ..errors import InputError, MissingPackageError
from .communicator import Communicator, on_cpu

_SHORT_PAUSE, _LONG_PAUSE = 1e-4, 5e-3  # seconds between two looks at an operation


class HorovodCommunicator(Communicator):
    """One rank of those that Horovod knows from its environment.

    Parameters
    ----------
    rank, size : int
        What Horovod must find, too.

    Raises
    ------
    MissingPackageError
        Horovod for torch is not installed.
    InputError
        Horovod finds another rank or size.
    """

    name = "horovod"

    def __init__(self, rank: int, size: int):
        super().__init__(rank, size)
        try:
            import horovod.torch as horovod
        except ImportError as error:
            raise MissingPackageError(
                'training over ranks with the communicator "horovod", and Horovod for torch cannot be loaded '
                f'({error}); `pip install "motorsweep[cluster]"`, or set the communicator to "torch".'
            ) from error
        self._horovod, self._began = horovod, not horovod.is_initialized()
        if self._began:
            # It warns each minute of ranks that wait for the others, which may be for work.
            os.environ.setdefault("HOROVOD_STALL_CHECK_DISABLE", "1")
            horovod.init()
        found = horovod.rank(), horovod.size()
        if found != (rank, size):
            self.close()
            raise InputError(
                f"this process should be rank {rank} of {size}, and Horovod made it rank {found[0]} of {found[1]}: it "
                "was started without a launcher that Horovod knows, or with another number of ranks. Start it with "
                "horovodrun, srun or mpirun."
            )

    def allreduce(self, tensor: Tensor) -> Tensor:
        """Sum of all ranks' tensors, by way of the CPU."""
        kept = tensor.detach().cpu().contiguous()
        if not kept.numel():
            return tensor.detach().clone()
        # One name a shape, so that Horovod's cache of what ranks agreed on is of use.
        name = f"motorsweep.{kept.dtype}.{'x'.join(map(str, kept.shape))}"
        handle = self._horovod.allreduce_async(kept, op=self._horovod.Sum, name=name)
        return self._result(handle).to(tensor.device)

    def broadcast(self, value, root: int = 0):
        """The value of rank `root`: its length first, then its bytes."""
        content = _pickled(value) if self.rank == root else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(content)])
        self._result(self._horovod.broadcast_async_(length, root, name=f"motorsweep.length.{root}"))
        content = content if self.rank == root else torch.empty(int(length), dtype=torch.uint8)
        self._result(self._horovod.broadcast_async_(content, root, name=f"motorsweep.value.{root}"))
        return _unpickled(content)

    def gather(self, value, root: int = 0) -> list | None:
        """The values of all ranks on rank `root`; on their way all ranks have them."""
        content = _pickled(value)
        lengths = self._result(self._horovod.allgather_async(torch.tensor([len(content)]), name="motorsweep.lengths"))
        values = self._result(self._horovod.allgather_async(content, name="motorsweep.values"))
        return [_unpickled(each) for each in values.split(lengths.tolist())] if self.rank == root else None

    def barrier(self) -> None:
        """Return when all ranks are here."""
        self.allreduce(torch.zeros(1))

    def _result(self, handle):
        """Result of an operation; Horovod's own wait keeps a core busy, and a rank may wait for hours."""
        pause = _SHORT_PAUSE
        while not self._horovod.poll(handle):
            time.sleep(pause)
            pause = min(1.2 * pause, _LONG_PAUSE)
        return self._horovod.synchronize(handle)

    def close(self) -> None:
        """Shut Horovod down, unless the caller had started it."""
        if self._began and self._horovod.is_initialized():
            self._horovod.shutdown()


def _pickled(value) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(on_cpu(value))), dtype=torch.uint8)


def _unpickled(content: Tensor):
    return pickle.loads(content.numpy().tobytes())  # from a rank of this training, never from a file
