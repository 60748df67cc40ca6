import dataclasses
import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from motorsweep.errors import ConfigError
from motorsweep.hpc.eeg_identity import cleaning_config, eeg_connectivity, emg_connectivity, planted_config
from motorsweep.jobs.config import EegConfig, StudyConfig, load_study_config, parse_study, to_plain
from motorsweep.jobs.eeg_tables import EegTables, NetworkTable, PlantedTable, RecordsTable
from motorsweep.learn.connectivity import ConnectivityConfig
from motorsweep.learn.matrix_training import EmgTraining
from motorsweep.sim.cleaning import CleaningConfig
from motorsweep.sim.planted_recordings import PlantedConfig
from motorsweep.sim.recording_files import RecordingSource

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMED = 'kind = "eeg"\nname = "a"\n'


def test_the_kind_chooses_the_tables(tmp_path):
    (tmp_path / "eeg.toml").write_text(NAMED)
    (tmp_path / "tms.toml").write_text('name = "a"\n')
    assert type(load_study_config(tmp_path / "eeg.toml")) is EegConfig
    assert type(load_study_config(tmp_path / "tms.toml")) is StudyConfig
    assert parse_study('name = "a"\nkind = "tms"') == parse_study('name = "a"')
    assert (parse_study(NAMED).kind, parse_study('name = "a"').kind) == ("eeg", "tms")


def test_defaults_are_those_of_the_paper_and_of_what_they_stand_for():
    config = parse_study(NAMED)
    assert config.connectivity.measures == ("correlation", "coherence", "phase_lag_index", "granger", "dtf")
    assert config.network.optimizers == ("adam", "sgdm", "rmsprop")
    assert (config.network.epochs, config.network.learning_rate, config.network.decay) == (10, 0.01, 0.95)
    assert config.validation.splits == ("80-20", "70-10-20", "leave-one-subject-out", "k-fold")
    assert planted_config(config) == PlantedConfig()
    assert dataclasses.replace(cleaning_config(config), seed=0) == CleaningConfig()
    assert eeg_connectivity(config) == ConnectivityConfig()
    assert emg_connectivity(config) == ConnectivityConfig(measures=("granger",))
    training = {key: value for key, value in vars(config.network).items() if key not in ("optimizers", "tuned")}
    assert EmgTraining(**training) == EmgTraining()


def test_every_option_of_what_is_computed_has_a_key():
    names = lambda kind: {each.name for each in fields(kind)}  # noqa: E731
    assert names(PlantedTable) == names(PlantedConfig)
    assert names(type(EegTables(name="a").cleaning)) == names(CleaningConfig) - {"seed"}
    assert names(type(EegTables(name="a").connectivity)) - {"rate_hz", "emg"} == names(ConnectivityConfig)
    assert names(NetworkTable) - {"optimizers", "tuned"} == names(EmgTraining) - {"optimizer"}
    own = {"subject", "condition", "name", "eeg_table", "emg_table", "event_table", "start_s", "stop_s"}
    found = names(RecordsTable) - {"source", "events", "record_s", "rate_hz", "records_per_task", "planted"}
    assert found == names(RecordingSource) - own


