import json
import re
import tomllib
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motorsweep.errors import ConfigError
from motorsweep.hpc.executors import EXECUTORS, ExecutorConfig
from motorsweep.hpc.identity import autoencoder_training, mapper_training
from motorsweep.jobs.config import StudyConfig, load_study_config, parse_study, to_plain
from motorsweep.jobs.tables import BUILTIN_COILS, SolverTable, StudyTables
from motorsweep.sim.tissues import conductivity_of

NAMED = 'name = "a"\n'
REGION = "[solver.region]\nradius_mm = 30\nangle_deg = [-180, 180]\ndistance_mm = [4, 10]\ntilt_deg = 10"


def _write(folder, text, name="study.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_paper(tmp_path):
    config = parse_study(NAMED)
    assert (config.seed, config.head.source, config.head.hand_knob_mm, config.coil.source) == (
        *(1, "template", None),
        "magstim-70mm",
    )
    assert (config.poses.grid, config.poses.spacing_mm, config.poses.angle_deg, config.poses.distance_mm) == (
        *(7, 4.4, 45.0, 4.0),
    )
    assert (config.volume.n, config.volume.spacing_mm, config.volume.mask_radius_mm) == (64, 1.0, 30.0)
    assert config.stimulation.intensities_percent_rmt == (110.0, 120.0, 130.0, 140.0)
    assert config.stimulation.trials == (300, 149, 150, 100)
    assert len(config.responses.muscles) == 15
    assert (config.autoencoder.epochs, config.autoencoder.batch, config.autoencoder.momentum) == (100, 0, 0.9)
    assert (autoencoder_training(config).batch, mapper_training(config).batch) == (32, 32)
    assert config.protocol == "paper"
    assert (config.mappers.depths, config.mappers.connections) == ((3, 6), ("direct", "synergy", "both"))
    assert (config.mappers.epochs, config.mappers.rho, config.mappers.dropout) == (150, 0.95, 0.15)
    assert (config.validation.repeats, config.validation.folds) == (3, 0)
    assert config.executor == ExecutorConfig(kind="local", workers=0, threads=1, dashboard=True)


def _toml(value):
    """Write every default as TOML, to be read back."""
    lines, tables = [], []
    for each in fields(value):
        item = getattr(value, each.name)
        if is_dataclass(item):
            tables.append((each.name, item))
        elif item not in (None, {}):
            lines.append(f"{each.name} = {json.dumps(item)}")
    return lines, tables


def _document(value, path=""):
    lines, tables = _toml(value)
    text = (f"[{path}]\n" if path else "") + "\n".join(lines) + "\n"
    return text + "".join(_document(item, f"{path}.{name}".lstrip(".")) for name, item in tables)


def test_a_default_and_the_same_value_in_the_file_are_one_thing():
    implicit = parse_study(NAMED)
    text = _document(implicit)
    assert "[responses.synthetic]" in text and "intensities_percent_rmt" in text
    explicit = parse_study(text)
    assert explicit == implicit
    # also as hashed: 110 and 110.0 are equal in Python and differ in JSON
    assert json.dumps(to_plain(explicit)) == json.dumps(to_plain(implicit))
    whole = parse_study(text.replace("110.0", "110").replace("mm = 1.0", "mm = 1"))
    assert json.dumps(to_plain(whole)) == json.dumps(to_plain(implicit))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[solver]\nknd = 'direct'",
            "[solver] knd is not a key; did you mean kind? valid keys: kind, order, margin_mm, rtol, poses_per_shard",
        ),
        ("sed = 3", "sed is not a key; did you mean seed? valid keys: name, seed, folder, protocol, head"),
        ("[mapers]\nepochs = 3", "[mapers] is not a table; did you mean mappers? valid: name, seed"),
        ("[head.mesh]\nfine_m = 2", "[head.mesh] fine_m is not a key; did you mean fine_mm?"),
        ("[executor]\nworker = 2", "[executor] worker is not a key; did you mean workers?"),
        ("path = 'x'", "path is not a key"),
        ("text = 'x'", "text is not a key"),
        (
            "[solver]\nkind = 'dirct'",
            "[solver] kind is \"dirct\"; it must be 'auto', 'direct', 'iterative' or 'modes'; did you mean direct?",
        ),
        ("[solver]\nrtol = 2.0", "[solver] rtol is 2.0; it must be less than 1"),
        (
            "[solver]\ntolerance = 1e-6",
            "[solver] tolerance is 1e-06; it must be 1e-05 to 0.1, as dA/dt of the coil is itself tabulated to 1e-05",
        ),
        ("[solver]\ntolerance = 0.2", "[solver] tolerance is 0.2; it must be 1e-05 to 0.1"),
        ("[solver]\ntolerance = nan", "[solver] tolerance is NaN; it must be a finite number"),
        ("[solver]\nkind = 'direct'\nbasis = 'a.zarr'", '[solver] basis is given, but kind "direct" uses none'),
        ("[solver]\nkind = 'iterative'\n" + REGION, '[solver] region is given, but kind "iterative" uses none'),
        (
            "[solver.region]\nradius_mm = 30\nangle_deg = [0, 90]",
            "[solver.region] distance_mm, tilt_deg is missing; a region needs all of radius_mm, angle_deg, distance_mm",
        ),
        (REGION.replace("= 30", "= 90"), "[solver.region] radius_mm is 90; it must be less than or equal to 80"),
        (REGION.replace("[4, 10]", "[-1, 10]"), "[solver.region] distance_mm is [-1.0, 10.0]; it must ascend from 0"),
        (REGION.replace("[4, 10]", "[4]"), "[solver.region] distance_mm has too few numbers; it must be low, high"),
        (REGION.replace("[4, 10]", "[4, 5, 6]"), "[solver.region] distance_mm is [4, 5, 6]; it must be low, high"),
        (REGION.replace("-180", "-181"), "[solver.region] angle_deg is [-181.0, 180.0]; it must ascend, by 360"),
        (REGION.replace("tilt", "tild"), "[solver.region] tild_deg is not a key; did you mean tilt_deg?"),
        (REGION.replace("= 10", "= 50"), "[solver.region] tilt_deg is 50; it must be less than or equal to 45"),
        ("[volume]\nn = 66", "[volume] n is 66; it must be a multiple of 32"),
        ("[volume]\nn = 64.0", "[volume] n is 64.0; it must be a whole number"),
        ("[volume]\nn = '64'", '[volume] n is "64"; it must be a whole number'),
        ("[volume]\nspacing_mm = nan", "[volume] spacing_mm is NaN; it must be a finite number"),
        ("[volume]\nspacing_mm = 0", "[volume] spacing_mm is 0; it must be greater than 0"),
        ("[volume]\ncomponents = 1", "[volume] components is 1; it must be true or false"),
        ("[volume]\ncentre_mm = [1, 2]", "[volume] centre_mm has too few numbers; it must be x, y, z"),
        ("[volume]\ncentre_mm = [1, 2, 3, 4]", "[volume] centre_mm is [1, 2, 3, 4]; it must be x, y, z"),
        ("[validation]\ntest_fraction = 0", "[validation] test_fraction is 0; it must be greater than 0"),
        ("[validation]\nfolds = 1", "[validation] folds is 1; it must be 0 (no cross-validation) or 2 or more"),
        ("[validation]\ndropout_grid = [0.1, 0.2]", "[validation] folds is 0, but a grid holds several values"),
        ("[validation]\nfolds = 5\ndropout_grid = [0.1, 0.1]", "[validation] dropout_grid holds 0.1 twice"),
        ("[stimulation]\ntrials = [1, -2]", "[stimulation] trials[1] is -2; it must be greater than or equal to 1"),
        ("[stimulation]\ntrials = [1, 2]", "[stimulation] trials has 2 numbers and intensities_percent_rmt 4"),
        (
            "[stimulation]\nintensities_percent_rmt = [110, 110]",
            "[stimulation] intensities_percent_rmt holds 110.0 twice",
        ),
        ("[mappers]\ndepths = [3, 4]", "[mappers] depths[1] is 4; it must be 3 or 6"),
        ("[mappers]\ndepths = [3, 3]", "[mappers] depths holds 3 twice"),
        ("[mappers]\ndepths = []", "[mappers] depths is []; it must be a list that is not empty"),
        (
            "[mappers]\nconnections = ['direkt']",
            "[mappers] connections[0] is \"direkt\"; it must be 'direct', 'synergy'",
        ),
        ("[mappers]\nsynergies = 16", "[mappers] synergies is 16, but there are 15 muscles"),
        ("[mappers]\ndropout = 1", "[mappers] dropout is 1; it must be less than 1"),
        ("[responses]\nmuscles = ['FDI', 'FDI']", "[responses] muscles holds 'FDI' twice"),
        ("[poses]\ngrid = 0", "[poses] grid and random are 0 and there is no file, so there is no pose"),
        ("[head]\nsource = 'templte'", "[head] source is 'templte'; did you mean template?"),
        ("[head]\nsource = 'ernie.msh'", "[head] hand_knob_mm is missing; a head from a file needs it"),
        ("[head.conductivities]\nbon = 1", "[head] conductivities holds 'bon', which is not known; did you mean bone?"),
        ("[head.conductivities]\nbone = -1", "[head.conductivities] bone is -1; it must be greater than 0"),
        ("[head.mesh]\ncoarse_mm = 1.0", "[head.mesh] coarse_mm is 1, less than fine_mm 2"),
        ("[coil]\nsource = 'magstim'", "[coil] source is 'magstim'; did you mean magstim-70mm?"),
        ("[executor]\nkind = 'cloud'", "[executor] kind is 'cloud'; it must be one of serial, local, slurm, mpi"),
        ("[executor]\nworkers = -1", "[executor] workers is -1; it must be 0 (as many as fit) or more"),
        ("head = 3", "[head] is 3; it must be a table"),
        ("seed = 2026-01-01", 'seed is "2026-01-01"; it must be a whole number'),
        ('[solver]\nkind = "a\\n\\u001b[31m"', '[solver] kind is "a\\n\\u001b[31m"; it must be'),
        ('"a\\u0085b" = 3', "a\\u0085b is not a key"),
        ("[head", "this is not TOML: Expected ']' at the end of a table declaration (at line 2, column 6)"),
    ],
)
def test_each_fault_is_one_sentence(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_study(NAMED + text + "\n")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"study.toml: {message}")
    assert "pydantic" not in str(caught.value)


