"""Order of the predictors, paired differences, verdicts on the paper's conclusions, and the words about them."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from motorsweep.hpc.complete_results import complete_results
from motorsweep.jobs.calibration import LEVELS, calibration_words, calibrations
from motorsweep.jobs.conclusions import EMPTY, FAILS, HOLDS, OPEN, conclusions
from motorsweep.jobs.contrasts import against, contrast
from motorsweep.jobs.evidence import Evidence
from motorsweep.jobs.findings import criteria_words, input_words, size_words, summary
from motorsweep.jobs.ranking import completed, mean_sd, ranking
from motorsweep.jobs.report_tables import score_lines, score_rows
from motorsweep.jobs.synergy_figures import ranks_used, synergy_words
from motorsweep.learn.comparison import bootstrap_nrmse
from motorsweep.learn.resampling import expansion
from motorsweep.zarr_store.mocks import mock_results, mock_trials
from motorsweep.zarr_store.schema import Status
from scipy import stats

RAW, RATE = "e_norm", "firing_rate"
TESTS, TRIALS = 12, 40
POSES = np.arange(TRIALS)
REPEATS = (0, 1, 2)
BASELINES = {"mean": 0.8, "ridge": 0.6, "pls": 0.62, "ridge_voxels": 0.63, "gp_position": 0.7, "response_model": 0.35,
             "best_possible": 0.3}  # fmt: skip


def network_error(kind, depth, connection):
    """The paper's own pattern: firing rate, then Both, Synergy, Direct; 3 layers with firing rate, 6 with raw |E|."""
    error = {RAW: 0.55, RATE: 0.45}[kind] + {"direct": 0.02, "synergy": 0.01, "both": 0.0}[connection]
    return error + 0.005 * ((depth == 6) == (kind == RATE))


def judged(errors=None, baselines=None, repeats=REPEATS, doubt=(), **labels):
    """Results in which a model with the error e predicts (1 + e) of each response: its NRMSE is e in any sample.

    The models in `doubt` are, in turn, wrong in the even or in the odd trials alone, so that chance decides.
    """
    results = mock_results(repeats=repeats, n_test=TESTS, **labels)
    generator = np.random.default_rng(1)
    for repeat in range(len(repeats)):
        results["test_trial"].values[repeat] = np.sort(generator.permutation(TRIALS)[:TESTS])
    results["measured"].values[...] = generator.uniform(0.4, 0.6, results["measured"].shape)
    for name in [name for name in results.data_vars if re.search("interval|above|share|_mean$|nrmse_sd$", name)]:
        results[name].values[...] = np.nan
    errors = errors or network_error
    for kind in results["input"].values:
        for depth in results["depth"].values:
            for connection in results["connection"].values:
                key = (str(kind), int(depth), str(connection))
                at = dict(zip(("input", "depth", "connection"), key))
                put(results, "nrmse", "prediction", at, errors(*key), key, doubt)
        for name, error in (BASELINES | (baselines or {})).items():
            at = {"input": kind, "baseline": name}
            put(results, "baseline_nrmse", "baseline_prediction", at, error, (str(kind), name), doubt)
    return complete_results(results, POSES)


def put(results, score, prediction, at, error, key, doubt):
    measured, trials = results["measured"].values, results["test_trial"].values
    wrong = np.ones(trials.shape)
    if key in doubt:
        wrong = np.sqrt(2.0) * ((trials + list(doubt).index(key)) % 2)
    predicted = measured * (1 + error * wrong[..., None])
    results[prediction].loc[at] = predicted
    squares = ((measured - predicted) ** 2).sum(axis=(1, 2)) / (measured**2).sum(axis=(1, 2))
    results[score].loc[at] = np.sqrt(squares)


def evidence_of(results, trials=None, **attrs):
    trials = mock_trials(trials=TRIALS, poses=TRIALS) if trials is None else trials
    trials["pose_index"].values[...] = POSES
    return Evidence(study=SimpleNamespace(folder="study"), name="study", config=None, results=completed(results),
                    volumes=None, trials=trials.assign_attrs(attrs), records={}, events=[])  # fmt: skip


