import numpy as np
import pytest
from motorsweep import open_features
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store.features import (
    FeatureAxes,
    create_features,
    missing_feature_rows,
    pending_feature_shards,
    read_feature_rows,
    read_feature_status,
    reset_features,
    verify_features,
    write_feature_shard,
)
from motorsweep.zarr_store.schema import Status
from motorsweep.zarr_store.shards import Problem

RECORDS = tuple((f"s{k // 3}-{k}", f"s{k // 3}", ("rest", "activity")[k % 2]) for k in range(10))
AXES = FeatureAxes(
    records=RECORDS,
    measures=("correlation", "granger"),
    bands={"alpha": (8.0, 13.0), "beta": (13.0, 30.0)},
    eeg_names=("C3", "Cz", "C4"),
    emg_names=("FDI", "APB"),
    expected=True,
)
SHAPES = {"eeg_connectivity": (2, 3, 3), "eeg_connectivity_band": (2, 2, 3, 3), "emg_granger": (2, 2)}
SHAPES["emg_granger_expected"] = (2, 2)


def make(study, axes=AXES, shard=4, **attrs):
    return create_features(study, axes, shard=shard, attrs={"features_id": "a", **attrs})


def of(record, name):
    """Every entry of every record in the tests has a value of its own."""
    shape = SHAPES[name]
    return (record * 1000 + np.arange(np.prod(shape)).reshape(shape)).astype(np.float32)


def rows(start, stop):
    return {name: np.stack([of(record, name) for record in range(start, stop)]) for name in SHAPES}


def write(study, start, stop, status=None, **more):
    status = [Status.DONE] * (stop - start) if status is None else status
    write_feature_shard(study, start, status, **{**rows(start, stop), **more})


def test_what_was_written_is_read_under_its_labels(study):
    made = make(study)
    assert pending_feature_shards(study) == [(0, 4), (4, 8), (8, 10)]
    write(study, 0, 4, seconds=[0.5] * 4, eeg_order=[7] * 4, notes=["two\nlines", "", "", ""])
    features = open_features(study.folder)
    assert features.attrs["id"] == made
    assert features.sizes == {
        "record": 10, "measure": 2, "band": 2, "eeg_i": 3, "eeg_j": 3, "emg_i": 2, "emg_j": 2,
    }  # fmt: skip
    cell = features.eeg_connectivity.sel(record="s0-1", measure="granger", eeg_i="C4", eeg_j="Cz")
    assert float(cell) == of(1, "eeg_connectivity")[1, 2, 1]
    band = features.eeg_connectivity_band.sel(record="s1-3", band="beta")
    np.testing.assert_array_equal(band, of(3, "eeg_connectivity_band")[:, 1])
    assert features.subject.values.tolist() == [subject for _, subject, _ in RECORDS]
    assert features.eeg_channel.values.tolist() == ["C3", "Cz", "C4"]
    assert (features.band_low_hz.values.tolist(), features.band_high_hz.values.tolist()) == ([8.0, 13.0], [13.0, 30.0])
    assert str(features["notes"].values[0]) == "two\nlines"
    assert (features["eeg_order"].values[:5] == [7, 7, 7, 7, -1]).all() and np.isnan(features["seconds"].values[5])
    assert np.isnan(features.emg_granger.sel(record="s1-5")).all()
    assert features.emg_granger.chunks is not None, "matrices are to be read when they are asked for"
    for name, variable in features.data_vars.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name


def test_rest_and_activity_are_told_apart_by_their_coordinate(study):
    make(study)
    for start, stop in pending_feature_shards(study):
        write(study, start, stop)
    means = open_features(study).emg_granger.groupby("condition").mean(("record", "emg_i", "emg_j"))
    assert float(means.sel(condition="rest")) == np.mean([of(k, "emg_granger").mean() for k in (0, 2, 4, 6, 8)])


def test_a_store_without_bands_and_truth_holds_neither(study):
    make(
        study, FeatureAxes(records=RECORDS, measures=("granger",), bands={}, eeg_names=("a", "b"), emg_names=("c", "d"))
    )
    features = open_features(study)
    assert "eeg_connectivity_band" not in features and "emg_granger_expected" not in features
    assert "band" not in features.dims


