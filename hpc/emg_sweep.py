"""The runs of an eeg study: every network and every predictor beside it, for each split and fold, with its id.

A run's id is the hash of all that can change its numbers: the features, which records were left out, which records are
in each part, and how it learns. A split that the records do not allow (one subject cannot be left out of one) is not
made up: it is left out, and the reason is kept for the results. So are the networks, where there are too few EEG
channels for them.
"""

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..learn.emgnet import check_eeg_channels
from ..learn.matrix_training import EmgTraining
from ..learn.record_splits import record_splits
from ..zarr_store.ids import NUMERICS_VERSION, array_id, content_id, plain
from ..zarr_store.schema import Status
from .emg_names import CONTROLS, NETWORKS, NO_OPTIMIZER, PREDICTORS, TRUTH, TUNED
from .identity import training_seed

# What planted records asked for: the paper's rate of 0.01 is too much for values of a few hundredths.
_TUNED = {"scale": True, "learning_rate": 1e-3, "epochs": 50}
_SHUFFLE = 1  # second word of the seed by which pairs are shuffled, so that it is no training's own


@dataclass(frozen=True, kw_only=True)
class EmgRun:
    """One training of the study, or one predictor without a network.

    Parameters
    ----------
    kind : str
        ``"network"`` or ``"predictor"``.
    spec : dict
        What it depends on; ``id`` is its hash.
    model, optimizer : str
        Of `MODELS`; the optimizer is ``"none"`` for a predictor.
    split : RecordSplit
        Positions along the features' records.

    Examples
    --------
    >>> sweep.runs[0].name                                                        # doctest: +SKIP
    'network, adam, 80-20, fold 0'
    """

    kind: str
    spec: dict = field(repr=False)
    model: str
    optimizer: str
    split: object = field(repr=False)
    id: str = field(init=False)
    needs = ()

    def __post_init__(self):
        object.__setattr__(self, "id", content_id(self.spec))

    @property
    def cell(self):
        """Place in the results: (model, optimizer, split, fold)."""
        return self.model, self.optimizer, self.split.name, self.split.fold

    @property
    def labels(self):
        """Labels of the run's record."""
        return dict(zip(("model", "optimizer", "split", "fold"), self.cell))

    @property
    def name(self):
        """What messages call it."""
        words = [self.kind] + ([self.model] if self.model != self.kind else [])
        words += [self.optimizer] if self.optimizer != NO_OPTIMIZER else []
        return ", ".join([*words, self.split.name, f"fold {self.split.fold}"])


@dataclass(frozen=True, kw_only=True)
class EmgRecords:
    """What the runs of a study need to know of its features.

    Parameters
    ----------
    features_id : str
    names, subjects, conditions : tuple of str
        Of all records.
    done : tuple of bool
        Which records have features; the others are in no part of any split.
    n_eeg : int
        EEG channels.
    planted : bool
        Whether the expected Granger causality is known.
    """

    features_id: str
    names: tuple
    subjects: tuple
    conditions: tuple
    done: tuple
    n_eeg: int
    planted: bool

    @classmethod
    def of(cls, features):
        """Read them from an open features Dataset."""
        return cls(
            features_id=str(features.attrs["id"]),
            names=tuple(map(str, features["record"].values)),
            subjects=tuple(map(str, features["subject"].values)),
            conditions=tuple(map(str, features["condition"].values)),
            done=tuple(bool(each) for each in features["status"].values == int(Status.DONE)),
            n_eeg=features.sizes["eeg_i"],
            planted="emg_granger_expected" in features,
        )

    @property
    def left_out(self):
        """Names of the records without features."""
        return [name for name, done in zip(self.names, self.done) if not done]


