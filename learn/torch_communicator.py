"""The communicator over torch.distributed: Gloo on the CPU, and NCCL on GPUs where each rank has one of its own."""

import socket
from datetime import timedelta
from importlib import import_module

import torch
from torch import Tensor

from .communicator import Communicator, on_cpu

_MEETING = timedelta(minutes=5)  # how long the first ranks wait for the last to start
_WAITING = timedelta(days=30)  # a rank may wait for work as long as a job lasts


class TorchCommunicator(Communicator):
    """One rank of those that meet at an address.

    Parameters
    ----------
    rank, size : int
    address : str
        As in `open_communicator`.
    """

    name = "torch"

    def __init__(self, rank: int, size: int, address: str):
        super().__init__(rank, size)
        # An optimizer loads this part of torch; loaded while there is a group it holds it for good, see `close`.
        import_module("torch._dynamo")
        from torch import distributed

        self._distributed = distributed
        where = address if "://" in address else f"tcp://{address}"
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=_MEETING)
        self._group = distributed.new_group(backend="gloo", timeout=_WAITING)
        own = self.gather(_own_gpu())
        each_its_own = self.rank == 0 and None not in own and len(set(own)) == size
        self._on_gpus = distributed.new_group(backend="nccl") if self.broadcast(each_its_own) else None

    def allreduce(self, tensor: Tensor) -> Tensor:
        """Sum of all ranks' tensors: on the GPUs where each rank has its own, else by way of the CPU."""
        on_gpus = self._on_gpus is not None and tensor.device.type == "cuda"
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        if not total.numel():
            return total
        total = total if on_gpus else total.cpu()
        self._distributed.all_reduce(total, group=self._on_gpus if on_gpus else self._group)
        return total.to(tensor.device)

    def broadcast(self, value, root: int = 0):
        """The value of rank `root`."""
        held = [on_cpu(value) if self.rank == root else None]
        self._distributed.broadcast_object_list(held, src=root, group=self._group, device=torch.device("cpu"))
        return held[0]

    def gather(self, value, root: int = 0) -> list | None:
        """The values of all ranks on rank `root`."""
        found = [None] * self.size if self.rank == root else None
        self._distributed.gather_object(on_cpu(value), found, dst=root, group=self._group)
        return found

    def barrier(self) -> None:
        """Return when all ranks are here."""
        self._distributed.barrier(group=self._group)

    def close(self) -> None:
        """Leave the group."""
        if self._distributed.is_initialized():
            self._distributed.destroy_process_group()
        # The last reference ends Gloo's threads. One that still ran when Python ends would abort the process.
        self._group = self._on_gpus = None


def _own_gpu() -> tuple[str, str] | None:
    """Machine and number of the GPU that this process uses; None without one."""
    if not torch.cuda.is_available():
        return None
    return socket.gethostname(), str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