def test_failed_records_need_a_reason_and_keep_no_numbers(study):
    make(study)
    status = [Status.DONE, Status.FAILED, Status.DONE, Status.DONE]
    with pytest.raises(StoreError, match=r"records 0:4 .* a failed record \(row 1\) has no reason"):
        write(study, 0, 4, status)
    assert pending_feature_shards(study)[0] == (0, 4)
    write(study, 0, 4, status, reason=["", "bad_input: it is flat", "", ""])
    held = read_feature_rows(study, 0, 4, ("emg_granger", "reason"))
    assert np.isnan(held["emg_granger"][1]).all() and str(held["reason"][1]) == "bad_input: it is flat"
    assert pending_feature_shards(study) == [(4, 8), (8, 10)]
    assert pending_feature_shards(study, retry_failed=True)[0] == (0, 4)


def test_what_is_not_a_whole_shard_or_does_not_fit_is_refused(study):
    make(study)
    with pytest.raises(StoreError, match=r"not one whole shard of 4 records out of 10.*lose each other's features"):
        write(study, 0, 3)
    with pytest.raises(StoreError, match=r"emg_granger has the shape \(4, 3, 3\), the store takes \(4, 2, 2\)"):
        write(study, 0, 4, emg_granger=np.zeros((4, 3, 3)))
    with pytest.raises(StoreError, match=r"the store does not hold colour"):
        write(study, 0, 4, colour=[1] * 4)
    with pytest.raises(StoreError, match=r"the store holds emg_granger_expected"):
        write_feature_shard(study, 0, [1] * 4, **{k: v for k, v in rows(0, 4).items() if k != "emg_granger_expected"})
    wrong = rows(0, 4)["eeg_connectivity"]
    wrong[2, 0, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"eeg_connectivity of record 2 is marked done and is not finite"):
        write(study, 0, 4, eeg_connectivity=wrong)
    assert (read_feature_status(study) == int(Status.PENDING)).all()


def test_another_study_in_the_same_folder_is_refused_and_the_same_one_goes_on(study):
    made = make(study, cleaning={"ica": True})
    write(study, 0, 4)
    assert make(study, shard=2, cleaning={"ica": True}) == made
    assert pending_feature_shards(study) == [(4, 8), (8, 10)], "the shards are those that the store was made with"
    with pytest.raises(StoreError, match=r"cleaning.ica: True there, False now"):
        make(study, cleaning={"ica": False})
    with pytest.raises(StoreError, match=r"labels_id"):
        make(study, FeatureAxes(**vars(AXES) | {"records": RECORDS[:-1]}), cleaning={"ica": True})


def test_records_of_one_name_and_stores_of_nothing_are_refused(study):
    with pytest.raises(InputError, match=r"two records are called 's0-1'"):
        make(study, FeatureAxes(**vars(AXES) | {"records": (RECORDS[1], *RECORDS[:3])}))
    with pytest.raises(InputError, match=r"0 records, 2 measures"):
        make(study, FeatureAxes(**vars(AXES) | {"records": ()}))


@pytest.mark.parametrize(
    ("array", "damage"),
    [("eeg_connectivity", "cut"), ("eeg_connectivity", "flipped"), ("emg_granger", "gone"), ("notes", "cut"),
     ("status", "cut")],
)  # fmt: skip
def test_damage_is_found_and_set_to_pending(study, array, damage):
    make(study)
    for start, stop in pending_feature_shards(study):
        write(study, start, stop, notes=["a note"] * (stop - start))
    assert verify_features(study) == []
    folder = study.features / array / "c" / "1"
    file = next(path for path in [folder, *folder.rglob("*")] if path.is_file())
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    problems = verify_features(study, repair=True)
    assert [problem.number for problem in problems] == [4, 5, 6, 7]
    assert all(str(problem).startswith("record ") for problem in problems)
    assert pending_feature_shards(study) == [(4, 8)]
    write(study, 4, 8)
    assert verify_features(study) == [] and pending_feature_shards(study) == []
    np.testing.assert_array_equal(open_features(study)["emg_granger"].values, rows(0, 10)["emg_granger"])


def test_records_are_reset_by_number(study):
    make(study)
    for start, stop in pending_feature_shards(study):
        write(study, start, stop)
    reset_features(study, [5, 9])
    assert np.flatnonzero(read_feature_status(study) == int(Status.PENDING)).tolist() == [5, 9]
    assert pending_feature_shards(study) == [(4, 8), (8, 10)]


def test_missing_rows_are_those_of_a_record_that_is_not_done(study):
    make(study)
    missing = missing_feature_rows(study, 2)
    held = read_feature_rows(study, 0, 2)
    assert missing.keys() == held.keys() - {"status"}
    for name, values in missing.items():
        if values.dtype != object:
            np.testing.assert_array_equal(values, held[name])
            assert values.dtype == held[name].dtype
    assert str(Problem(number=3, found="gone", row="record")) == "record 3: gone"