class EmgSweep:
    """All runs of an eeg study.

    Parameters
    ----------
    config : StudyConfig
        Its ``seed``, ``network`` and ``validation`` count.
    records : EmgRecords

    Attributes
    ----------
    runs : list of EmgRun
    splits : dict of str to list of RecordSplit
        Those that the records allow, in the order of the study file.
    impossible : dict of str to str
        What the records do not allow, a kind of split or ``"network"``, and why.
    optimizers : tuple of str
        Of the networks; empty where the records do not allow any.

    Raises
    ------
    InputError
        If the records allow none of the splits.

    Examples
    --------
    >>> len(EmgSweep(config, EmgRecords.of(open_features(study))).runs)           # doctest: +SKIP
    187
    """

    def __init__(self, config, records):
        self._config, self._records = config, records
        self.splits, self.impossible = splits_of(config, records)
        if not self.splits:
            first = next(iter(self.impossible.values()))
            raise InputError(f"planning the trainings: the records allow none of the splits in [validation]. {first}")
        self.impossible |= _networks_impossible(records)
        self.optimizers = () if "network" in self.impossible else tuple(config.network.optimizers)
        self.runs = [run for splits in self.splits.values() for split in splits for run in self._of_fold(split)]

    def _of_fold(self, split):
        predictors = [name for name in PREDICTORS if name != TRUTH or self._records.planted]
        return [self._run(*each, split) for each in self._networks() + [(name, NO_OPTIMIZER) for name in predictors]]

    def _networks(self):
        if not self.optimizers:
            return []
        networks = [("network", optimizer) for optimizer in self.optimizers]
        networks += [(TUNED, self.optimizers[0])] if self._config.network.tuned else []
        return [*networks, ("network_shuffled", self.optimizers[0])]

    def _run(self, model, optimizer, split):
        kind = "network" if model in NETWORKS else "predictor"
        spec = {
            "kind": kind,
            "numerics": NUMERICS_VERSION,
            "model": model,
            "features": self._records.features_id,
            "left_out": self._records.left_out,
            "seed": training_seed(self._config.seed, split.fold),
            "split": split_spec(split),
        }
        if kind == "network":
            spec["training"] = plain(network_training(self._config, model, optimizer))
        if model in CONTROLS:
            spec["shuffle_seed"] = shuffle_seed(self._config.seed, split.fold)
        return EmgRun(kind=kind, spec=spec, model=model, optimizer=optimizer, split=split)


def splits_of(config, records):
    """Make the splits that a study file asks for.

    Parameters
    ----------
    config : StudyConfig
    records : EmgRecords

    Returns
    -------
    splits : dict of str to list of RecordSplit
    impossible : dict of str to str
        Why the records do not allow a kind of split.
    """
    validation, splits, impossible = config.validation, {}, {}
    rows = np.flatnonzero(records.done)
    for kind in validation.splits:
        try:
            found = record_splits(
                kind, records.subjects, config.seed, conditions=records.conditions, rows=rows,
                folds=validation.folds, repeats=validation.repeats,
            )  # fmt: skip
        except InputError as error:
            impossible[kind] = str(error)
        else:
            splits[kind] = found
    return splits, impossible


def _networks_impossible(records):
    """Why no network can be built for the records, under "network"; empty where one can."""
    try:
        check_eeg_channels(records.n_eeg)
    except InputError as error:
        return {"network": str(error)}
    return {}


def split_spec(split):
    """What a run's spec says of its split: the records of each part, by hash, whatever rule chose them."""
    parts = split.train, split.validation, split.test
    return {"kind": split.name, "fold": int(split.fold), "records": array_id(*(np.asarray(p, np.int64) for p in parts))}


def network_training(config, model, optimizer):
    """How the networks of a study are trained with one of its optimizers.

    Parameters
    ----------
    config : StudyConfig
    model, optimizer : str

    Returns
    -------
    EmgTraining
    """
    values = {key: value for key, value in vars(config.network).items() if key not in ("optimizers", "tuned")}
    return EmgTraining(optimizer=optimizer, **values | (_TUNED if model == TUNED else {}))


def shuffle_seed(seed, fold):
    """Seed by which the pairs of a control are shuffled: another one for each fold, and no training's own."""
    return int(np.random.SeedSequence([seed, fold, _SHUFFLE]).generate_state(1)[0])
