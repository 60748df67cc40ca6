"""Writer of |E| of many coil poses as one matrix in HDF5, for regression on muscle responses."""

from contextlib import contextmanager

import h5py
import numpy as np

from ..errors import InputError
from .whole_file import whole_file

_ROWS_PER_CHUNK = 16
_COLUMNS_PER_CHUNK = 16384  # a chunk is 1 MiB
_LARGEST_CACHE = 256 * 2**20
_OF_TRIALS = (
    "|E| of trial i = e_matrix[trial_row[i]] * abs(trial_didt_a_per_us[i] / didt_a_per_us), and "
    "E of trial i = e_vector[trial_row[i]] * trial_didt_a_per_us[i] / didt_a_per_us; trial_row -1: not in this file"
)


def write_e_matrix(
    path, e, *, poses, columns, numbers=None, didt=1e6, points_m=None, tissue=None, affine=None, notes=None, trials=None
):  # fmt: skip
    """Write |E| of many poses as one matrix (poses, elements or voxels) in HDF5, for regression on responses.

    The datasets: ``e_matrix`` (p, c) float32, V/m; ``e_vector`` (p, c, 3) where components were given; ``pose`` (p,);
    ``pose_matrix`` (p, 4, 4), coil to head, mm, axes of SimNIBS; ``column`` (c,) or (c, 3); ``point`` (c, 3), mm;
    ``tissue`` (c,); ``affine`` (4, 4), voxel to mm. With `trials`: ``trial_row`` (t,), the row of the matrix that each
    trial's pose has, -1 where the pose is not among the rows; ``trial_didt_a_per_us`` (t,); ``response`` (t, k), V;
    ``muscle`` (k,). The attributes say units and dI/dt, in which fields are linear, and how a trial's field follows.
    The rows are written block by block, so that a matrix larger than the memory can be written.

    Parameters
    ----------
    path : path-like
    e : ndarray (p, c) or (p, c, 3), or iterable of such blocks of rows
        |E| or its components, V/m.
    poses : sequence of Pose or of array_like (4, 4), length p
        Metres.
    columns : array_like of int (c,) or (c, 3)
        What each column is: the index of an element of the head (from 0), or of a voxel (x, y, z).
    numbers : array_like of int (p,), optional
        Number of each pose in its study; by default they are counted from 0.
    didt : float
        Rate of change of the coil current that the field is for, A/s.
    points_m : array_like (c, 3), optional
        Where the columns are, m.
    tissue : array_like (c,), optional
        Tissue tags.
    affine : array_like (4, 4), optional
        Voxel index to m, as `VolumeGrid.affine` gives it.
    notes : mapping of str to str or number, optional
        More attributes, such as the names of head and coil.
    trials : mapping, optional
        Trials that refer to the poses, several of them to one pose perhaps: ``"pose"`` (t,) int, its number in the
        study; ``"didt"`` (t,), A/s; ``"response"`` (t, k), V; ``"muscle"`` (k,) names.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite, or there are fewer or more rows than poses.

    Examples
    --------
    >>> rows = (solver.elements([pose])[:, cortex] for pose in poses)                 # doctest: +SKIP
    >>> write_e_matrix("e.hdf5", rows, poses=poses, columns=cortex)                   # doctest: +SKIP
    """
    columns = np.asarray(columns, dtype=np.int64)
    matrices = np.array([getattr(pose, "matrix", pose) for pose in poses], dtype=float)
    numbers = np.arange(len(matrices)) if numbers is None else np.asarray(numbers, dtype=np.int64)
    _check_e_matrix(path, matrices, numbers, columns, {"point": points_m, "tissue": tissue})
    trials = None if trials is None else _of_trials(path, numbers, trials)
    matrices[:, :3, 3] *= 1e3
    cache = min(_LARGEST_CACHE, int(1.5 * 12 * _ROWS_PER_CHUNK * len(columns)) + 2**20)
    blocks = [e] if isinstance(e, np.ndarray) else e
    with whole_file(path, "the matrix") as beside, _hdf5_file(beside, cache) as file:
        file.attrs.update({"didt_a_per_s": float(didt), "didt_a_per_us": didt * 1e-6, **(notes or {})})
        _put(file, "pose_matrix", matrices, "coil to head; z into the head, handle towards -y, as in SimNIBS", "mm")
        _put(file, "pose", numbers, "number of the pose in its study")
        kind = "voxel (x, y, z)" if columns.ndim == 2 else "element of the head"
        _put(file, "column", columns, f"{kind}, counted from 0, of each column of e_matrix")
        if points_m is not None:
            _put(file, "point", np.asarray(points_m, float) * 1e3, "where each column of e_matrix is", "mm")
        if tissue is not None:
            _put(file, "tissue", np.asarray(tissue, np.int16), "tissue tag of each column, as in SimNIBS")
        if affine is not None:
            _put(file, "affine", np.diag([1e3, 1e3, 1e3, 1.0]) @ np.asarray(affine), "voxel index to head", "mm")
        if trials is not None:
            _put_trials(file, trials)
        _put_rows(path, file, blocks, (len(matrices), len(columns)))