def test_a_region_is_the_studys_own_poses_or_given_whole():
    assert not parse_study(NAMED).solver.region.given
    region = parse_study(NAMED + REGION).solver.region
    assert region.given
    assert (region.radius_mm, region.angle_deg, region.distance_mm, region.tilt_deg) == (30, (-180, 180), (4, 10), 10)
    assert to_plain(region)["distance_mm"] == [4.0, 10.0]


def test_a_tag_without_a_tissue_can_be_given_its_conductivity():
    config = parse_study(NAMED + '[head.conductivities]\nbone = 0.02\n"77" = 0.2\n')
    assert config.head.conductivities == {"bone": 0.02, "77": 0.2}
    assert conductivity_of(np.array([77, 4]), config.head.conductivities).tolist() == [0.2, 0.02]


def test_every_fault_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_study("seed = -1\n[volume]\nn = 6\n")
    assert str(caught.value).splitlines() == [
        "study.toml: name is missing; every study needs it",
        "study.toml: seed is -1; it must be greater than or equal to 0",
        "study.toml: [volume] n is 6; it must be a multiple of 32",
    ]


@given(st.text(min_size=1).filter(lambda name: not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)))
def test_a_name_must_name_a_folder(name):
    with pytest.raises(ConfigError, match="it must be letters, digits"):
        parse_study(f"name = {json.dumps(name, ensure_ascii=True)}".replace("\\ud", "\\ue"))


