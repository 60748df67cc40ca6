from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.hpc.encode import SplitConfig, split_of
from motorsweep.hpc.sweep import Sweep, check_trials
from motorsweep.jobs.config import parse_study
from motorsweep.zarr_store.ids import ID_LENGTH

PAPER = np.repeat([110.0, 120.0, 130.0, 140.0], [300, 149, 150, 100])


def study(**validation):
    config = parse_study('name = "a"')
    return replace(config, validation=replace(config.validation, **validation))


def test_the_paper_has_twelve_models_in_each_of_three_repeats():
    sweep = Sweep(study(), "t")
    final = sweep.final(sweep.choose(lambda run_id: None))
    assert len(final) == 36 and len({run.id for run in final.values()}) == 36
    assert {len(run.id) for run in final.values()} == {ID_LENGTH}
    assert len(sweep.autoencoders) == 6 and len(sweep.baselines) == 6 and not sweep.validation


def test_grid_and_axes():
    grids = {"dropout_grid": (0.1, 0.2), "l1_grid": (0.0, 1e-4, 1e-3), "activation_grid": ("relu", "elu"),
             "scaling_grid": ("minmax", "standard")}  # fmt: skip
    whole, axes = (Sweep(study(folds=3, search=search, **grids), "t").configurations() for search in ("grid", "axes"))
    assert len(whole) == 24 and len(set(whole)) == 24
    assert len(axes) == 1 + 1 + 2 + 1 + 1 and set(axes) < set(whole)
    assert axes[0] == whole[0] == (0.1, 0.0, "relu", "minmax")


def test_every_configuration_is_tried_on_the_same_folds_and_the_lowest_mean_is_chosen():
    sweep = Sweep(study(folds=4, repeats=1, dropout_grid=(0.0, 0.5), scaling_grid=("minmax", "standard")), "t")
    per_cell = {}
    for run in sweep.validation:
        per_cell.setdefault((run.input, run.cell.depth, run.cell.connection), []).append(run)
    assert len(per_cell) == 12
    for runs in per_cell.values():
        folds = {}
        for run in runs:
            folds.setdefault((run.cell.dropout, run.cell.scaling), set()).add(run.fold)
        assert len(folds) == 4 and all(each == {0, 1, 2, 3} for each in folds.values())
    by_id = {run.id: run for run in sweep.validation}

    def score(run_id):  # a fold of one configuration is lucky; its mean is not
        cell = by_id[run_id].cell
        lucky = cell.dropout == 0.0 and by_id[run_id].fold == 0
        return 0.0 if lucky else 0.5 + 0.1 * (cell.dropout == 0.0) + 0.2 * (cell.scaling == "minmax")

    chosen = sweep.choose(score)
    assert set(chosen.values()) == {(0.0, 1e-4, "relu", "standard")}, "0 in one of four folds: the mean is 0.45"
    final = sweep.final(chosen)
    standard = {run.id for run in sweep.autoencoders if run.spec["scaling"] == "standard" and run.fold is None}
    assert {run.needs[0] for run in final.values()} == standard
    assert sweep.choose(lambda run_id: None if by_id[run_id].fold == 3 else 1.0)["e_norm", 3, "direct", 0] is None
    failed = sweep.choose(lambda run_id: np.nan if by_id[run_id].cell.dropout == 0.0 else 1.0)
    assert {values[0] for values in failed.values()} == {0.5}


def test_folds_share_the_autoencoder_of_the_calibration_set_where_asked_for():
    own, shared = (Sweep(study(folds=10, autoencoder_per_fold=each), "t") for each in (True, False))
    assert len(own.autoencoders) == 3 * 11 * 2 and len(shared.autoencoders) == 3 * 2
    assert len({run.id for run in shared.validation}) == len(shared.validation) == len(own.validation)
    below = {run.id: run for run in shared.autoencoders}
    assert all(below[run.needs[0]].fold is None for run in shared.validation)


