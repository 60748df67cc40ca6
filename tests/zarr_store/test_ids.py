import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import StoreError
from motorsweep.zarr_store.ids import NUMERICS_VERSION, array_id, content_id, provenance

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_the_id_is_the_sha256_of_canonical_json():
    # printf '{"a":[1,2.5],"b":null}' | sha256sum
    assert content_id({"b": None, "a": (1, 2.5)}) == "f66b2c50ccae61e3"


@given(plain_values)
def test_an_id_survives_json(value):
    assert content_id(json.loads(json.dumps(value))) == content_id(value)


@given(st.dictionaries(st.text(), st.integers(), max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    assert content_id(dict(reversed(value.items()))) == content_id(value)


def test_dataclasses_tuples_and_numpy_scalars_count_as_plain_values():
    @dataclasses.dataclass(frozen=True)
    class Cell:
        depth: int
        rates: tuple

    assert content_id(Cell(3, (0.5, 0.25))) == content_id({"depth": np.int64(3), "rates": [np.float64(0.5), 0.25]})
    assert content_id(1) != content_id(1.0) != content_id(True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, float("nan")]}, r"value\.a\[1\]: nan is not a finite number"),
        ({"a": float("inf")}, r"value\.a: inf is not a finite number"),
        ({3: 1}, "the key 3 is a int"),
        ({"path": Path("x")}, r"value\.path: a \w*Path has no canonical text"),
        ({"x": np.zeros(3)}, "hash arrays with array_id"),
        ({"x": {1, 2}}, "a set has no canonical text"),
    ],
)
def test_values_without_a_stable_text_are_refused(value, message):
    with pytest.raises(StoreError, match=message):
        content_id(value)


def test_array_ids_tell_dtype_shape_and_values_apart_but_not_layout():
    a = np.arange(6.0).reshape(2, 3)
    ids = [array_id(x) for x in (a, a.ravel(), a.astype("f4"), a + 1, a[:0])]
    assert len(set(ids)) == len(ids)
    assert array_id(np.asfortranarray(a)) == array_id(a) == array_id(a.astype(">f8"))
    assert array_id(a, a) != array_id(a)
    assert array_id(np.float64(1.0)) != array_id(np.array([1.0]))
    with pytest.raises(StoreError, match="its bytes are addresses"):
        array_id(np.array([object()]))


def test_provenance_is_plain_and_imports_nothing():
    before = set(sys.modules)
    told = provenance()
    assert json.loads(json.dumps(told)) == told
    assert told["numerics"] == NUMERICS_VERSION
    assert told["packages"]["numpy"] == np.__version__
    assert "petsc4py" in before or "petsc4py" not in told["packages"]
    assert (told["commit"] is None) == (told["dirty"] is None)
