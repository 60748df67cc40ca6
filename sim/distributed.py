"""One head on several ranks: the rows of the matrix and the poses of a block, each shared out over a communicator.

A rank computes dA/dt, right-hand sides and fields of its own poses and holds its own rows of the matrix and the factor;
two exchanges around each solve turn one into the other. Without a communicator all of it is this process's own.

A communicator is one of mpi4py, or None; nothing here imports MPI.
"""

import os
from contextlib import contextmanager

import numpy as np

# By these a launcher (mpirun, or srun with PMI) tells a process of its world.
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_SIZE")

# Left to itself, Open MPI opens ports to the whole network, and so does the daemon (orted) that it starts for a single
# process. UCX, where it is built in, has ports of its own, hence the choice of "pml".
_ALONE = {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_btl": "self", "OMPI_MCA_pml": "ob1"}
_ONE_HOST = {"OMPI_MCA_btl": "self,vader", "OMPI_MCA_pml": "ob1"}


@contextmanager
def no_open_ports():
    """Hold an MPI that starts within the block to what needs no port; settings that the user has made stay.

    A process that no launcher started needs no other. The ranks of one machine talk through shared memory. Only ranks
    of several machines are left to the launcher's own settings.

    Examples
    --------
    >>> with no_open_ports():                                                     # doctest: +SKIP
    ...     from mpi4py import MPI
    """
    before = dict(os.environ)
    if not any(name in before for name in _LAUNCHED):
        wanted = _ALONE
        # From this Open MPI would conclude that srun had started it with PMI, and end the process for want of it.
        os.environ.pop("SLURM_STEP_ID", None)
    else:
        size, here = (before.get(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "LOCAL_SIZE"))
        one_host = size == here if size else before.get("SLURM_STEP_NUM_NODES") == "1"
        wanted = _ONE_HOST if one_host else {}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in {*wanted, "SLURM_STEP_ID"}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def own_share(comm, count):
    """Which of `count` poses are this rank's.

    Parameters
    ----------
    comm : mpi4py communicator or None
    count : int

    Returns
    -------
    slice

    Examples
    --------
    >>> own_share(None, 5)
    slice(0, 5, None)
    """
    if comm is None:
        return slice(0, count)
    rank, size = comm.Get_rank(), comm.Get_size()
    return slice(rank * count // size, (rank + 1) * count // size)


def together(comm, function):
    """Call a function that is no collective on every rank; if it fails on one, all raise that error.

    Ranks that share a head must stay in step: one that left on an error of its own would leave the others waiting.

    Parameters
    ----------
    comm : mpi4py communicator or None
    function : callable without arguments

    Returns
    -------
    object
        What this rank's call returned.
    """
    if comm is None:
        return function()
    value, error = None, None
    try:
        value = function()
    except Exception as raised:
        error = raised
    errors = [each for each in comm.allgather(error) if each is not None]
    if errors:
        raise error or errors[0]
    return value


def joined(comm, values):
    """Arrays of all ranks, one after another along the first axis, on every rank.

    Parameters
    ----------
    comm : mpi4py communicator or None
    values : ndarray (k, ...)
        Of this rank's poses; k may differ from rank to rank, and be 0.

    Returns
    -------
    ndarray (sum of k, ...)
    """
    if comm is None:
        return values
    values = np.ascontiguousarray(values)
    counts = comm.allgather(len(values))
    every = np.empty((sum(counts), *values.shape[1:]), values.dtype)
    first = 0
    for root, count in enumerate(counts):
        part = values if root == comm.Get_rank() else every[first : first + count]
        # Pose by pose, as a count of bytes must stay below 2^31.
        for row in part:
            comm.Bcast(row, root=root)
        every[first : first + count] = part
        first += count
    return every


class WholeRows:
    """All rows in this process."""

    def __init__(self, n):
        self.n = n

    def matrix(self, matrix):
        """Rows of this process and their columns, as PETSc numbers them."""
        return matrix

    def to_rows(self, loads):
        """Loads of own poses (k, n) to own rows of all poses (K, n')."""
        return np.ascontiguousarray(loads), [len(loads)]

    def to_poses(self, solution, counts):
        """Own rows of all poses (K, n') to whole solutions of own poses (k, n)."""
        return solution

    def total(self, values):
        """Sum over the ranks."""
        return values

    def fields(self, n_nodes):
        """Ranges of own rows that are nodes, and bubbles: (first, count) each."""
        return (0, n_nodes), (n_nodes, self.n - n_nodes)


class SharedRows:
    """Rows shared out over the ranks of a communicator: each has as many nodes, and as many bubbles, as the others.

    Parameters
    ----------
    comm : mpi4py communicator
    n : int
        Rows of the matrix.
    n_nodes : int
        How many of them, the first, are nodes.
    """

    def __init__(self, comm, n, n_nodes):
        self.comm, self.n = comm, n
        size = comm.Get_size()
        parts = zip(np.array_split(np.arange(n_nodes), size), np.array_split(np.arange(n_nodes, n), size))
        self._nodes, self._rows = [], []
        for nodes, bubbles in parts:
            self._nodes.append(len(nodes))
            self._rows.append(np.concatenate([nodes, bubbles]))
        self._first = np.cumsum([0, *map(len, self._rows)])
        self._own = self._rows[comm.Get_rank()]

    def matrix(self, matrix):
        """As `WholeRows.matrix`: rows of a rank are numbered one after another."""
        place = np.empty(self.n, matrix.indices.dtype)
        place[np.concatenate(self._rows)] = np.arange(self.n)
        own = matrix[self._own]
        own.indices = place[own.indices]
        own.has_sorted_indices = False
        own.sort_indices()
        return own

    def to_rows(self, loads):
        """As `WholeRows.to_rows`; collective."""
        counts = self.comm.allgather(len(loads))
        send = np.concatenate([np.ascontiguousarray(loads[:, rows]).ravel() for rows in self._rows])
        own = np.empty((sum(counts), len(self._own)))
        self.comm.Alltoallv(
            [send, [len(loads) * len(rows) for rows in self._rows]], [own, [k * len(self._own) for k in counts]]
        )
        return own, counts

    def to_poses(self, solution, counts):
        """As `WholeRows.to_poses`; collective."""
        k = counts[self.comm.Get_rank()]
        found = np.empty(k * self.n)
        self.comm.Alltoallv(
            [solution, [each * len(self._own) for each in counts]], [found, [k * len(rows) for rows in self._rows]]
        )
        whole = np.empty((k, self.n))
        for rows, start in zip(self._rows, self._first):
            whole[:, rows] = found[k * start : k * (start + len(rows))].reshape(k, len(rows))
        return whole

    def total(self, values):
        """As `WholeRows.total`; collective."""
        return self.comm.allreduce(values)

    def fields(self, n_nodes):
        """As `WholeRows.fields`."""
        rank = self.comm.Get_rank()
        first, nodes = int(self._first[rank]), self._nodes[rank]
        return (first, nodes), (first + nodes, len(self._own) - nodes)


def share_rows(comm, n, n_nodes=None):
    """Rows of a matrix over a communicator.

    Parameters
    ----------
    comm : mpi4py communicator or None
    n : int
        Rows.
    n_nodes : int, optional
        How many of them, the first, are nodes; by default all.

    Returns
    -------
    WholeRows or SharedRows
    """
    return WholeRows(n) if comm is None else SharedRows(comm, n, n if n_nodes is None else n_nodes)