def test_seed_and_bands_reach_what_is_computed():
    config = parse_study(NAMED + "seed = 7\n[connectivity.bands_hz]\nalpha = [8, 13]\nbeta = [13, 30]")
    assert cleaning_config(config).seed == 7
    assert eeg_connectivity(config).bands_hz == (("alpha", 8.0, 13.0), ("beta", 13.0, 30.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[head]\nsource = 'sphere'", '[head] is of studies of the kind "tms"; for one, set kind = "tms" at the top'),
        ("[recrds]\nsource = 'x'", "[recrds] is not a table; did you mean records?"),
        ("[cleaning]\nnoch_hz = 60", "[cleaning] noch_hz is not a key; did you mean notch_hz?"),
        ("[records.planted]\nsubjcts = 3", "[records.planted] subjcts is not a key; did you mean subjects?"),
        ("[records.planted]\nsubjects = 0", "[records.planted] subjects is 0; it must be greater than or equal to 1"),
        ("[records.planted]\nsubjects = 2.5", "[records.planted] subjects is 2.5; it must be a whole number"),
        ("[records.planted]\nn_eeg = 32", "[records.planted] n_eeg is 32; it must be less than or equal to 19"),
        ("[records.planted]\ncoupling = 1.5", "[records.planted] coupling is 1.5; it must be less than or equal to 1"),
        ("[records]\nrate_hz = 500", "[records] rate_hz is of recordings in files, but source is 'planted'"),
        (
            "[records]\nsource = 'data'\n[records.planted]\nsubjects = 3",
            "[records] planted is given, but source is 'data'; give one of them",
        ),
        ("[records]\ndrop_channels = ['C3', 'C3']", "[records] drop_channels holds 'C3' twice"),
        ("[records]\neeg_unit = 'µV'", "it must be 'auto', 'V', 'mV', 'uV', 'nV' or 'counts'"),
        ("[cleaning]\nband_hz = [45, 1]", "[cleaning] band_hz is 45 to 1 Hz, which is no band"),
        (
            "[connectivity.emg]\nrate_hz = 30",
            "[connectivity.emg] rate_hz is 30, which holds nothing above 15 Hz, but the EMG that is cleaned",
        ),
        (
            "[cleaning]\nband_hz = [8, 45]\n[connectivity]\nrate_hz = 16",
            "[connectivity] rate_hz is 16, which holds nothing above 8 Hz, but the EEG that is cleaned begins at 8 Hz",
        ),
        ("[cleaning]\nemg = 'envelop'", "did you mean envelope?"),
        ("[connectivity]\nmeasures = ['granger', 'granger']", "[connectivity] measures holds 'granger' twice"),
        ("[connectivity]\nmeasures = ['grangr']", "did you mean granger?"),
        ("[connectivity]\nmeasures = []", "[connectivity] measures is []; it must be a list that is not empty"),
        ("[connectivity.bands_hz]\nalpha = [13, 8]", "[connectivity] alpha is 13 to 8 Hz; a band's edges must"),
        ("[connectivity.bands_hz]\nwhole = [8, 13]", "[connectivity] bands_hz names a band whole"),
        (
            "[connectivity]\ngranger = 'conditional'\n[connectivity.bands_hz]\nalpha = [8, 13]",
            "[connectivity] granger is conditional, which is offered for the whole band alone",
        ),
        ("[connectivity.emg]\nmax_ordr = 5", "[connectivity.emg] max_ordr is not a key; did you mean max_order?"),
        ("[network]\noptimizers = ['adm']", "did you mean adam?"),
        ("[validation]\nsplits = ['90-10']", "[validation] splits[0] is \"90-10\"; it must be '80-20', '70-10-20'"),
        ("[validation]\nfolds = 1", "[validation] folds is 1; it must be greater than or equal to 2"),
        ("[executor]\nworker = 2", "[executor] worker is not a key; did you mean workers?"),
    ],
)
def test_each_fault_is_one_sentence_that_says_what_to_do(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_study(NAMED + text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("study.toml: ")


@pytest.mark.parametrize("emg", ["rectified", "envelope"])
def test_rectified_emg_may_be_connected_below_the_band_that_it_was_made_from(emg):
    config = parse_study(NAMED + f"[cleaning]\nemg = '{emg}'\n[connectivity.emg]\nrate_hz = 30")
    assert config.connectivity.emg.rate_hz == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nkind = "egg"', "kind is \"egg\"; it must be 'tms' or 'eeg'; did you mean eeg?"),
        ('name = "a"\nkind = 3', "kind is 3; it must be"),
        ('name = "a"\nknd = "eeg"', "knd is not a key; did you mean kind?"),
        ('kind = "eeg"\nname = "a/b"', "name is 'a/b'; it must be letters"),
        ('kind = "eeg"', "name is missing; every study needs it"),
        ('name = "a"\n[records]', '[records] is of studies of the kind "eeg"; for one, set kind = "eeg" at the top'),
    ],
)
def test_the_kind_and_the_name_are_checked(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_study(text)
    assert message in str(caught.value)


def test_the_folder_of_recordings_starts_at_the_study_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB", str(tmp_path / "lab"))
    for source, there in (("data", tmp_path / "data"), ("$LAB/eeg", tmp_path / "lab/eeg")):
        (tmp_path / "study.toml").write_text(NAMED + f'[records]\nsource = "{source}"\neeg = "{{subject}}.edf"\n')
        assert load_study_config(tmp_path / "study.toml").records.source == str(there)
    (tmp_path / "study.toml").write_text(NAMED)
    assert load_study_config(tmp_path / "study.toml").records.source == "planted"
    (tmp_path / "study.toml").write_text(NAMED + '[records]\nsource = "$NOWHERE/x"\n')
    with pytest.raises(ConfigError, match=r"\[records\] source is '\$NOWHERE/x', but the environment has no variable"):
        load_study_config(tmp_path / "study.toml")


def test_a_default_and_the_same_value_in_the_file_are_one_thing():
    implicit = parse_study(NAMED)
    explicit = parse_study(NAMED + "[cleaning]\nband_hz = [1, 45]\n[records.planted]\nseconds = 60\n")
    assert explicit == implicit and json.dumps(to_plain(explicit)) == json.dumps(to_plain(implicit))


@pytest.mark.parametrize("name", ["eeg.toml", "eeg_own.toml"])
def test_the_examples_are_study_files(name):
    text = (EXAMPLES / name).read_text()
    assert parse_study(text, name).name == tomllib.loads(text)["name"]