@contextmanager
def _hdf5_file(path, cache):
    """A new HDF5 file; that it cannot be closed whole is an OSError."""
    file = h5py.File(path, "w", rdcc_nbytes=cache)
    try:
        yield file
    finally:
        with _as_os_error():
            file.close()


@contextmanager
def _as_os_error():
    """What the system refuses (a full disk) reaches us from HDF5 as one of many errors."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise OSError(str(error)) from error


def _of_trials(path, numbers, trials):
    """Row, dI/dt, responses and muscles of the trials, checked against each other."""
    pose, didt = np.asarray(trials["pose"], np.int64), np.asarray(trials["didt"], float)
    response, muscles = np.asarray(trials["response"], float), [str(name) for name in trials["muscle"]]
    if pose.ndim != 1 or didt.shape != pose.shape or response.shape != (len(pose), len(muscles)):
        raise InputError(
            f"writing the matrix {path}: the trials have poses {pose.shape}, dI/dt {didt.shape} and responses "
            f"{response.shape} of {len(muscles)} muscles; give one pose, one dI/dt and one response of each muscle for "
            "each trial."
        )
    row_of = {int(number): row for row, number in enumerate(numbers)}
    rows = np.array([row_of.get(int(number), -1) for number in pose], np.int64)
    return {"row": rows, "didt": didt, "response": response, "muscle": muscles}


def _put_trials(file, trials):
    file.attrs["of_trials"] = _OF_TRIALS
    _put(file, "trial_row", trials["row"], "row of e_matrix of each trial's pose; -1: that pose is not in this file")
    _put(file, "trial_didt_a_per_us", trials["didt"] * 1e-6, "rate of change of the coil current of each trial", "A/us")
    _put(file, "response", trials["response"], "response of each trial and muscle, peak to peak", "V")
    muscles = np.array(trials["muscle"], dtype=object)
    _put(file, "muscle", muscles.astype(h5py.string_dtype()), "name of each column of response")


def _check_e_matrix(path, matrices, numbers, columns, of_columns):
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not np.isfinite(matrices).all():
        raise InputError(
            f"writing the matrix {path}: the poses make an array {matrices.shape}, or hold NaN; give at least one 4x4 "
            "matrix of finite numbers."
        )
    if numbers.shape != (len(matrices),):
        raise InputError(f"writing the matrix {path}: there are {numbers.shape} numbers for {len(matrices)} poses.")
    if not len(columns) or columns.shape[1:] not in ((), (3,)):
        raise InputError(
            f"writing the matrix {path}: columns are {columns.shape}; give at least one element's index (c,), or voxel "
            "indices (c, 3)."
        )
    for name, values in of_columns.items():
        shape = (len(columns), 3) if name == "point" else (len(columns),)
        if values is not None and np.shape(values) != shape:
            raise InputError(f"writing the matrix {path}: {name} is {np.shape(values)}; the columns need {shape}.")


def _put(file, name, values, meaning, units="1"):
    file[name] = values
    file[name].attrs.update({"long_name": meaning, "units": units})


def _put_rows(path, file, blocks, shape):
    """Append the blocks to ``e_matrix`` (and ``e_vector``) as they come."""
    at, vector = 0, None
    matrix = _dataset(file, "e_matrix", shape, "|E|")
    for block in blocks:
        block = np.asarray(block, dtype=np.float32)
        has_components = block.ndim == 3
        if at == 0 and has_components:
            vector = _dataset(file, "e_vector", (*shape, 3), "E along x, y and z of the head")
        expected = shape[1:] if vector is None else (shape[1], 3)
        if block.shape[1:] != expected or at + len(block) > shape[0]:
            raise InputError(
                f"writing the matrix {path}: rows {at} and on are {block.shape}, but {shape[0] - at} rows of {expected}"
                " values are left; give one row for each pose, and one value (or three) for each column."
            )
        bad = np.flatnonzero(~np.isfinite(block.reshape(len(block), -1)).all(1))
        if len(bad):
            raise InputError(
                f"writing the matrix {path}: row {at + bad[0]} holds NaN or infinity; leave that pose out."
            )
        with _as_os_error():
            matrix[at : at + len(block)] = np.linalg.norm(block, axis=2) if has_components else block
            if vector is not None:
                vector[at : at + len(block)] = block
        at += len(block)
    if at != shape[0]:
        raise InputError(f"writing the matrix {path}: {at} rows came for {shape[0]} poses; give one row for each pose.")


def _dataset(file, name, shape, meaning):
    across = _COLUMNS_PER_CHUNK if len(shape) == 2 else _COLUMNS_PER_CHUNK // 3
    chunks = (min(shape[0], _ROWS_PER_CHUNK), min(shape[1], across), *shape[2:])
    dataset = file.create_dataset(
        name, shape, "f4", chunks=chunks, compression="gzip", compression_opts=3, shuffle=True
    )
    dataset.attrs.update({"long_name": meaning, "units": "V/m", "rows": "poses", "columns": "see column"})
    return dataset
