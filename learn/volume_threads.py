"""What the compiled kernels of the autoencoder share: how they are compiled, and volumes spread over threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import numba
import torch

# "contract" lets a*b + c be one fused instruction; sums keep their written order.
compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Python threads in each of which torch's own operations take one thread."""
    before, met = torch.get_num_threads(), Barrier(count + 1)
    pool = ThreadPoolExecutor(count, thread_name_prefix="volumes")

    def start() -> None:
        torch.set_num_threads(1)
        met.wait()

    for _ in range(count):
        pool.submit(start)
    met.wait()
    torch.set_num_threads(before)  # threads that torch starts later take the last number that was set anywhere
    return pool


def for_each_volume(work: Callable, batch: int | list) -> list:
    """Results of work(0), ..., work(batch - 1), or of work(part) for listed parts, on as many threads as torch may use.

    Examples
    --------
    >>> for_each_volume(lambda b: b * b, 3)
    [0, 1, 4]
    """
    parts = range(batch) if isinstance(batch, int) else batch
    threads = min(torch.get_num_threads(), len(parts))
    return [work(part) for part in parts] if threads == 1 else list(_threads(threads).map(work, parts))
