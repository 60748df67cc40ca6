"""Codes: the small volumes into which an autoencoder turns the field of every trial; one group per autoencoder run."""

import numpy as np
import xarray as xr
import zarr

from ..errors import InputError, StoreError
from .atomic import disk_errors, folder_in_the_making
from .datasets import consolidate, open_dataset
from .ids import plain
from .schema import CODE_DIMS, global_attrs
from .study import Study, checked_run_id

_TRIALS_PER_CHUNK = 256  # 4 MiB of 16^3 float32


def write_codes(study, run_id: str, codes, attrs=None) -> None:
    """Write the codes of one autoencoder run; they appear whole or not at all.

    Writers of different runs never touch the same file. A second writer of the same run
    leaves the codes of the first, which are the same.

    Parameters
    ----------
    study : Study or path-like
    run_id : str
        Of the autoencoder.
    codes : ndarray (trial, 16, 16, 16) float32
        Or any other size of cube.
    attrs : mapping, optional
        Plain values: what they were made from (ids, input, scaling).

    Raises
    ------
    InputError
        For another shape, or codes that are not finite.
    StoreError
        Where the disk refuses.

    Examples
    --------
    >>> write_codes("studies/quick", "0123456789abcdef", codes, {"input": "e_norm"})        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    codes = np.asarray(codes, dtype=np.float32)
    what = f"writing the codes of run {checked_run_id(run_id)}"
    if codes.ndim != 4 or not np.isfinite(codes).all():
        found = f"shape {codes.shape}" if codes.ndim != 4 else "values that are not finite"
        raise InputError(
            f"{what}: found {found}; a mapper needs finite (trial, x, y, z). Look at the training loss of the run"
        )
    known = global_attrs("motorsweep codes") | {"run_id": run_id, **plain(dict(attrs or {}), "attrs")}
    target = study.codes / run_id
    with disk_errors(what, target), folder_in_the_making(study.making, target, replace=False) as beside:
        _write_group(beside, codes, known)


def _write_group(path, codes, attrs):
    group = zarr.create_group(str(path), zarr_format=3, attributes=attrs)
    chunks = (min(_TRIALS_PER_CHUNK, max(1, len(codes))), *codes.shape[1:])
    text = {"long_name": "code of the trial's volume", "units": "1"}
    group.create_array("codes", shape=codes.shape, dtype="float32", chunks=chunks, fill_value=np.nan,
                       dimension_names=CODE_DIMS, attributes=text)[...] = codes  # fmt: skip
    consolidate(path, ["codes"])


def has_codes(study, run_id: str) -> bool:
    """Tell whether the codes of an autoencoder run are there (and whole, since they appear at once).

    Examples
    --------
    >>> has_codes("studies/nowhere", "0123456789abcdef")
    False
    """
    study = study if isinstance(study, Study) else Study(study)
    return (study.codes / checked_run_id(run_id) / "zarr.json").is_file()


def open_codes(study, run_id: str) -> xr.DataArray:
    """Open the codes of one run with their labels and attributes; values are read when used.

    Raises
    ------
    StoreError
        Where there are none.
    """
    study = study if isinstance(study, Study) else Study(study)
    dataset = open_dataset(study.codes / checked_run_id(run_id), "encode")
    return dataset.codes.assign_attrs({**dataset.codes.attrs, **dataset.attrs})


def read_codes(study, run_id: str) -> np.ndarray:
    """Read the codes of one run: ndarray (trial, 16, 16, 16) float32.

    Raises
    ------
    StoreError
        Where there are none, or a file of them is damaged.

    Examples
    --------
    >>> read_codes("studies/quick", "0123456789abcdef").dtype        # doctest: +SKIP
    dtype('float32')
    """
    codes = open_codes(study, run_id)
    try:
        values = codes.values
    except Exception as error:
        raise StoreError(_damaged(run_id, f"{type(error).__name__}: {error}")) from error
    if not np.isfinite(values).all():  # a lost chunk reads as NaN
        raise StoreError(_damaged(run_id, "part of them is missing"))
    return values


def _damaged(run_id, found):
    return (
        f"reading the codes of run {run_id}: {found}; training on them would mean nothing. Run "
        "`motorsweep verify STUDY.toml --repair`, then `motorsweep run STUDY.toml`"
    )
