"""The runs of a study: every autoencoder, baseline and mapper training, with its id and what it needs.

Test table: for each repeat of the test split, each input, depth and connection, trained on the whole calibration set.
Cross-validation (where folds are asked for): the same within the calibration set, for each fold and each value of the
hyper-parameter grid; the values with the lowest mean validation NRMSE are those of the test table.
Learning curve (where sizes are asked for): the models with the grid's first values, trained on fewer trials of the
calibration set; what a cross-validation of all of them chooses would know more than those trials. Its codes are those
of the test table: fields without a response are cheap to have.
"""

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from ..errors import InputError
from ..learn.cells import Cell
from ..learn.splits import test_split
from ..zarr_store.ids import content_id
from ..zarr_store.runs import read_record
from .identity import autoencoder_spec, baseline_spec, mapper_spec, split_spec

_FEWEST_TRIALS = 3


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
    trials : int or None
        Labelled trials on the learning curve; None for all of them.
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
    trials: int | None = None
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
        words += [] if self.trials is None else [f"{self.trials} trials"]
        words += [self.spec["scaling"]] if self.spec.get("scaling", "minmax") != "minmax" else []
        cell = self.cell
        if cell is not None:
            words += [f"{cell.depth} layers", cell.connection]
            grid = [f"dropout {cell.dropout:g}", f"l1 {cell.l1:g}", cell.activation, cell.scaling]
            words += [] if self.fold is None else grid
        return ", ".join(words)

    @property
    def labels(self):
        """Labels of the run's record."""
        labels = {"input": self.input, "repeat": self.repeat, "fold": self.fold}
        labels |= {} if self.trials is None else {"trials": self.trials}
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
        self.grid = {
            "dropout": validation.dropout_grid or (mappers.dropout,),
            "l1": validation.l1_grid or (mappers.l1,),
            "activation": validation.activation_grid or (mappers.activation,),
            "scaling": validation.scaling_grid or (config.inputs.scaling,),
        }
        self.curve_trials = tuple(sorted(validation.curve_trials))
        self._per_fold = validation.autoencoder_per_fold
        folds = (*self.folds, None) if self._per_fold else (None,)
        self._autoencoder = {
            (kind, repeat, fold, scaling): Run(
                kind="autoencoder",
                spec=autoencoder_spec(config, trials_id, kind, scaling, repeat, fold),
                input=kind,
                repeat=repeat,
                fold=fold,
            )
            for repeat, fold, kind, scaling in product(self.repeats, folds, self.inputs, self.grid["scaling"])
        }
        self.autoencoders = list(self._autoencoder.values())
        self.baselines = [self._baseline(kind, repeat) for repeat, kind in product(self.repeats, self.inputs)]
        self.curve_baselines = [
            self._baseline(kind, repeat, count)
            for repeat, kind, count in product(self.repeats, self.inputs, self.curve_trials)
        ]
        axes = product(self.repeats, self.folds, self.inputs, self.depths, self.connections, self.configurations())
        self.validation = [self.mapper(kind, r, fold, *cell, chosen) for r, fold, kind, *cell, chosen in axes]

    def configurations(self):
        """The hyper-parameters that are tried, as tuples in the order of `grid`: first values first.

        With ``search = "axes"``, those that differ from the first values in one place at most.
        """
        everything = list(product(*self.grid.values()))
        if self._config.validation.search == "grid":
            return everything
        first = everything[0]
        return [values for values in everything if sum(a != b for a, b in zip(values, first)) <= 1]

    def _baseline(self, kind, repeat, trials=None):
        # The first scaling: which one is chosen follows from mappers, which these predictors need not wait for.
        below = self._autoencoder[kind, repeat, None, self.grid["scaling"][0]].id
        spec = baseline_spec(self._config, below, split_spec(self._config, repeat, None, trials))
        return Run(kind="baseline", spec=spec, input=kind, repeat=repeat, trials=trials, needs=(below,))

    def mapper(self, kind, repeat, fold, depth, connection, chosen, trials=None):
        """Run of one cell; that of ``both`` needs the synergy run with the same hyper-parameters."""
        cell = Cell(depth=depth, connection=connection, **dict(zip(self.grid, chosen)))
        below = self._autoencoder[kind, repeat, fold if self._per_fold else None, cell.scaling].id
        synergy = None
        if connection == "both":
            synergy = self.mapper(kind, repeat, fold, depth, "synergy", chosen, trials).id
        split = split_spec(self._config, repeat, fold, trials)
        return Run(
            kind="mapper",
            spec=mapper_spec(self._config, below, cell, synergy, split),
            input=kind,
            repeat=repeat,
            fold=fold,
            trials=trials,
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
            (input, depth, connection, repeat) to one of `configurations`, or to None while a fold is to be trained.
        """
        axes = product(self.inputs, self.depths, self.connections, self.repeats)
        return {cell: self._chosen(cell, score_of) for cell in axes}

    def _chosen(self, cell, score_of):
        kind, depth, connection, repeat = cell
        grid = self.configurations()
        if len(grid) == 1:
            return grid[0]
        runs = [[self.mapper(kind, repeat, fold, depth, connection, chosen) for fold in self.folds] for chosen in grid]
        scores = [[score_of(run.id) for run in folds] for folds in runs]
        if any(score is None for folds in scores for score in folds):
            return None
        scores = np.array(scores, float)
        told = np.isfinite(scores).any(axis=0)  # a fold that scores nobody (no response in it) tells nothing
        means = np.where(np.isfinite(scores[:, told]).all(axis=1), scores[:, told].mean(axis=1), np.inf)
        return grid[int(np.argmin(means))]

    def final(self, chosen):
        """Mapper runs of the test table whose hyper-parameters are chosen.

        Parameters
        ----------
        chosen : dict
            As `choose` gives it.

        Returns
        -------
        dict
            (input, depth, connection, repeat) to Run, or None where nothing is chosen yet.
        """
        return {
            (kind, depth, connection, repeat): values and self.mapper(kind, repeat, None, depth, connection, values)
            for (kind, depth, connection, repeat), values in chosen.items()
        }

    def curve(self):
        """Mapper runs of the learning curve: (input, depth, connection, repeat, trials) to Run."""
        first = self.configurations()[0]
        axes = product(self.inputs, self.depths, self.connections, self.repeats, self.curve_trials)
        return {
            (kind, depth, connection, repeat, count): self.mapper(kind, repeat, None, depth, connection, first, count)
            for kind, depth, connection, repeat, count in axes
        }

    def below(self, runs):
        """Mapper runs that `runs` need and that are not among them (synergy runs of ``both``)."""
        have = {run.id for run in runs}
        extra = {}
        for run in runs:
            if run.cell is not None and run.cell.connection == "both":
                chosen = tuple(getattr(run.cell, name) for name in self.grid)
                synergy = self.mapper(run.input, run.repeat, run.fold, run.cell.depth, "synergy", chosen, run.trials)
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
        None while the run is to be done; NaN if it failed, or if its trials have no response to measure errors by.
    """
    record = read_record(study, run_id)
    if record is None:
        return None
    score = record["scores"].get("nrmse") if record["status"] == "done" else None
    return float("nan") if score is None else score


def check_trials(config, intensity):
    """Refuse a study whose trials are too few for its folds, learning curve or synergies, before any is trained.

    Parameters
    ----------
    config : StudyConfig
    intensity : ndarray (t,)
        Of each trial; the test set is drawn from each intensity.

    Raises
    ------
    InputError
        With the key of the study file to change.
    """
    validation = config.validation
    sizes = [len(test_split(intensity, r, validation.test_fraction, config.seed)[0]) for r in range(validation.repeats)]
    calibration = min(sizes)
    training = calibration - -(-calibration // validation.folds) if validation.folds else calibration
    uses_synergies = {"synergy", "both"} & set(config.mappers.connections)
    smallest = min([training, *validation.curve_trials])
    fewest = max(_FEWEST_TRIALS, config.mappers.synergies if uses_synergies else 0)
    there = f"{len(intensity)} trials leave {calibration} to train on"
    if validation.folds > calibration:
        raise _too_few(f"[validation] folds is {validation.folds}", there, "each fold holds at least one trial")
    if max(validation.curve_trials, default=0) > calibration:
        largest = max(validation.curve_trials)
        raise _too_few(f"[validation] curve_trials asks for {largest}", there, "the curve takes a subset of them")
    if smallest < fewest:
        held = f"a training would see {smallest} trials"
        why = "a factorisation needs as many" if uses_synergies else "a predictor needs as many"
        asked = (
            f"[mappers] synergies is {fewest}" if fewest > _FEWEST_TRIALS else f"at least {fewest} trials are needed"
        )
        raise _too_few(asked, held, why, "in each fold and on each point of [validation] curve_trials")


def _too_few(asked, there, why, where=""):
    return InputError(
        f"planning the trainings: {asked}, and {there}; {why}{f', {where}' if where else ''}. Lower the one, or give "
        "more trials."
    )
