import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.sim.response_files import read_responses


def write(tmp_path, text, name="meps.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def assert_same(one, other):
    assert one.muscles == other.muscles
    np.testing.assert_array_equal(one.response, other.response)
    np.testing.assert_array_equal(one.pose_index, other.pose_index)
    assert one.pose_index.dtype == other.pose_index.dtype
    for name in ("intensity_percent_rmt", "didt"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    trials=st.integers(1, 12),
    muscles=st.integers(1, 5),
    columns=st.sets(st.sampled_from(["pose", "intensity_percent_rmt", "didt_a_per_us"])),
    title=st.sampled_from(["response [uV]", "amplitude [µV]", "MEP [uV]", "mep [μV]"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_melting_and_shuffling_change_nothing(tmp_path_factory, seed, trials, muscles, columns, title, delimiter):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("tables")
    names = [f"m{k}" for k in range(muscles)]
    wide = pd.DataFrame(rng.gamma(1, 300, (trials, muscles)), columns=names)
    level = {
        "pose": rng.integers(0, trials, trials),
        "intensity_percent_rmt": rng.choice([110, 120, 130.5], trials),
        "didt_a_per_us": rng.uniform(40, 90, trials),
    }
    for column in sorted(columns):
        wide[column] = level[column]
    number = np.sort(rng.choice(1000, trials, replace=False))
    long = wide.assign(trial=number).melt(["trial", *columns], names, "muscle", title)
    order = rng.permutation(len(long))
    wide.rename(columns={name: f"{name} [uV]" for name in names}).to_csv(
        folder / "wide.csv", index=False, sep=delimiter
    )
    long.to_csv(folder / "long.csv", index=False, sep=delimiter)
    shuffled = long.iloc[order, rng.permutation(long.shape[1])]
    shuffled.to_csv(folder / "shuffled.csv", index=False, sep=delimiter)
    expected = read_responses(folder / "wide.csv", n_poses=trials)
    assert_same(read_responses(folder / "long.csv", n_poses=trials), expected)
    mixed = read_responses(folder / "shuffled.csv", n_poses=trials)
    assert mixed.muscles == tuple(dict.fromkeys(shuffled["muscle"]))
    back = [mixed.muscles.index(name) for name in names]
    np.testing.assert_array_equal(mixed.response[:, back], expected.response)
    np.testing.assert_array_equal(mixed.pose_index, expected.pose_index)


def test_trials_are_ordered_by_number_and_not_by_text(tmp_path):
    text = "Trial,Muscle,Response [mV],POSE\n10,FDI,3,0\n9,FDI,2,1\n1e1,ADM,30,0\n9,ADM,20,1\n"
    table = read_responses(write(tmp_path, text), n_poses=2)
    assert table.muscles == ("FDI", "ADM")
    np.testing.assert_allclose(table.response, [[2e-3, 20e-3], [3e-3, 30e-3]])
    assert table.pose_index.tolist() == [1, 0]


def test_the_header_alone_decides(tmp_path):
    wide = read_responses(write(tmp_path, "pose,response [uV],MEP [uV]\n0,1,2\n"))
    assert wide.muscles == ("response", "MEP")
    with pytest.raises(InputError, match=r"column 'FDI \[uV\]': of a long table"):
        read_responses(write(tmp_path, "muscle,FDI [uV]\nFDI,1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("muscle,response [uV]\nA,1\n", r"line 1: the long table .* lacks trial, so rows cannot.*Add the column"),
        ("muscle,trial,pose\nA,1,0\n", r"lacks response \[uV\]"),
        ("muscle,trial,response\nA,1,1\n", r"line 1, column 'response': of a long table.*in V, mV, uV or nV"),
        ("muscle,trial,mep [uV],response [uV]\nA,1,1,1\n", r"column 'response \[uV\]': .*unknown or there twice"),
        ("muscle,trial,muscle,mep [uV]\nA,1,A,1\n", r"line 1, column 'muscle': .*there twice"),
        ("muscle,trial,mep [uV],subject\nA,1,1,1\n", r"'subject': .*There may be trial, muscle, pose, intensity_perc"),
        ("muscle,trial,mep [uV]\nA,1,1\nB,1,1\nA,2,1\n", r"no row for muscle 'B' of trial 2, and .*Add the rows"),
        (
            "muscle,trial,mep [uV]\nA,1,1\n" + "".join(f"B,{t},1\n" for t in range(2, 9)),
            r"no row for muscle 'B' of trial 1, 'A' of trial 2, .* and 3 more",
        ),
        (
            "muscle,trial,mep [uV]\nA,1,1\nA,2,1\nA,1,2\n",
            r"line 4, column 'muscle': muscle 'A' of trial 1 is there twice.*line 2",
        ),
        (
            "muscle,trial,mep [uV],pose\nA,1,1,0\nB,1,1,1\n",
            r"line 3, column 'pose': trial 1 has 1 here and 0 in line 2",
        ),
        (
            "muscle,trial,mep [uV],didt_a_per_us\nA,1,1,50\nB,1,1,60\n",
            r"line 3, column 'didt_a_per_us': trial 1 has 60",
        ),
        ("muscle,trial,mep [uV],didt_a_per_us\nA,1,1,50\nB,1,1,\n", r"line 3, column 'didt_a_per_us': found ''"),
        ("muscle,trial,mep [uV]\n,1,1\n", r"line 2, column 'muscle': it is empty"),
        ("muscle,trial,mep [uV]\nA,1.5,1\n", r"line 2, column 'trial': found '1\.5', but trials.*whole numbers"),
        ("muscle,trial,mep [uV]\nA,first,1\n", r"line 2, column 'trial': found 'first'"),
        ("muscle,trial,mep [uV]\nA,1,nan\n", r"line 2, column 'mep \[uV\]': found 'nan'"),
        ("muscle,trial,mep [uV]\nA,1,-3\n", r"line 2, column 'mep \[uV\]': .*-3 is negative"),
        ("muscle,trial,mep [uV],pose\nA,1,3,7\n", r"line 2, column 'pose': found 7, but poses are.*0 to 1"),
        ("muscle,trial,mep [uV]\nA,1,3\n", r"found 1 trials for 2 poses and no column 'pose'"),
        ("muscle,trial,mep [uV],intensity_percent_rmt\nA,1,3,1.2\nA,2,3,1.1\n", r"largest intensity is 1\.2 %"),
    ],
)
def test_damaged_long_tables_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=r"meps\.csv.*" + message):
        read_responses(write(tmp_path, text), n_poses=2)


def test_many_holes_are_found_in_no_time(tmp_path):
    text = "muscle,trial,mep [uV]\n" + "".join(f"m{i},{i},1\n" for i in range(20_000))
    with pytest.raises(InputError, match=r"'m1' of trial 0, .* and 399979995 more"):
        read_responses(write(tmp_path, text))