def measured_trials():
    return mock_trials(trials=TRIALS, poses=TRIALS).drop_vars("expected_response")


def verdicts(results):
    return {each.claim: each.verdict for each in conclusions(results, POSES)}


# ---- differences ----------------------------------------------------------------------------------------------------


def test_a_contrast_is_the_mean_of_paired_differences():
    results = judged()
    first, second = [(RAW, 3, "both"), (RAW, 6, "both")], [(RATE, 3, "both"), (RATE, 6, "both")]
    found = contrast(results, first, second, POSES)
    assert (found.first, found.second) == (pytest.approx((0.555 + 0.55) / 2), pytest.approx((0.45 + 0.455) / 2))
    np.testing.assert_allclose(found.by_repeat, 0.1, rtol=1e-9)
    np.testing.assert_allclose(found.interval, 0.1, rtol=1e-9)  # the same in every resample
    assert found.sure == 1 and contrast(results, second, first, POSES).sure == -1


def test_the_interval_of_a_contrast_is_the_expanded_percentile_interval_of_the_bootstrap():
    pair = [(RATE, 3, "direct"), (RATE, 3, "both")]
    results = judged(doubt=pair)
    found = contrast(results, pair[:1], pair[1:], POSES)
    trials = list(results["test_trial"].values)
    models = {str(key): list(results["prediction"].sel(input=key[0], depth=key[1], connection=key[2]).values)
              for key in pair}  # fmt: skip
    drawn = bootstrap_nrmse(list(results["measured"].values), models, trials, POSES)
    plain = np.quantile(drawn.resamples @ [1.0, -1.0], [0.025, 0.975])
    tails = stats.norm.cdf(expansion(drawn.units, 0.95) * stats.norm.ppf([0.025, 0.975]))
    np.testing.assert_allclose(found.interval, np.quantile(drawn.resamples @ [1.0, -1.0], tails), rtol=1e-12)
    assert found.interval[0] < plain[0] < plain[1] < found.interval[1]
    assert found.interval[0] < found.difference < found.interval[1] and found.sure == 0


def test_pairs_that_lack_a_repeat_are_left_out_unless_there_are_no_others():
    results = judged()
    results["status"].loc[{"input": RAW, "depth": 3, "connection": "both", "repeat": 1}] = Status.PENDING
    pairs = [(RAW, 3, "both"), (RAW, 6, "both")], [(RATE, 3, "both"), (RATE, 6, "both")]
    found = contrast(results, *pairs, POSES)
    assert found.first == pytest.approx(0.55) and len(found.by_repeat) == 3  # of the six-layer pair alone
    alone = contrast(results, pairs[0][:1], pairs[1][:1], POSES)
    assert alone.first == pytest.approx(0.555) and len(alone.by_repeat) == 2
    results["status"].values[0] = Status.FAILED
    assert contrast(results, *pairs, POSES) is None


def test_without_predictions_there_is_a_difference_and_no_interval():
    results = judged()
    results["prediction"].values[...] = np.nan
    found = contrast(results, [(RAW, 3, "both")], [(RATE, 3, "both")], POSES)
    assert found.difference == pytest.approx(0.105) and np.isnan(found.interval).all() and found.sure == 0
    assert against(results, (RATE, "ridge"), [(RATE, 3, "both")], POSES) == {}
    assert set(verdicts(results).values()) <= {OPEN, HOLDS, FAILS, EMPTY}
    assert "no interval" in conclusions(results, POSES)[0].figures


def test_one_test_pose_leaves_no_interval():
    found = contrast(judged(), [(RAW, 3, "both")], [(RATE, 3, "both")], np.zeros(TRIALS, int))
    assert np.isnan(found.interval).all() and found.difference == pytest.approx(0.105)


def test_several_models_against_one_leave_out_what_is_not_done():
    results = judged()
    results["status"].loc[{"input": RATE, "depth": 6, "connection": "both", "repeat": 2}] = Status.FAILED
    keys = [(RATE, 3, "both"), (RATE, 6, "both"), (RATE, "response_model")]
    found = against(results, (RATE, "ridge"), keys, POSES)
    assert list(found) == [(RATE, 3, "both"), (RATE, "response_model")]
    np.testing.assert_allclose(found[keys[0]], [-0.15] * 3, rtol=1e-6)
    np.testing.assert_allclose(found[keys[2]], [-0.25] * 3, rtol=1e-6)