@given(
    st.dictionaries(st.sampled_from([each.name for each in fields(StudyTables)]), st.integers() | st.text(), max_size=3)
)
def test_no_file_of_the_wrong_shape_gets_past(raw):
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in raw.items())
    try:
        tomllib.loads(text)
        config = parse_study(text)
    except ConfigError as error:
        assert all(line.startswith("study.toml: ") for line in str(error).splitlines())
    except tomllib.TOMLDecodeError:
        pass
    else:
        assert config.name == raw["name"] and set(raw) <= {"name", "seed", "folder"}


# ---- files and paths ------------------------------------------------------------------------------------------------


def test_folder_is_beside_the_current_directory_or_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    plain = load_study_config(_write(tmp_path / "deep", 'name = "quick"\n'))
    assert plain.folder == str(tmp_path / "studies" / "quick")
    given = load_study_config(_write(tmp_path / "deep", 'name = "quick"\nfolder = "../out"\n'))
    assert given.folder == str(tmp_path / "out")


def test_paths_start_at_the_file_and_builtin_names_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADS", str(tmp_path / "heads"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = """name = "a"
    [head]
    source = "$HEADS/${HEADS}.msh"
    hand_knob_mm = [-37, -21, 58]
    [poses]
    file = "~/poses.csv"
    [volume]
    mask_file = "masks/../mask.nii.gz"
    [solver]
    bases = "../bases"
    basis = "$HEADS/b.zarr"
    """.replace("/${HEADS}", "/ernie")
    config = load_study_config(_write(tmp_path, text))
    assert config.head.source == str(tmp_path / "heads" / "ernie.msh")
    assert config.head.hand_knob_mm == (-37.0, -21.0, 58.0)
    assert config.poses.file == str(tmp_path / "home" / "poses.csv")
    assert config.volume.mask_file == str(tmp_path / "mask.nii.gz")
    assert config.solver.bases == str(tmp_path.parent / "bases")
    assert config.solver.basis == str(tmp_path / "heads" / "b.zarr")
    assert (config.coil.source, config.responses.file) == ("magstim-70mm", "")
    sphere = load_study_config(_write(tmp_path, 'name = "a"\n[head]\nsource = "sphere"\n'))
    assert sphere.head.source == "sphere"


def test_undefined_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(
        ConfigError, match=r"study\.toml: \[responses\] file is '\$\{NO_SUCH\}/r\.csv'.*no variable NO_SUCH"
    ):
        load_study_config(_write(tmp_path, 'name = "a"\n[responses]\nfile = "${NO_SUCH}/r.csv"\n'))


def test_text_is_kept_as_given_and_values_are_frozen(tmp_path):
    text = '# why\nname = "a"\n'
    config = load_study_config(_write(tmp_path, text))
    assert isinstance(config, StudyConfig) and config.text == text
    assert config.path == str(tmp_path / "study.toml")
    with pytest.raises(FrozenInstanceError):
        config.seed = 2


def test_mark_of_windows_editors_is_no_fault(tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "a"\r\n')
    assert load_study_config(path).name == "a"


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file \(looked in "):
        load_study_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="it cannot be read"):
        load_study_config(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_study_config(tmp_path / "b.toml")


def test_plain_values_of_a_table():
    plain = {"kind": "direct", "order": 2, "margin_mm": 8.0, "rtol": 1e-10, "poses_per_shard": 32}
    plain |= {"tolerance": 1e-3, "bases": "", "basis": ""}
    plain["region"] = {"radius_mm": None, "angle_deg": None, "distance_mm": None, "tilt_deg": None}
    assert to_plain(SolverTable(kind="direct")) == plain
    assert to_plain(parse_study(NAMED).mappers)["depths"] == [3, 6]


def test_names_known_here_are_those_known_there():
    from motorsweep.sim.coil import COILS

    assert set(BUILTIN_COILS) == set(COILS)
    assert set(EXECUTORS) == {"serial", "local", "slurm", "mpi", "ranks"}


def test_only_readers_of_users_files_know_pydantic():
    root = Path(__file__).parents[2]
    knowing = [
        path.name
        for folder in ("hpc", "sim", "learn", "jobs", "zarr_store")
        for path in (root / folder).glob("*.py")
        if re.search(r"^(from|import) pydantic", path.read_text(), re.M)
    ]
    assert knowing == ["tcd_files.py", "config.py"]
