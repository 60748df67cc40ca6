"""Gaussian process regression of several outputs that share one kernel."""

import warnings

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel


class SharedProcess(GaussianProcessRegressor):
    """scikit-learn's process, with the gradient of the outputs' summed likelihood taken at once.

    The gradient needs the sum of the outputs' outer products only, where the parent makes an (n, n) matrix for each
    output. Same numbers: equation 5.9 of Rasmussen & Williams (2006), summed as in their section 5.4.3.
    """

    def log_marginal_likelihood(self, theta=None, eval_gradient=False, clone_kernel=True):
        """Summed log-likelihood of the outputs at the kernel's parameters, and its gradient; as the parent's."""
        if theta is None or not eval_gradient:
            return super().log_marginal_likelihood(theta, eval_gradient, clone_kernel)
        covariance, gradient = self.kernel_.clone_with_theta(theta)(self.X_train_, eval_gradient=True)
        covariance[np.diag_indices_from(covariance)] += self.alpha
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except LinAlgError:
            return -np.inf, np.zeros_like(theta)
        outputs = self.y_train_.reshape(len(covariance), -1)
        n, k = outputs.shape
        inverse = cho_solve((factor, True), np.eye(n), check_finite=False)
        weights = inverse @ outputs
        log_root = np.log(np.diag(factor)).sum()
        value = -0.5 * np.sum(outputs * weights) - k * (log_root + 0.5 * n * np.log(2 * np.pi))
        return value, 0.5 * np.tensordot(weights @ weights.T - k * inverse, gradient, axes=2)


class SpaceRBF(RBF):
    """Squared exponential of the distance in one space: the columns start:stop of the inputs, with one length scale."""

    def __init__(self, length_scale=1.0, length_scale_bounds=(0.05, 50.0), start=0, stop=None):
        super().__init__(length_scale, length_scale_bounds)
        self.start, self.stop = start, stop

    def __call__(self, X, Y=None, eval_gradient=False):
        """Kernel of rows X with rows Y (or each other), and its gradient by the log of the length."""
        here = slice(self.start, self.stop)
        return super().__call__(X[:, here], None if Y is None else Y[:, here], eval_gradient)


def fit_process(spaces: list[np.ndarray], y: np.ndarray) -> SharedProcess:
    """A process from spaces to y whose parameters maximise the summed log-likelihood of the outputs.

    The kernel is a constant, times a squared exponential with a length scale of its own for each space, plus white
    noise; each output is standardised, so that they can share it.

    Parameters
    ----------
    spaces : list of arrays, shape (n, d) each
        Inputs, such as a position in three columns, and an intensity in one; each with a spread of about 1.
    y : array, shape (n, k)
        Outputs, none of them constant.

    Returns
    -------
    SharedProcess
        Fitted on the spaces side by side; ``predict(x, return_std=True)`` gives the mean and the standard deviation of
        a new observation.

    Examples
    --------
    >>> x = np.linspace(-2, 2, 9)[:, None]
    >>> mean, sd = fit_process([x], np.hstack([x, -x])).predict(np.array([[0.0]]), return_std=True)
    >>> bool(np.abs(mean).max() < 0.05)
    True
    """
    kernel, start = ConstantKernel(1.0, (1e-3, 1e2)), 0
    for space in spaces:
        kernel, start = kernel * SpaceRBF(start=start, stop=start + space.shape[1]), start + space.shape[1]
    process = SharedProcess(kernel + WhiteKernel(0.5, (1e-4, 10.0)), normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a space that says nothing has a length at its bound
        return process.fit(np.concatenate(spaces, axis=1), y)