# ---- verdicts -------------------------------------------------------------------------------------------------------


def test_the_papers_own_pattern_bears_out_its_conclusions():
    found = verdicts(judged())
    assert {claim: verdict for claim, verdict in found.items() if "choose" not in claim} == {
        "Firing rate beats raw |E|": HOLDS,
        "With firing rate, Synergy beats Direct": HOLDS,
        "With firing rate, Both beats Synergy": HOLDS,
        "With firing rate, 3 layers beat 6": HOLDS,
        "With raw |E|, 6 layers beat 3": HOLDS,
        "3-layer Both on firing rate is the best network": HOLDS,
        "A network beats ridge on the codes": HOLDS,
        "A network beats our response model": FAILS,
    }


def test_the_opposite_pattern_refutes_them():
    found = verdicts(judged(lambda *key: 1.0 - network_error(*key)))
    refuted = {claim for claim, verdict in found.items() if verdict == FAILS}
    assert refuted >= {"Firing rate beats raw |E|", "With firing rate, Synergy beats Direct",
                       "With firing rate, 3 layers beat 6", "With raw |E|, 6 layers beat 3",
                       "3-layer Both on firing rate is the best network"}  # fmt: skip


def test_a_difference_within_chance_is_left_open():
    keys = [(RATE, depth, connection) for depth in (3, 6) for connection in ("synergy", "both")]
    found = verdicts(judged(doubt=keys))
    assert found["With firing rate, Both beats Synergy"] == OPEN
    assert found["3-layer Both on firing rate is the best network"] == OPEN
    assert found["With raw |E|, 6 layers beat 3"] == HOLDS


def test_figures_are_those_of_the_two_sides_and_the_papers_stand_beside():
    found = {each.claim: each for each in conclusions(judged(), POSES)}
    first = found["With firing rate, 3 layers beat 6"]
    assert first.figures == (
        "NRMSE 0.465 with 6 layers, 0.460 with 3 layers: difference +0.005, 95 % interval +0.005 to +0.005; above 0 in "
        "3 of 3 repeats."
    )
    assert first.paper == "+0.006"  # (0.518 + 0.516 + 0.508 - 0.519 - 0.505 - 0.500) / 3
    assert found["Firing rate beats raw |E|"].paper == "+0.139"
    rival = found["A network beats our response model"]
    assert not rival.of_paper and rival.figures == (
        "The best network (the 3-layer Both mapper on firing rate, 0.450) against our response model (raw |E|), 0.350: "
        "difference −0.100, 95 % interval, all networks at once, −0.100 to −0.100; 0 of 12 networks are better beyond "
        "chance."
    )


@pytest.mark.parametrize(
    "bic, aicc, verdict",
    [((0, 1, 1), (0, 1, 1), HOLDS), ((0, 1, 1), (1, 0, 1), FAILS), ((0, 1, 1), (0, 0, 1), OPEN)],
    ids=["both 3 layers", "AICc 6 layers", "AICc undecided"],
)
def test_criteria_choose_a_depth_repeat_by_repeat(bic, aicc, verdict):
    results = judged()
    results["criteria_valid"].values[...] = True
    for name, lowest in (("bic", bic), ("aicc", aicc)):
        results[name].values[...] = 5.0
        for repeat in range(3):  # lowest: the place of the lowest value in each repeat; 2 of 3 in the third case
            depth = 0 if lowest[0] == 0 else 1
            depth = 1 if lowest == (0, 0, 1) and repeat == 2 else depth
            results[name].values[1, depth, 1, repeat] = 1.0
    claim = next(each for each in conclusions(results, POSES) if "choose" in each.claim)
    assert claim.verdict == verdict and claim.figures.startswith("BIC chooses 3-layer Synergy in 3 of 3 repeats; AICc")
    assert claim.paper == "both 3-layer Synergy"
    results["criteria_valid"].values[...] = False
    claim = next(each for each in conclusions(results, POSES) if "choose" in each.claim)
    assert claim.verdict == EMPTY and "means nothing" in claim.figures