def test_a_learning_curve_has_runs_and_ids_of_its_own_on_nested_subsets():
    sweep = Sweep(study(curve_trials=(100, 50)), "t")
    chosen = sweep.choose(lambda run_id: None)
    curve = sweep.curve()
    assert sweep.curve_trials == (50, 100)
    everything = [run.id for run in (*sweep.final(chosen).values(), *curve.values())]
    assert len(set(everything)) == 3 * 36
    both = curve["e_norm", 3, "both", 1, 50]
    assert both.needs[1] == curve["e_norm", 3, "synergy", 1, 50].id
    assert both.needs[0] == sweep.final(chosen)["e_norm", 3, "both", 1].needs[0], "the codes are the same"
    split = SplitConfig(test_fraction=0.1, folds=0, seed=1)
    rows = [split_of(each, split, PAPER) for each in (both, curve["e_norm", 3, "both", 1, 100], sweep.baselines[2])]
    assert [len(train) for train, _ in rows] == [50, 100, 629]
    assert set(rows[0][0]) < set(rows[1][0]) < set(rows[2][0])
    assert all(np.array_equal(test, rows[0][1]) for _, test in rows)
    assert len(sweep.curve_baselines) == 3 * 2 * 2
    assert "50 trials" in both.name and both.labels["trials"] == 50


def test_the_protocol_and_each_choice_changes_the_ids():
    base = parse_study('name = "a"')
    others = [
        replace(base, protocol="released"),
        replace(base, mappers=replace(base.mappers, activation="elu")),
        replace(base, inputs=replace(base.inputs, scaling="standard")),
    ]
    ids = [
        {run.id for run in Sweep(c, "t").final(Sweep(c, "t").choose(lambda _: None)).values()} for c in (base, *others)
    ]
    assert len(set.union(*ids)) == 4 * 36
    batch = replace(base, mappers=replace(base.mappers, batch=32))
    assert {run.id for run in Sweep(batch, "t").baselines} == {run.id for run in Sweep(base, "t").baselines}
    assert (
        Sweep(batch, "t").final({("e_norm", 3, "direct", 0): (0.15, 1e-4, "relu", "minmax")}).popitem()[1].id in ids[0]
    )


@pytest.mark.parametrize(
    ("validation", "each", "told"),
    [
        ({"folds": 10}, [10], r"\[validation\] folds is 10, and 10 trials leave 9 to train on"),
        ({"curve_trials": (50, 629)}, [660], r"\[validation\] curve_trials asks for 629, and 660 trials leave 594"),
        # a test set takes its share of each intensity: 2 of 15, not 1.5
        ({"curve_trials": (54,)}, [15] * 4, r"curve_trials asks for 54, and 60 trials leave 52"),
        ({}, [9], r"\[mappers\] synergies is 9, and a training would see 8 trials"),
        ({"curve_trials": (5, 40)}, [60], r"synergies is 9, and a training would see 5 trials.*curve_trials"),
    ],
)
def test_too_few_trials_name_the_key(validation, each, told):
    intensity = np.repeat([110.0, 120.0, 130.0, 140.0][: len(each)], each)
    with pytest.raises(InputError, match=told):
        check_trials(study(**validation), intensity)
    check_trials(study(**{**validation, "curve_trials": ()}), PAPER)


def test_without_synergies_fewer_trials_do():
    config = study(curve_trials=(3,))
    direct = replace(config, mappers=replace(config.mappers, connections=("direct",)))
    check_trials(direct, np.full(5, 110.0))
    with pytest.raises(InputError, match="at least 3 trials are needed, and a training would see 2"):
        check_trials(replace(direct, validation=replace(direct.validation, curve_trials=(2,))), np.full(5, 110.0))


def test_a_fold_that_scores_nobody_tells_nothing_and_a_lost_training_loses():
    sweep = Sweep(study(folds=3, repeats=1, dropout_grid=(0.0, 0.2, 0.5)), "t")
    by_id = {run.id: run for run in sweep.validation}

    def score(run_id):
        run = by_id[run_id]
        if run.fold == 1 or (run.fold == 2 and run.cell.dropout == 0.0):
            return np.nan
        return 1.0 - run.cell.dropout

    assert {values[0] for values in sweep.choose(score).values()} == {0.5}


def test_each_repeat_has_a_start_of_its_own_shared_by_all_models():
    sweep = Sweep(study(folds=2), "t")
    runs = [*sweep.autoencoders, *sweep.validation, *sweep.final(sweep.choose(lambda _: 1.0)).values()]
    seeds = {}
    for run in runs:
        seeds.setdefault(run.repeat, set()).add(run.spec["training_seed"])
    assert [len(each) for each in seeds.values()] == [1, 1, 1] and len(set.union(*seeds.values())) == 3
