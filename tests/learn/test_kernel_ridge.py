import numpy as np
import pytest
from motorsweep.learn.kernel_bases import basis_of, kernel_bases, principal_axes, standardised
from motorsweep.learn.kernel_ridge import PENALTIES, ridge, ridge_of_root
from scipy.spatial.transform import Rotation
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import KernelCenterer

N, E = 40, 7


def _trials(seed=0, k=1):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(N + E, 2))
    signal = np.sin(2 * x[:, :1]) + x[:, 1:] * np.arange(1, k + 1)
    return x, signal + 0.3 * generator.normal(size=(N + E, k)) + 3


def _basis(x):
    return basis_of("rbf", rbf_kernel(x, gamma=0.5), N)


def test_kernel_is_centred_as_by_scikit_learn_and_of_unit_variance():
    x, _ = _trials()
    basis = _basis(x)
    centred = KernelCenterer().fit_transform(rbf_kernel(x[:N], gamma=0.5))
    scale = np.trace(centred) / N
    np.testing.assert_allclose((basis.vectors * basis.values) @ basis.vectors.T, centred / scale, atol=1e-6)
    assert basis.values.sum() == pytest.approx(N, rel=1e-6)


def test_the_mean_of_a_gaussian_process():
    """With an intercept of its own, a constant kernel large beside the rest, it is scikit-learn's."""
    x, y = _trials()
    basis = _basis(x)
    _, predicted, penalties = ridge(basis, y[:N])
    kernel = rbf_kernel(x[:N], gamma=0.5)
    scale = np.trace(KernelCenterer().fit_transform(kernel)) / N
    process = GaussianProcessRegressor(
        ConstantKernel(1e5, "fixed") + RBF(1.0, "fixed"), alpha=penalties[0] * scale, optimizer=None
    ).fit(x[:N], y[:N, 0])
    np.testing.assert_allclose(predicted[:, 0], process.predict(x[N:]), atol=5e-4)


def test_left_out_predictions_are_those_of_refits_and_choose_as_ridgecv_does():
    x, y = _trials()
    basis = _basis(x)
    features = basis.vectors * np.sqrt(basis.values)
    left_out, _, penalties = ridge(basis, y[:N])
    refits = []
    for i in range(N):
        others = np.arange(N) != i
        model = Ridge(alpha=penalties[0]).fit(features[others], y[:N][others, 0])
        refits.append(model.predict(features[i : i + 1])[0])
    np.testing.assert_allclose(left_out[:, 0], refits, atol=1e-8)
    assert penalties[0] == RidgeCV(alphas=PENALTIES).fit(features, y[:N, 0]).alpha_


def test_muscles_that_share_one_signal_are_predicted_from_their_components():
    generator = np.random.default_rng(1)
    x, y = _trials()
    shares = generator.uniform(0.5, 2, 12)
    noisy = (y - 3) * shares + 1.5 * generator.normal(size=(N + E, 12)) + 10
    truth = (np.sin(2 * x[:, :1]) + x[:, 1:]) * shares + 10
    together = ridge(_basis(x), noisy[:N])[1]
    apart = np.hstack([ridge(_basis(x), noisy[:N, k : k + 1])[1] for k in range(12)])
    assert np.square(together - truth[N:]).mean() < np.square(apart - truth[N:]).mean()


def test_root_takes_back_to_the_mean_not_the_median():
    generator = np.random.default_rng(2)
    x = generator.uniform(-1, 1, (2000, 1))
    mean = np.exp(1.5 * x[:, 0])
    y = (mean * np.exp(0.8 * generator.normal(size=2000) - 0.32))[:, None]
    basis = basis_of("rbf", rbf_kernel(x, gamma=1.0)[:1900], 400)
    left_out, predicted = ridge_of_root(basis, y[:400])
    assert left_out.mean() == pytest.approx(y[:400].mean(), rel=0.01)
    np.testing.assert_allclose(predicted[:, 0], mean[400:1900], rtol=0.35)
    assert np.log(predicted[:, 0] / mean[400:1900]).mean() == pytest.approx(0, abs=0.1)


def test_principal_axes_follow_the_places():
    generator = np.random.default_rng(3)
    places = generator.normal(size=(50, 3)) * [20, 10, 1]
    turned = Rotation.random(rng=3).apply(places) + 5.0
    ours, other = principal_axes(places, 50), principal_axes(turned, 50)
    np.testing.assert_allclose(np.abs(ours), np.abs(other), atol=1e-9)
    assert (ours[:, :2] ** 2).mean() == pytest.approx(1.0)


def test_constant_inputs_are_no_kernel():
    assert basis_of("constant", np.full((5, 5), 3.0), 4) is None
    assert list(kernel_bases(np.ones((6, 9), np.float32), np.ones((6, 3)), None, np.arange(4), np.arange(4, 6))) == []
    assert not standardised(np.full((4, 2), 7.0), 3).any()


def test_fields_of_many_voxels_and_their_scale():
    generator = np.random.default_rng(4)
    modes = generator.random((5, 50_000))
    fields = (generator.random((30, 5)) @ modes).astype(np.float32)
    kept = {}
    for unit in (1.0, 64.0):
        bases = kernel_bases(fields * np.float32(unit), None, None, np.arange(25), np.arange(25, 30))
        kept[unit] = {basis.name: basis for basis in bases}
    assert sorted(kept[1.0]) == sorted(kept[64.0])
    linear = kept[1.0]["field^1 linear"]
    assert (linear.values > 1e-4).sum() == 5
    for name, basis in kept[1.0].items():
        np.testing.assert_allclose(basis.values[:3], kept[64.0][name].values[:3], rtol=1e-4)