def test_what_a_study_did_not_try_is_not_judged():
    assert set(verdicts(judged(inputs=(RATE,), depths=(3,), connections=("direct",), baselines={"ridge": np.nan,
               "response_model": np.nan}))) == set()  # fmt: skip
    found = verdicts(judged(inputs=(RAW, RATE), depths=(3,), connections=("both",)))
    assert set(found) == {"Firing rate beats raw |E|", "3-layer Both on firing rate is the best network",
                          "A network beats ridge on the codes", "A network beats our response model"}  # fmt: skip


# ---- order ----------------------------------------------------------------------------------------------------------


def test_the_order_has_the_floor_first_and_each_place_once():
    found = ranking(judged())
    assert [each.label for each in found[:3]] == ["Best possible", "Response model (ours)", "Response model (ours)"]
    assert found[3].key == (RATE, 3, "both") and found[-1].label == "Training mean"
    assert len(found) == 12 + 4 * 2 + 3
    assert found[0].standing == "floor" and found[1].standing == "best" and found[3].standing == "worse"
    assert found[3].above == pytest.approx(0.1) and found[3].mean == pytest.approx(0.45)


def test_models_with_fewer_repeats_come_after_those_with_all():
    results = judged()
    results["status"].loc[{"input": RATE, "depth": 3, "connection": "both", "repeat": 0}] = Status.PENDING
    results["status"].loc[{"input": RAW, "depth": 3, "connection": "both"}] = Status.FAILED
    found = ranking(results)
    assert [each.key for each in found[-2:]] == [(RATE, 3, "both"), (RAW, 3, "both")]
    rows = score_rows(results)
    assert rows[-2]["NRMSE"].endswith("(2/3)") and rows[-1]["NRMSE"] == rows[-1]["Standing"] == "failed"


def test_what_ignores_the_input_is_taken_from_where_most_repeats_are_done():
    results = judged()
    for name in ("mean", "gp_position"):
        results["baseline_nrmse"].loc[{"input": RAW, "baseline": name, "repeat": 1}] = np.nan
    found = {each.label: each for each in ranking(results)}
    assert found["Training mean"].known.size == 3 and found["GP on coil position"].known.size == 3


def test_one_repeat_has_no_sd():
    assert mean_sd(np.array([0.5])) == "0.500"
    assert mean_sd(np.array([0.5, 0.6])) == f"0.550 ± {0.1 / np.sqrt(2):.3f}"


# ---- in the terminal ------------------------------------------------------------------------------------------------


def test_score_lines_word_for_word():
    results = judged(repeats=(0,), depths=(3,), connections=("direct", "both"), doubt=[(RATE, "pls")],
                     baselines={"ridge_voxels": np.nan, "gp_position": np.nan, "pls": 0.36})  # fmt: skip
    failed = {"input": RAW, "connection": "direct"}
    results["status"].loc[failed] = Status.FAILED
    for name in ("nrmse_interval", "nrmse_above_best"):
        results[name].loc[failed] = np.nan
    lines = [re.sub(r"PLS on the codes       firing.*", "(chance)", line) for line in score_lines(results)]
    lines.remove("(chance)")
    assert lines == [
        "Test NRMSE             Input        Mean ± sd  95 %         Above",
        "Best possible          –            0.300      0.300–0.300",
        "Response model (ours)  raw |E|      0.350      0.350–0.350  best",
        "Response model (ours)  firing rate  0.350      0.350–0.350  best",
        "PLS on the codes       raw |E|      0.360      0.360–0.360  +0.010",
        "3-layer Both           firing rate  0.450      0.450–0.450  +0.100",
        "3-layer Direct         firing rate  0.470      0.470–0.470  +0.120",
        "3-layer Both           raw |E|      0.555      0.555–0.555  +0.205",
        "Ridge on the codes     raw |E|      0.600      0.600–0.600  +0.250",
        "Ridge on the codes     firing rate  0.600      0.600–0.600  +0.250",
        "Training mean          –            0.800      0.800–0.800  +0.450",
        "3-layer Direct         raw |E|      failed",
        "~ within chance of the best (95 % intervals, all models at once)",
    ]


