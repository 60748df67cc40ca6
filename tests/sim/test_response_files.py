import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.response_files import read_responses


def write(tmp_path, text, name="meps.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "mark"), [("meps.csv", ","), ("meps.csv", ";"), ("meps.tsv", "\t")])
def test_table_is_read_in_volts(tmp_path, name, mark):
    text = "pose,intensity_percent_rmt,FDI [uV],APB [mV],ADM [µV],BIC [V]\n1,110,50,0.2,7,0.001\n0,120,0,1,8,0\n"
    table = read_responses(write(tmp_path, text.replace(",", mark), name), n_poses=2)
    assert table.muscles == ("FDI", "APB", "ADM", "BIC")
    np.testing.assert_allclose(table.response, [[50e-6, 0.2e-3, 7e-6, 1e-3], [0, 1e-3, 8e-6, 0]], rtol=1e-12)
    assert table.pose_index.tolist() == [1, 0]
    assert table.pose_index.dtype == np.int64
    assert table.intensity_percent_rmt.tolist() == [110, 120]
    assert table.didt is None


def test_without_a_pose_column_trials_are_poses_in_order(tmp_path):
    table = read_responses(write(tmp_path, "didt_a_per_us,FDI [mV]\n60,1\n70,2\n"), n_poses=2)
    assert table.pose_index.tolist() == [0, 1]
    np.testing.assert_allclose(table.didt, [60e6, 70e6])
    assert table.intensity_percent_rmt is None


def test_byte_order_mark_quotes_and_empty_lines_do_no_harm(tmp_path):
    table = read_responses(write(tmp_path, '\ufeff"pose","FDI, left [uV]"\n0,5\n\n1,6\n'))
    assert table.muscles == ("FDI, left",)
    np.testing.assert_allclose(table.response[:, 0], [5e-6, 6e-6])


def test_a_table_saved_by_excel_is_read(tmp_path):
    path = tmp_path / "meps.csv"
    path.write_bytes("FDI [µV];M. öffner [mV]\r\n50;1\r\n60;2\r\n".encode("cp1252"))
    table = read_responses(path, n_poses=2)
    assert table.muscles == ("FDI", "M. öffner")
    np.testing.assert_allclose(table.response, [[50e-6, 1e-3], [60e-6, 2e-3]])


@pytest.mark.parametrize("data", ["FDI [uV]\n1\n".encode("utf-16"), b"FDI [uV]\n\x81\n"])
def test_text_in_no_known_encoding_is_refused(tmp_path, data):
    (tmp_path / "meps.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"meps\.csv: it is text neither in UTF-8 nor.*Save it as CSV UTF-8"):
        read_responses(tmp_path / "meps.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FDI [uV]\n1\nnan\n", r"line 3, column 'FDI \[uV\]': found 'nan'.*leave the whole trial out"),
        ("pose,FDI [uV]\n0,1\n1,\n", r"line 3, column 'FDI \[uV\]': found ''"),
        ("FDI [uV]\n1\n", r"found 1 trials for 2 poses and no column 'pose'.*Add a column 'pose'"),
        ("FDI [uV],FDI [mV]\n1,1\n1,1\n", r"line 1, column 'FDI \[mV\]': muscle 'FDI' is there twice"),
        ("pose,pose,FDI [uV]\n0,0,1\n", r"column 'pose': the column is there twice"),
        ("pose,Pose,FDI [uV]\n0,0,1\n", r"column 'Pose': the column is there twice"),
        ("trial,FDI [uV]\n0,1\n1.5,1\n", r"line 3, column 'trial': found '1\.5', but trials .*whole numbers"),
        (
            "FDI [V]\n0.002\n5000\n",
            r"line 3, column 'FDI \[V\]': a response of 5000 V.*below 50 mV, so the unit in the header is wrong",
        ),
        ("FDI\n1\n2\n", r"line 1, column 'FDI': found no unit.*'FDI \[uV\]'"),
        ("FDI [furlong]\n1\n2\n", r"column 'FDI \[furlong\]': found no unit"),
        ("FDI [uV]\n1\n-2\n", r"line 3.*-2 is negative"),
        ("pose,FDI [uV]\n0,1\n2,1\n", r"line 3, column 'pose': found 2, but poses are whole numbers, 0 to 1"),
        ("pose,FDI [uV]\n0,1\n0.5,1\n", r"line 3, column 'pose': found 0\.5"),
        ("intensity_percent_rmt,FDI [uV]\n110,1\n0,1\n", r"line 3, column 'intensity_percent_rmt': found 0"),
        (
            "intensity_percent_rmt,FDI [uV]\n1.1,1\n1.4,1\n",
            r"column 'intensity_percent_rmt': the largest intensity is 1\.4 %.*fractions.*Give per cent: 120, not 1\.2",
        ),
        ("pose,FDI [uV]\n0,1\n1,1,1\n", r"line 3: found 3 fields where the header names 2"),
        ("pose\n0\n1\n", r"line 1: no muscle's column"),
        (
            "FDI [uV]\n" + '"' + "11\n" * 90_000,
            r"line 6\d{4}: the line cannot be taken apart \(field larger.*quotation mark",
        ),
        ("A" + " " * 120_000 + "[\n1\n", r"line 1, column 'A {55}\.\.\.: found no unit that is known"),
        ("FDI [uV]\n", r"found 1 rows, but a header and at least one trial"),
        ("", r"found 0 rows"),
    ],
)
def test_damaged_tables_are_refused_by_line_and_column(tmp_path, text, message):
    with pytest.raises(InputError, match=r"meps\.csv.*" + message):
        read_responses(write(tmp_path, text), n_poses=2)


@pytest.mark.parametrize(("name", "mark"), [("meps.csv", ";"), ("meps.tsv", "\t")])
def test_decimal_commas_are_read_where_fields_are_separated_otherwise(tmp_path, name, mark):
    rows = [["pose", "intensity_percent_rmt", "FDI [mV]"], ["0", "110,5", "0,5"], ["1", "120", "1,25E-1"]]
    table = read_responses(write(tmp_path, "\n".join(map(mark.join, rows)), name), n_poses=2)
    np.testing.assert_allclose(table.response[:, 0], [0.5e-3, 0.125e-3], rtol=1e-12)
    assert table.intensity_percent_rmt.tolist() == [110.5, 120]


@pytest.mark.parametrize("field", ["1,500,000", "1,", ",5", "1,5x"])
def test_what_is_no_decimal_comma_is_refused(tmp_path, field):
    with pytest.raises(InputError, match=rf"line 2, column 'FDI \[uV\]': found '{field}'"):
        read_responses(write(tmp_path, f"FDI [uV];APB [uV]\n{field};1\n"))


def test_commas_beside_decimal_points_may_separate_thousands(tmp_path):
    with pytest.raises(InputError, match=r"line 3, column 'FDI \[uV\]': found '1,500' instead of a finite number"):
        read_responses(write(tmp_path, "FDI [uV]\tAPB [uV]\n5.25\t1\n1,500\t1\n", "meps.tsv"))


def test_case_of_the_columns_does_not_matter_and_trial_numbers_change_nothing(tmp_path):
    table = read_responses(write(tmp_path, "Trial,Pose,DIDT_A_per_us,FDI [uV]\n7,1,60,5\n3,0,70,6\n"), n_poses=2)
    assert table.muscles == ("FDI",) and table.pose_index.tolist() == [1, 0]
    np.testing.assert_allclose(table.didt, [60e6, 70e6])
    np.testing.assert_allclose(table.response[:, 0], [5e-6, 6e-6])


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: there is no such file.*\[responses\]"):
        read_responses(tmp_path / "none.csv")
