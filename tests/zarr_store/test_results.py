import math

import numpy as np
import pytest
import xarray as xr
from motorsweep.errors import StoreError
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.result_variables import RESULT_VARIABLES
from motorsweep.zarr_store.results import collect, open_results
from motorsweep.zarr_store.runs import write_run
from motorsweep.zarr_store.schema import CELL_DIMS, CV_DIMS, Status
from motorsweep.zarr_store.study import Study


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_score_lands_in_its_labelled_cell(study, small):
    small.write_records(study, small.CELLS + small.BASELINES)
    results = collect(study, small.make_plan())
    assert results.nrmse.dims == CELL_DIMS
    for key in small.CELLS:
        cell = results.sel(dict(zip(CELL_DIMS, key)))
        record, arrays = small.cell_record(key), small.cell_arrays(key)
        assert cell.nrmse.item() == record["scores"]["nrmse"]
        assert cell.status.item() == Status.DONE
        assert str(cell.run_id.values) == content_id(record["spec"])
        assert math.isnan(cell.aicc.item()) and not cell.criteria_valid.item()
        np.testing.assert_array_equal(cell.prediction, arrays["prediction"])
        np.testing.assert_array_equal(cell.measured, arrays["measured"])
        np.testing.assert_array_equal(cell.test_trial, arrays["evaluate"])
        np.testing.assert_array_equal(cell.nrmse_muscle, arrays["nrmse_muscle"])
        np.testing.assert_array_equal(cell.response_range, arrays["response_range"])
        assert (cell.dropout_selected.item(), cell.l1_selected.item()) == (0.15, 1e-4)
    np.testing.assert_array_equal(
        results.synergy_basis[1], small.cell_arrays(("e_norm", 3, "synergy", 1))["synergy_basis"]
    )
    assert (results.n_parameters.sel(depth=3, connection="direct") == 140175).all()
    baseline = results.baseline_nrmse.sel(input="e_norm", repeat=1)
    assert baseline.sel(baseline="ridge") == 0.8
    assert np.isnan(baseline.sel(baseline="best_possible"))
    assert (results.baseline_status == Status.DONE).all()
    assert "fold" not in results.dims


def test_the_dataset_explains_itself(study, small):
    small.write_records(study, small.CELLS)
    results = collect(study, small.make_plan(attrs={"head_id": "0123456789abcdef"}))
    assert {"title", "Conventions", "source", "motorsweep_schema"} <= results.attrs.keys()
    assert results.attrs["head_id"] == "0123456789abcdef"
    for name, variable in results.variables.items():
        assert {"units", "long_name"} <= variable.attrs.keys(), name
    assert "sqrt(sum_j ||error_j||^2" in results.nrmse.attrs["comment"]
    assert "equation 10" in results.bic.attrs["comment"] and "criteria_valid" in results.aicc.attrs["comment"]
    assert results.response_minimum.attrs["units"] == "V"
    assert results.status.attrs["flag_meanings"] == "pending done failed"
    text = repr(results)
    assert "motorsweep results: muscle responses from TMS fields" in text
    assert list(results.data_vars) == list(RESULT_VARIABLES)  # in the order of the schema, not of the file system
    assert set(results.coords) == {*CELL_DIMS, "muscle", "baseline", "test", "synergy", "rank", "bound"}
    assert {results[name].dtype for name in ("input", "muscle", "run_id", "reason")} == {np.dtype(object)}
    frame = results.nrmse.sel(input="e_norm").mean("repeat").to_pandas()
    assert list(frame.columns) == ["direct", "synergy"] and list(frame.index) == [3, 6]
    assert results.where(results.status == Status.DONE, drop=True).sizes["depth"] == 2


def test_the_order_of_the_work_leaves_no_trace(tmp_path, small):
    keys = small.CELLS + small.BASELINES
    one, other = Study(tmp_path / "one"), Study(tmp_path / "other" / "deeper")
    small.write_records(one, keys)
    collect(one, small.make_plan())
    small.write_records(other, keys[::-1][:4])
    collect(other, small.make_plan())  # too early: most is pending
    small.write_records(other, keys[::-1][4:])
    stale = small.cell_record(("e_norm", 3, "direct", 0), dropout=0.9)  # of an older configuration
    write_run(other, content_id(stale["spec"]), stale, small.cell_arrays(("e_norm", 3, "direct", 0)))
    results = collect(other, small.make_plan())
    assert files_of(one.results) == files_of(other.results)
    collect(one, small.make_plan())
    assert files_of(one.results) == files_of(other.results)
    assert (results.status == Status.DONE).all()
    assert not any(other.making.iterdir())


def test_failed_and_pending_cells_are_there_and_say_so(study, small):
    failed, pending = small.CELLS[0], small.CELLS[1]
    small.write_records(study, [key for key in small.CELLS if key != pending], failed=[failed])
    plan = small.make_plan()
    results = collect(study, plan)
    cell = results.sel(dict(zip(CELL_DIMS, failed)))
    assert cell.status == Status.FAILED
    assert str(cell.reason.values) == "diverged: the loss is not finite"
    assert str(cell.run_id.values) == plan.runs[failed]
    assert np.isnan(cell.nrmse) and np.isnan(cell.prediction).all()
    cell = results.sel(dict(zip(CELL_DIMS, pending)))
    assert cell.status == Status.PENDING and np.isnan(cell.nrmse)
    assert not np.isnan(cell.measured).any()  # known from the other cells of the repeat
    assert (results.baseline_status == Status.PENDING).all()
    assert (results.status == Status.DONE).sum() == len(small.CELLS) - 2