def test_score_lines_fit_a_terminal_and_leave_the_typesetter_alone():
    results = judged(repeats=range(12), doubt=[(RATE, 3, "both")])
    results["status"].values[:, :, :, 0] = Status.FAILED
    lines = score_lines(results)
    assert any("(11/12)" in line for line in lines) and max(map(len, lines)) <= 80
    code = "import sys, motorsweep.jobs.report_tables as t; from motorsweep.zarr_store.mocks import mock_results as m; "
    code += "t.score_lines(m()); sys.exit(bool({'great_tables', 'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- sentences ------------------------------------------------------------------------------------------------------


def test_summary_names_the_best_its_limits_and_what_networks_add():
    text = " ".join(summary(evidence_of(judged())))
    assert text.startswith(
        "The lowest NRMSE on test trials is that of our response model (raw |E|): 0.350 ± 0.000 over 3 repeats (95 % "
        "interval 0.350 to 0.350), against 0.800 for the training mean and 0.300 for the best possible prediction."
    )
    assert "It is 90 % of the way from the training mean to the best possible score." in text
    assert "The best network is the 3-layer Both mapper on firing rate: 0.450 ± 0.000 over 3 repeats" in text
    assert "A network beats ridge on the codes, beyond chance. The best network" in text
    assert "A network beats our response model: no, not one does. The best network" in text
    assert "6 conclusions of the paper that this study can test, " in text and "do not hold" not in text


def test_summary_says_when_nothing_was_learned():
    bad = {name: 0.9 for name in BASELINES if name not in ("mean", "best_possible")}
    text = " ".join(summary(evidence_of(judged(lambda *key: 0.85, bad))))
    assert "It does not beat the training mean, so no model here has learned anything" in text


def test_summary_says_when_the_floor_is_undercut_by_chance():
    text = " ".join(summary(evidence_of(judged(baselines={"response_model": 0.25}))))
    assert "lies below the best possible prediction, which holds for trials on average" in text
    assert "with 12 test trials a repeat" in text


def test_summary_names_or_counts_what_is_within_chance():
    one = (RATE, 3, "both")
    results = judged(lambda *key: 0.36 if key == one else 0.6, doubt=[(RAW, "response_model"), one],
                     baselines={"response_model": 0.36})  # fmt: skip
    _, other = sorted(["our response model (raw |E|)", "the 3-layer Both mapper on firing rate"],
                         key=lambda name: name not in summary(evidence_of(results))[0])  # fmt: skip
    assert re.search(f"Within chance of it: .*{re.escape(other)}", " ".join(summary(evidence_of(results))))
    close = [(RATE, depth, each) for depth in (3, 6) for each in ("direct", "synergy", "both")]
    results = judged(lambda *key: 0.36, doubt=close)
    names = [each.name for each in ranking(results) if each.standing == "within chance"]
    assert len(names) > 3 and f"{len(names)} of the 20 others are within chance of it." in summary(evidence_of(results))


def test_a_study_whose_networks_all_failed_still_tells_of_the_others():
    results = judged()
    results["status"].values[...] = Status.FAILED
    words = summary(evidence_of(results))
    assert words[0] == "No network of this study is finished yet."
    assert "our response model" in words[1] and words[-1] == "0 of 36 trainings are done (36 failed)."


SIGMOID = {"e50_v_per_m": 69.0, "slope_v_per_m": 4.8}


def test_an_advantage_that_was_planted_is_called_so():
    said = "generated from the same sigmoid, with the same E50 and slope (half at 69.0 V/m, slope 4.8 V/m), as the"
    (text,) = input_words(evidence_of(judged(), **SIGMOID))
    assert said in text and "so its advantage is planted, not found." in text
    raw_wins = judged(lambda kind, *cell: 0.4 if kind == RAW else 0.5)
    (text,) = input_words(evidence_of(raw_wins, **SIGMOID))
    assert said in text and "that input lacks nothing that they depend on" in text
    cells = [(depth, each) for depth in (3, 6) for each in ("direct", "synergy", "both")]
    doubt = [(kind, *cell) for cell in cells for kind in (RAW, RATE)]  # raw |E| wrong in even trials, rate in odd ones
    (text,) = input_words(evidence_of(judged(lambda kind, *cell: 0.45 + 0.001 * (kind == RAW), doubt=doubt), **SIGMOID))
    assert "so any advantage is planted, not found." in text


