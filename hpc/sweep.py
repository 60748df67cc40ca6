"""The runs of a study: every autoencoder, baseline and mapper training, with its id and what it needs.

Test table: for each repeat of the test split, each input, depth and connection, trained on the whole calibration set.
Cross-validation (where folds are asked for): the same within the calibration set, for each fold and each value of the
hyper-parameter grid; the values with the lowest mean validation NRMSE are those of the test table.
"""

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from ..learn.cells import Cell
from ..zarr_store.ids import content_id
from ..zarr_store.runs import read_record
from .identity import autoencoder_spec, baseline_spec, mapper_spec


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Parameters
    ----------
    kind : str
        ``"autoencoder"``, ``"baseline"`` or ``"mapper"``.
    spec : dict
        What it depends on; ``id`` is its hash.
    input : str
        ``"e_norm"`` or ``"firing_rate"``.
    repeat : int
    fold : int or None
        None for the test table.
    needs : tuple of str
        Ids of the runs that must be done before: the autoencoder, and the synergy run of ``both``.
    cell : Cell or None
        Of a mapper.

    Examples
    --------
    >>> sweep.autoencoders[0].id                                                  # doctest: +SKIP
    '0f3c9b1f6d1c2a77'
    """

    kind: str
    spec: dict = field(repr=False)
    input: str
    repeat: int
    fold: int | None = None
    needs: tuple[str, ...] = ()
    cell: Cell | None = None
    id: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "id", content_id(self.spec))

    @property
    def name(self):
        """What messages call it."""
        words = [self.kind, self.input, f"repeat {self.repeat}"]
        words += [] if self.fold is None else [f"fold {self.fold}"]
        if self.cell is not None:
            words += [f"{self.cell.depth} layers", self.cell.connection]
            words += [] if self.fold is None else [f"dropout {self.cell.dropout:g}", f"l1 {self.cell.l1:g}"]
        return ", ".join(words)

    @property
    def labels(self):
        """Labels of the run's record."""
        labels = {"input": self.input, "repeat": self.repeat, "fold": self.fold}
        return labels | (vars(self.cell) if self.cell is not None else {})


class Sweep:
    """All runs of a study.

    Parameters
    ----------
    config : StudyConfig
    trials_id : str

    Attributes
    ----------
    autoencoders, baselines : list of Run
    validation : list of Run
        Mappers of the cross-validation; empty without folds.

    Examples
    --------
    >>> sweep = Sweep(config, trials_id)                                          # doctest: +SKIP
    >>> len(sweep.final(sweep.choose(score_of)))                                  # doctest: +SKIP
    """

    def __init__(self, config, trials_id):
        self._config, validation, mappers = config, config.validation, config.mappers
        self.repeats = range(validation.repeats)
        self.folds = range(validation.folds)
        self.inputs, self.depths, self.connections = config.inputs.kinds, mappers.depths, mappers.connections
        self.dropouts = validation.dropout_grid or (mappers.dropout,)
        self.l1s = validation.l1_grid or (mappers.l1,)
        self._autoencoder = {
            (kind, repeat, fold): Run(
                kind="autoencoder",
                spec=autoencoder_spec(config, trials_id, kind, repeat, fold),
                input=kind,
                repeat=repeat,
                fold=fold,
            )
            for repeat, fold, kind in product(self.repeats, (*self.folds, None), self.inputs)
        }
        self.autoencoders = list(self._autoencoder.values())
        self.baselines = [self._baseline(kind, repeat) for repeat, kind in product(self.repeats, self.inputs)]
        grid = product(self.repeats, self.folds, self.inputs, self.depths, self.connections, self.dropouts, self.l1s)
        self.validation = [self.mapper(kind, r, fold, *cell) for r, fold, kind, *cell in grid]

    def _baseline(self, kind, repeat):
        below = self._autoencoder[kind, repeat, None].id
        spec = baseline_spec(self._config, below)
        return Run(kind="baseline", spec=spec, input=kind, repeat=repeat, needs=(below,))

    def mapper(self, kind, repeat, fold, depth, connection, dropout, l1):
        """Run of one cell; that of ``both`` needs the synergy run with the same hyper-parameters."""
        below = self._autoencoder[kind, repeat, fold].id
        cell = Cell(depth=depth, connection=connection, dropout=dropout, l1=l1)
        synergy = self.mapper(kind, repeat, fold, depth, "synergy", dropout, l1).id if connection == "both" else None
        return Run(
            kind="mapper",
            spec=mapper_spec(self._config, below, cell, synergy),
            input=kind,
            repeat=repeat,
            fold=fold,
            needs=(below,) + ((synergy,) if synergy else ()),
            cell=cell,
        )

    def choose(self, score_of):
        """Hyper-parameters of the test table.

        Parameters
        ----------
        score_of : callable
            Run id to validation NRMSE, or None where the run is not done (or failed for good: NaN).

        Returns
        -------
        dict
            (input, depth, connection, repeat) to (dropout, l1), or to None while a fold is still to be trained.
        """
        axes = product(self.inputs, self.depths, self.connections, self.repeats)
        return {cell: self._chosen(cell, score_of) for cell in axes}

    def _chosen(self, cell, score_of):
        kind, depth, connection, repeat = cell
        grid = list(product(self.dropouts, self.l1s))
        if len(grid) == 1:
            return grid[0]
        means = []
        for dropout, l1 in grid:
            runs = [self.mapper(kind, repeat, fold, depth, connection, dropout, l1) for fold in self.folds]
            scores = [score_of(run.id) for run in runs]
            if any(score is None for score in scores):
                return None
            means.append(np.inf if np.isnan(scores).any() else np.mean(scores))
        return grid[int(np.argmin(means))]

    def final(self, chosen):
        """Mapper runs of the test table whose hyper-parameters are chosen, with the synergy runs below them.

        Parameters
        ----------
        chosen : dict
            As `choose` gives it.

        Returns
        -------
        dict
            (input, depth, connection, repeat) to Run, or None where nothing is chosen yet.
        """
        runs = {}
        for (kind, depth, connection, repeat), values in chosen.items():
            run = None if values is None else self.mapper(kind, repeat, None, depth, connection, *values)
            runs[kind, depth, connection, repeat] = run
        return runs

    def below(self, runs):
        """Mapper runs that `runs` need and that are not among them (synergy runs of ``both``)."""
        have = {run.id for run in runs}
        extra = {}
        for run in runs:
            if run.cell is not None and run.cell.connection == "both":
                cell = run.cell
                synergy = self.mapper(run.input, run.repeat, run.fold, cell.depth, "synergy", cell.dropout, cell.l1)
                if synergy.id not in have:
                    extra[synergy.id] = synergy
        return list(extra.values())


def validation_score(study, run_id):
    """NRMSE of a run on the trials that it was evaluated on, for `Sweep.choose`.

    Parameters
    ----------
    study : Study
    run_id : str

    Returns
    -------
    float or None
        None while the run is to be done, NaN if it failed.
    """
    record = read_record(study, run_id)
    if record is None:
        return None
    return record["scores"]["nrmse"] if record["status"] == "done" else float("nan")