def test_a_study_without_any_run_gives_an_empty_table(study, small):
    results = collect(study, small.make_plan(runs={}))
    assert (results.status == Status.PENDING).all()
    assert np.isnan(results.nrmse).all() and (results.n_parameters == 0).all()
    assert (results.sizes["test"], results.sizes["synergy"]) == (0, 0)
    xr.testing.assert_identical(results.load(), open_results(study.folder).load())


def test_the_cross_validation_has_axes_of_its_own(study, small):
    final = ("e_norm", 3, "direct", 0)
    runs = {}
    for fold in (0, 1):
        for dropout in (0.1, 0.2):
            record = small.cell_record(final, fold=fold, dropout=dropout)
            record["scores"] = {"nrmse": fold + dropout}
            runs[(*final, fold, dropout, 1e-4, "relu", "minmax")] = content_id(record["spec"])
            if (fold, dropout) != (1, 0.2):
                write_run(study, content_id(record["spec"]), record)
    axes = {"depths": (3,), "connections": ("direct",), "repeats": (0,)}
    grid = {"dropout": (0.1, 0.2), "l1": (1e-4,), "activation": ("relu",), "scaling": ("minmax",)}
    plan = small.make_plan(**axes, folds=(0, 1), grid=grid, runs={**runs, final: None})
    results = collect(study, plan)
    assert results.cv_nrmse.dims == CV_DIMS
    table = results.cv_nrmse.squeeze(["input", "depth", "connection", "repeat", "l1", "activation", "scaling"])
    np.testing.assert_array_equal(table, [[0.1, 0.2], [1.1, np.nan]])
    np.testing.assert_array_equal(results.cv_status.values.ravel(), [1, 1, 1, 0])
    assert results.status.item() == Status.PENDING and str(results.run_id.values.item()) == ""
    assert results.cv_run_id.sel(fold=1, dropout=0.2).values.item() == runs[(*final, 1, 0.2, 1e-4, "relu", "minmax")]


def test_a_smaller_test_set_of_one_repeat_is_padded(study, small):
    keys = [key for key in small.CELLS if key[1:3] == (3, "direct")]
    small.write_records(study, keys[:1])
    arrays = small.cell_arrays(keys[1])
    rows = ("evaluate", "measured", "prediction")
    record = small.cell_record(keys[1])
    write_run(study, content_id(record["spec"]), record, arrays | {name: arrays[name][:3] for name in rows})
    results = collect(study, small.make_plan())
    assert results.test_trial.sel(repeat=1)[-1] == -1
    assert np.isnan(results.measured.sel(repeat=1)[-1]).all()
    np.testing.assert_array_equal(results.measured.sel(repeat=1)[:3], arrays["measured"][:3])


def test_runs_that_were_tested_on_different_trials_are_not_compared(study, small):
    small.write_records(study, small.CELLS[:-1])
    key = small.CELLS[-1]
    arrays = small.cell_arrays(key)
    record = small.cell_record(key)
    run_id = content_id(record["spec"])
    write_run(study, run_id, record, arrays | {"evaluate": arrays["evaluate"] + 1})
    with pytest.raises(StoreError, match=f"collecting run {run_id}: its evaluate differs from that of another run"):
        collect(study, small.make_plan())
    write_run(study, run_id, record, arrays | {"nrmse_muscle": np.zeros(2)})
    with pytest.raises(StoreError, match=r"shape \(2,\) does not fit the cell of shape \(3,\)"):
        collect(study, small.make_plan())
    assert not study.results.exists()


def test_a_run_in_a_wrong_cell_is_noticed(study, small):
    small.write_records(study, small.CELLS)
    runs = small.make_plan().runs
    swapped = {**runs, small.CELLS[0]: runs[small.CELLS[1]]}
    with pytest.raises(StoreError, match=r"it is labelled {'repeat': 1}, its place in the results is"):
        collect(study, small.make_plan(runs=swapped))


def test_the_old_results_stay_when_new_ones_cannot_be_made(study, small):
    small.write_records(study, small.CELLS)
    collect(study, small.make_plan())
    before = files_of(study.results)
    run_id = small.make_plan().runs[small.CELLS[2]]
    study.record(run_id).write_text("torn")
    with pytest.raises(StoreError, match=f"{run_id}.*it is not a record"):
        collect(study, small.make_plan())
    assert files_of(study.results) == before


def test_plans_name_only_cells_that_exist(small):
    with pytest.raises(StoreError, match=r"\('e_norm', 9, 'direct', 0\) is no cell of the axes"):
        small.make_plan(runs={("e_norm", 9, "direct", 0): None})
    with pytest.raises(ValueError, match="a run id is 16 hexadecimal digits"):
        small.make_plan(runs={("e_norm", 3, "direct", 0): "../x"})


def test_no_results_yet(study):
    with pytest.raises(StoreError, match=r"`motorsweep collect STUDY.toml` makes it"):
        open_results(study)
