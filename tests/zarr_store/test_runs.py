import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.runs import list_records, read_arrays, read_record, run_state, write_failure, write_run
from motorsweep.zarr_store.schema import Status

SPEC = {"depth": 3, "connection": "direct", "training": {"l1": 1e-4, "epochs": 150}}
RUN = content_id(SPEC)
RECORD = {"kind": "mapper", "spec": SPEC, "labels": {"repeat": 0}, "scores": {"nrmse": 0.5}, "loss": [1.0, 0.5]}


def test_a_run_comes_back_as_it_was(study):
    assert run_state(study, RUN) is Status.PENDING
    assert read_record(study, RUN) is None
    arrays = {"prediction": np.random.default_rng(0).normal(size=(4, 3)), "evaluate": np.arange(4)}
    write_run(study, RUN, RECORD, arrays)
    assert run_state(study, RUN) is Status.DONE
    assert read_record(study, RUN) == {**RECORD, "status": "done", "reason": ""}
    found = read_arrays(study.folder, RUN)
    assert found.keys() == arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(found[name], arrays[name])
        assert found[name].dtype == arrays[name].dtype
    assert sorted(path.name for path in study.run(RUN).iterdir()) == ["arrays.npz", "record.json"]


def test_numbers_that_json_lacks_become_null(study):
    write_run(study, RUN, {**RECORD, "scores": {"aicc": float("nan"), "nrmse": np.float32(0.5)}, "loss": (np.inf, 1)})
    record = read_record(study, RUN)
    assert record["scores"] == {"aicc": None, "nrmse": 0.5}
    assert record["loss"] == [None, 1]
    with pytest.raises(StoreError, match="nan is not a finite number"):
        write_run(study, RUN, {**RECORD, "spec": {"l1": float("nan")}})


def test_a_failure_has_a_reason_and_never_hides_a_success(study):
    with pytest.raises(InputError, match=f"the failure of run {RUN}: it has no reason"):
        write_failure(study, RUN, RECORD)
    write_failure(study, RUN, {**RECORD, "reason": "diverged"})
    assert run_state(study, RUN) is Status.FAILED
    assert read_record(study, RUN)["reason"] == "diverged"
    write_run(study, RUN, RECORD)
    write_failure(study, RUN, {**RECORD, "reason": "a second worker ran out of memory"})
    assert run_state(study, RUN) is Status.DONE


def test_a_run_is_not_done_without_its_arrays(study):
    write_run(study, RUN, RECORD, {})
    assert read_arrays(study, RUN) == {}
    study.arrays(RUN).unlink()
    assert run_state(study, RUN) is Status.PENDING


def test_a_spec_that_was_changed_or_copied_is_noticed(study):
    write_run(study, RUN, RECORD)
    path = study.record(RUN)
    path.write_text(path.read_text().replace("150", "151"))
    with pytest.raises(StoreError, match=rf"its spec has the id [0-9a-f]{{16}}, not {RUN}: .*Remove the folder"):
        read_record(study, RUN)
    with pytest.raises(StoreError, match="the spec has the id"):
        write_run(study, "0" * 16, RECORD)
    write_run(study, RUN, RECORD)
    shutil.copytree(study.run(RUN), study.run("0" * 16))
    with pytest.raises(StoreError, match="changed or copied"):
        list_records(study)


@pytest.mark.parametrize("text", ["", '{"kind": "mapper"', "[]", '{"spec": {}}', "null"])
def test_a_damaged_record_is_named_with_the_remedy(study, text):
    run_id = content_id({})
    study.run(run_id).mkdir(parents=True)
    study.record(run_id).write_text(text)
    with pytest.raises(StoreError, match=r"record.json: it .* run the same command again: only this run"):
        run_state(study, run_id)


def test_records_need_what_finds_them_again(study):
    with pytest.raises(InputError, match="the record has no spec"):
        write_run(study, RUN, {"kind": "mapper", "labels": {}})
    with pytest.raises(InputError, match=r"the record has kind 'mappr'.*autoencoder, mapper, baseline"):
        write_run(study, RUN, {**RECORD, "kind": "mappr"})


def test_records_are_listed_by_id(study):
    specs = [{"seed": seed} for seed in range(5)]
    for spec in specs:
        write_run(study, content_id(spec), {**RECORD, "spec": spec})
    listed = list_records(study)
    assert [run_id for run_id, _ in listed] == sorted(map(content_id, specs))
    assert all(record["spec"] in specs for _, record in listed)


class Bomb:
    def __reduce__(self):
        return (os.system, ("echo boom > boom.txt",))


def test_arrays_from_a_stranger_run_no_code(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="prediction would be stored as pickles"):
        write_run(study, RUN, RECORD, {"prediction": np.array([Bomb()], dtype=object)})
    write_run(study, RUN, RECORD)
    np.savez(study.arrays(RUN), prediction=np.array([Bomb()], dtype=object))  # as a stranger may have made it
    with pytest.raises(StoreError, match=r"arrays.npz: it cannot be read"):
        read_arrays(study, RUN)
    study.arrays(RUN).write_bytes(b"\x80\x04torn")
    with pytest.raises(StoreError, match="it cannot be read"):
        read_arrays(study, RUN)
    assert not (tmp_path / "boom.txt").exists()


WRITE_RUNS = """
import sys
import numpy as np
from motorsweep.zarr_store.ids import content_id
from motorsweep.zarr_store.runs import write_run
for seed in range(10000):
    spec = {"seed": seed}
    write_run(sys.argv[1], content_id(spec), {"kind": "mapper", "spec": spec, "labels": {}, "loss": [0.5] * 5000},
              {"prediction": np.full(20000, seed)})
    print(seed, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_a_kill_leaves_whole_records_only(study, small):
    writer = small.run_python(WRITE_RUNS, study.folder)
    while writer.stdout.readline().strip() != "20":
        pass
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    listed = list_records(study)
    assert len(listed) >= 20
    for run_id, record in listed:
        assert run_state(study, run_id) is Status.DONE
        np.testing.assert_array_equal(read_arrays(study, run_id)["prediction"], np.full(20000, record["spec"]["seed"]))


def test_a_record_is_readable_text(study):
    write_run(study, RUN, RECORD)
    text = study.record(RUN).read_text()
    assert json.loads(text)["spec"] == SPEC
    assert list(json.loads(text))[:2] == ["kind", "spec"]
    assert text.endswith("}\n")
