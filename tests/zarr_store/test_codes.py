import numpy as np
import pytest
from motorsweep.errors import InputError, StoreError
from motorsweep.zarr_store.codes import has_codes, open_codes, read_codes, write_codes

RUN, OTHER = "0123456789abcdef", "fedcba9876543210"


def codes_of(seed, trials=5):
    return np.random.default_rng(seed).normal(size=(trials, 4, 4, 4)).astype(np.float32)


def test_codes_are_found_by_their_run(study):
    assert not has_codes(study, RUN)
    write_codes(study, RUN, codes_of(1), {"input": "e_norm", "volumes_id": "aa"})
    write_codes(study.folder, OTHER, codes_of(2, trials=600))  # several chunks
    assert has_codes(study, RUN)
    np.testing.assert_array_equal(read_codes(study, RUN), codes_of(1))
    np.testing.assert_array_equal(read_codes(study, OTHER), codes_of(2, trials=600))
    labelled = open_codes(study, RUN)
    assert labelled.dims == ("trial", "code_x", "code_y", "code_z")
    assert labelled.attrs["input"] == "e_norm"
    assert labelled.attrs["run_id"] == RUN
    assert list(study.making.iterdir()) == []


def test_no_codes_yet(study):
    with pytest.raises(StoreError, match=r"`motorsweep encode STUDY.toml` makes it"):
        read_codes(study, RUN)
    with pytest.raises(InputError, match="16 hexadecimal digits"):
        has_codes(study, "../volumes.zarr")


@pytest.mark.parametrize(
    ("codes", "found"), [(np.zeros((2, 4, 4)), "shape"), (np.full((2, 4, 4, 4), np.nan), "values that are not finite")]
)
def test_codes_of_a_diverged_autoencoder_are_refused(study, codes, found):
    with pytest.raises(InputError, match=f"writing the codes of run {RUN}: found {found}"):
        write_codes(study, RUN, codes)
    assert not has_codes(study, RUN)


def test_damaged_or_lost_codes_are_not_trained_on(study):
    write_codes(study, RUN, codes_of(1))
    chunk = study.codes / RUN / "codes" / "c" / "0" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(StoreError, match=f"reading the codes of run {RUN}: .*verify STUDY.toml --repair"):
        read_codes(study, RUN)
    chunk.unlink()
    with pytest.raises(StoreError, match="part of them is missing"):
        read_codes(study, RUN)


WRITE_CODES = """
import sys
import numpy as np
from motorsweep.zarr_store.codes import write_codes
for run_id in sys.argv[2].split(","):
    codes = np.full((5, 4, 4, 4), int(run_id, 16) % 97, np.float32)
    write_codes(sys.argv[1], run_id, codes)
"""


def test_processes_that_write_at_once_do_not_disturb_each_other(study, small):
    ids = [f"{number:016x}" for number in range(12)]
    lists = [",".join([*ids[0:6], *ids[8:]]), ",".join([*ids[4:8], *ids[8:]])]  # most of them are written twice
    writers = [small.run_python(WRITE_CODES, study.folder, text) for text in lists]
    for writer in writers:
        _, error = writer.communicate(timeout=60)
        assert writer.returncode == 0, error
    for number, run_id in enumerate(ids):
        np.testing.assert_array_equal(read_codes(study, run_id), np.full((5, 4, 4, 4), number))
    assert list(study.making.iterdir()) == []
