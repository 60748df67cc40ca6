from dataclasses import replace

import numpy as np
import pytest
from motorsweep.errors import InputError
from motorsweep.sim.responses import (
    MUSCLES,
    ResponseModel,
    calibrate,
    expected_response,
    folded_mean,
    model_attributes,
    plant,
    recruit,
    respond,
    simulate_responses,
)
from scipy.integrate import quad
from scipy.stats import foldnorm, norm

N = 32
KNOB = np.array([-0.037, -0.021, 0.058])
E50, SLOPE = 69.0, 4.8
MODEL = ResponseModel()


@pytest.fixture(scope="module")
def cortex():
    """A 2 mm cube around the hand knob with a rippled 3 mm sheet of grey matter, and focal fields over it."""
    axes = tuple(centre + (np.arange(N) - (N - 1) / 2) * 2e-3 for centre in KNOB)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    normal = KNOB / np.linalg.norm(KNOB)
    depth = (points - KNOB) @ normal + 0.003 * np.sin(points[..., 1] / 0.004)
    tissue = np.where(np.abs(depth) < 2e-3, 2, np.where(depth < 0, 1, 3))
    mask = np.linalg.norm(points - KNOB, axis=-1) < 0.03

    def field(pose):
        """|E| per 1 A/µs, 1.5 V/m at the hotspot (pose 12 of 25, 5 mm apart), falling sideways and with depth."""
        shift = np.array([(pose // 5 - 2) * 5e-3, (pose % 5 - 2) * 5e-3, 0.0])
        offset = points - KNOB - shift
        radial = offset @ normal
        sideways = ((offset - radial[..., None] * normal) ** 2).sum(axis=-1)
        return (1.5 * np.exp(-sideways / (2 * 0.02**2) + radial / 0.03)).astype(np.float32)

    return axes, tissue, mask, field


@pytest.fixture(scope="module")
def motor_map(cortex):
    axes, tissue, mask, field = cortex
    planted = plant(axes, tissue, mask, MUSCLES, KNOB, MODEL)
    return calibrate(planted, 40 * field(12), E50, SLOPE, MODEL)


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    intensity = np.repeat([110, 120, 130, 140], [300, 149, 150, 100])
    return rng.integers(0, 25, len(intensity)), 40e6 * intensity / 100


def test_patches_are_planted_into_grey_matter(cortex, motor_map):
    _, tissue, mask, _ = cortex
    assert motor_map.muscles == MUSCLES
    assert (tissue.ravel()[motor_map.voxels] == 2).all()
    assert mask.ravel()[motor_map.voxels].all()
    np.testing.assert_allclose(motor_map.weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(motor_map.mixing.sum(axis=1), 1, rtol=1e-12)
    assert (motor_map.mixing >= 0).all()
    assert motor_map.weights.shape == (9 + 15, len(motor_map.voxels))


def test_synergies_are_sparse_and_own_patches_have_their_share(motor_map):
    np.testing.assert_allclose(motor_map.mixing[:, 9:], 0.3 * np.eye(15))
    taking_part = (motor_map.mixing[:, :9] > 0).sum(axis=1)
    assert taking_part.min() >= 1
    assert taking_part.mean() < 5
    assert np.linalg.matrix_rank(motor_map.mixing[:, :9]) >= 7


@pytest.mark.parametrize("side", [-1, 1])
def test_muscles_lie_along_the_strip_towards_the_midline(cortex, side):
    axes, tissue, mask, _ = cortex
    if side == 1:  # the same head, mirrored
        axes, tissue, mask = (-axes[0][::-1], *axes[1:]), tissue[::-1], mask[::-1]
    planted = plant(axes, tissue, mask, MUSCLES, KNOB * [-side, 1, 1], replace(MODEL, scatter_m=0.0))
    assert (np.sign(planted.centres_m[:, 0]) == side).all()
    assert np.corrcoef(np.abs(planted.centres_m[9:, 0]), np.arange(15))[0, 1] < -0.9


def test_planting_depends_on_the_seed_alone(cortex):
    axes, tissue, mask, _ = cortex
    again = [plant(axes, tissue, mask, MUSCLES, KNOB, replace(MODEL, seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(again[0].weights, again[1].weights)
    np.testing.assert_array_equal(again[0].half_drive, again[1].half_drive)
    assert not np.array_equal(again[0].half_drive, again[2].half_drive)


def test_a_mask_without_grey_matter_is_refused(cortex):
    axes, tissue, mask, _ = cortex
    with pytest.raises(InputError, match=r"0 voxels, none of them grey matter \(tag 2\).*hand knob"):
        plant(axes, tissue, np.zeros_like(mask), MUSCLES, KNOB, MODEL)


def test_at_threshold_the_target_muscle_gives_50_microvolt(cortex, motor_map):
    field = cortex[3]
    got = simulate_responses(field, [12], [40e6], E50, SLOPE, motor_map, MODEL, seed=1)
    assert got.median[0, 0] == pytest.approx(50e-6, rel=1e-5)


def test_a_threshold_out_of_reach_is_refused(cortex, motor_map):
    with pytest.raises(InputError, match=r"'FDI'.*drive at motor threshold is 0.*hotspot pose"):
        calibrate(motor_map, np.zeros((N, N, N)), E50, SLOPE, MODEL)


def test_recruitment_goes_from_floor_to_saturation():
    drive = np.array([0.0, 0.02, 1e9])
    amplitude = recruit(drive, 4e-3, 0.02, MODEL)
    np.testing.assert_allclose(amplitude, [5e-6, np.sqrt(5e-6 * 4e-3), 4e-3], rtol=1e-5)
    fine = recruit(np.linspace(0, 1, 1000), 4e-3, 0.02, MODEL)
    assert (np.diff(fine) > 0).all()


def test_folded_mean_is_that_of_scipy():
    amplitude = np.array([0.0, 1e-6, 10e-6, 50e-6, 1e-3])
    np.testing.assert_allclose(folded_mean(amplitude, 1e-5), foldnorm.mean(amplitude / 1e-5, scale=1e-5), rtol=1e-10)
    np.testing.assert_array_equal(folded_mean(amplitude, 0.0), amplitude)


@pytest.mark.parametrize("model", [MODEL, replace(MODEL, gain_sd=0.6, steepness=1.5), replace(MODEL, noise_v=0.0)])
@pytest.mark.parametrize("drive", [1e-4, 0.01, 0.1])
def test_expected_response_is_the_integral(motor_map, model, drive):
    sd = np.hypot(model.gain_sd, model.muscle_sd)
    for k in (0, 14):
        curve = motor_map.saturation_v[k], motor_map.half_drive[k], model

        def integrand(x, curve=curve):
            return norm.pdf(x) * folded_mean(recruit(drive * np.exp(sd * x), *curve), model.noise_v) * 1e6

        exact = quad(integrand, -8, 8, epsabs=0, epsrel=1e-12, limit=400)[0] / 1e6
        got = expected_response(np.full((1, 15), drive), motor_map, model)[0, k]
        assert got == pytest.approx(exact, rel=1e-9)


def test_expected_response_without_variability_is_the_median(motor_map):
    model = replace(MODEL, gain_sd=0.0, muscle_sd=0.0, noise_v=0.0)
    got = respond(np.full((3, 15), 0.02), motor_map, model, seed=1)
    np.testing.assert_allclose(got.expected, got.median, rtol=1e-12)
    np.testing.assert_allclose(got.measured, got.median, rtol=1e-12)


def test_many_trials_average_to_the_expected_response(motor_map):
    got = respond(np.full((40000, 15), 0.02), motor_map, MODEL, seed=2)
    standard_error = got.measured.std(axis=0) / np.sqrt(40000)
    assert (np.abs(got.measured.mean(axis=0) - got.expected[0]) < 4 * standard_error).all()
    assert (got.measured >= 0).all()


def test_half_of_the_default_variability_is_shared(motor_map):
    got = respond(np.full((40000, 15), 0.02), motor_map, replace(MODEL, noise_v=0.0), seed=2)
    ranks = got.measured[:, :2].argsort(axis=0).argsort(axis=0)
    # Spearman's coefficient of two normal variables with correlation 1/2
    assert np.corrcoef(ranks.T)[0, 1] == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.02)


def test_responses_are_realistic_and_their_ceiling_is_known(cortex, motor_map, trials):
    got = simulate_responses(cortex[3], *trials, E50, SLOPE, motor_map, MODEL, seed=3)
    span = np.ptp(got.measured, axis=0)

    def nrmse(prediction):
        low = got.measured.min(axis=0)
        return np.sqrt((((got.measured - prediction) / span) ** 2).sum() / (((got.measured - low) / span) ** 2).sum())

    ceiling, mean = nrmse(got.expected), nrmse(got.measured.mean(axis=0))
    assert 0.2 < ceiling < 0.5, f"best possible NRMSE {ceiling:.3f}"
    assert ceiling < 0.75 * mean < 0.75 * 0.95
    # zero-inflated, and some millivolts
    assert 0.05 < (got.measured < 50e-6).mean() < 0.8
    assert 1e-3 < got.measured.max() < 20e-3


def test_expected_beats_median_in_squared_error(cortex, motor_map, trials):
    got = simulate_responses(cortex[3], *trials, E50, SLOPE, motor_map, MODEL, seed=3)
    assert ((got.measured - got.expected) ** 2).sum() < ((got.measured - got.median) ** 2).sum()


def test_stronger_stimuli_drive_more(cortex, motor_map):
    got = simulate_responses(cortex[3], [12] * 4, 4e5 * np.array([110, 120, 130, 140]), E50, SLOPE, motor_map, MODEL, 1)
    assert (np.diff(got.drive, axis=0) > 0).all()
    assert (np.diff(got.expected, axis=0) > 0).all()


def test_arrays_and_callables_give_the_same_bits(cortex, motor_map):
    field = cortex[3]
    stack = np.stack([field(pose) for pose in range(3)])
    poses, didt = [2, 0, 1, 2], [45e6, 50e6, 44e6, 56e6]
    one = simulate_responses(field, poses, didt, E50, SLOPE, motor_map, MODEL, seed=4)
    two = simulate_responses(stack, poses, didt, E50, SLOPE, motor_map, MODEL, seed=4)
    for name in ("measured", "expected", "median", "drive"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    other = simulate_responses(field, poses, didt, E50, SLOPE, motor_map, MODEL, seed=5)
    assert not np.array_equal(one.measured, other.measured)
    np.testing.assert_array_equal(one.expected, other.expected)


def test_each_pose_is_read_once(cortex, motor_map):
    read = []

    def field(pose):
        read.append(pose)
        return cortex[3](pose)

    simulate_responses(field, [3, 1, 3, 1, 3], [40e6] * 5, E50, SLOPE, motor_map, MODEL, seed=1)
    assert read == [1, 3]


def test_unsolved_poses_and_uneven_trials_are_refused(motor_map):
    with pytest.raises(InputError, match=r"field of pose 7 is not finite"):
        simulate_responses(lambda pose: np.full((N, N, N), np.nan), [7], [1e6], E50, SLOPE, motor_map, MODEL, seed=1)
    with pytest.raises(InputError, match=r"\(2,\) pose numbers and \(1,\) rates"):
        simulate_responses(lambda pose: None, [7, 8], [1e6], E50, SLOPE, motor_map, MODEL, seed=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("synergies", 0), ("direct_share", 1.1), ("gain_sd", -0.1), ("noise_v", np.nan), ("floor_v", 0.0)],
)
def test_models_that_mean_nothing_are_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} = {value!r}"):
        ResponseModel(**{name: value})


def test_model_attributes_are_plain():
    assert model_attributes(MODEL)["gain_sd"] == 0.3