def test_measured_responses_give_another_reason_why_firing_rate_loses():
    raw_wins = judged(lambda kind, *cell: 0.4 if kind == RAW else 0.5)
    (text,) = input_words(evidence_of(raw_wins, measured_trials(), **SIGMOID))
    assert "the assumed sigmoid (half at 69.0 V/m, slope 4.8 V/m) flattens" in text
    assert input_words(evidence_of(judged(), measured_trials())) == []


def test_more_parameters_than_data_is_said_and_not_where_it_is_not_so():
    results = judged()
    assert size_words(evidence_of(results)).startswith("All networks have more parameters than data: p = ")
    results["n_parameters"].values[...] = 20
    results["n_parameters"].loc[{"depth": 6, "connection": "both"}] = 84
    text = size_words(evidence_of(results))  # 28 training trials of 3 muscles
    assert text == "2 of 12 networks have more parameters than data: p = 84 for Nk = 84 responses."
    results["n_parameters"].values[...] = 83
    assert size_words(evidence_of(results)) == ""
    assert "AICc (equation 11) needs p < Nk − 2" in criteria_words(evidence_of(results))


# ---- uncertainty and synergies --------------------------------------------------------------------------------------


def test_coverage_and_error_of_a_predictor_that_is_off_by_one_sd():
    results = judged(inputs=(RATE,))
    results["baseline_sd"].values[...] = np.nan
    at = {"baseline": "response_model", "input": RATE}
    sd = np.abs(results["measured"] - results["baseline_prediction"].sel(at))
    results["baseline_sd"].loc[at] = sd.transpose("repeat", "test", "muscle").values
    (found,) = calibrations(results)
    assert found.count == 3 * TESTS * 3 and found.label == "Response model (ours), firing rate"
    np.testing.assert_array_equal(found.coverage, [level >= 0.6827 for level in LEVELS])
    np.testing.assert_allclose(found.sd, found.error, rtol=1e-9)
    assert "100 % (Response model (ours), firing rate)" in calibration_words(evidence_of(results))
    results["baseline_sd"].loc[at] = 0.0  # a muscle that never varies
    assert calibrations(results) == [] and calibration_words(evidence_of(results)) == ""


def test_a_normal_error_of_the_sd_that_is_told_is_covered_as_told():
    results = judged(inputs=(RATE,), muscles=tuple(f"m{k}" for k in range(60)))
    generator = np.random.default_rng(3)
    sd = generator.uniform(0.05, 0.2, results["measured"].shape)
    at = {"baseline": "gp_position", "input": RATE}
    results["baseline_sd"].values[...] = np.nan
    results["baseline_sd"].loc[at] = sd
    results["baseline_prediction"].loc[at] = results["measured"].values + sd * generator.standard_normal(sd.shape)
    (found,) = calibrations(results)
    np.testing.assert_allclose(found.coverage, LEVELS, atol=0.04)  # 2160 responses: sd of a share at most 0.011
    np.testing.assert_allclose(found.sd, found.error, rtol=0.2)


def test_synergies_are_counted_repeat_by_repeat():
    results = judged(n_synergies=2)
    results["synergy_basis"].values[1, :, 1] = np.nan
    results["synergy_vaf"].values[...] = [0.7, 0.9, 1.0]
    results["synergy_similarity"].values[...] = [[1.0, 1.0], [0.9, np.nan], [0.8, 0.7]]
    assert ranks_used(results) == [2, 1, 2]
    assert synergy_words(evidence_of(results)) == (
        "1 to 2 muscle synergies, factorised from the scaled training responses of each repeat; they account for 70.0 "
        "to 90.0 % of their variance (about zero). The same synergy in another repeat has a cosine of 0.80 (median; "
        "the least alike 0.70)."
    )
    assert synergy_words(evidence_of(judged(n_synergies=0))) == ""
