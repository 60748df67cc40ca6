"""The network of the second paper's Table 1: connectivity matrices of the EEG to a matrix of the EMG.

    5 x 19 x 19 → conv 7² (25), ReLU → conv 5² (50), ReLU → conv 3² (100), ReLU → dense 36 → 6 x 6

Stride 1, no padding: 19² becomes 13², 9², 7². What the paper leaves open is settled so: kernels start glorot-uniform
and biases at zero (the default of MATLAB's layers, which the authors used); "zero center normalization" subtracts the
training records' mean image, entry by entry, and divides by nothing.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError

FILTERS = ((25, 7), (50, 5), (100, 3))
"""Kernels and their edge, of each convolution layer."""
FEWEST_EEG = 1 + sum(edge - 1 for _, edge in FILTERS)
"""EEG channels that the convolutions need: below 13, nothing is left of the image."""


class EmgNet(nn.Module):
    """The layers, and what is subtracted and divided before and after them.

    Parameters
    ----------
    n_measures, n_eeg, n_emg : int
        As in `build_emgnet`.

    Attributes
    ----------
    centre : Tensor (n_measures, n_eeg, n_eeg)
        Subtracted from an input; 0 until `normalise` sets it.
    spread : Tensor (n_measures, 1, 1)
        Divides a centred input; 1, as in the paper, unless `normalise` is told otherwise.
    offset : Tensor (n_emg, n_emg)
        Added to an output; 0, as in the paper.
    unit : Tensor ()
        Multiplies an output before that; 1, as in the paper.
    """

    def __init__(self, n_measures: int, n_eeg: int, n_emg: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels, edge = n_measures, n_eeg
        for filters, kernel in FILTERS:
            layers += [nn.Conv2d(channels, filters, kernel), nn.ReLU()]
            channels, edge = filters, edge - kernel + 1
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * edge**2, n_emg**2))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.n_emg = n_emg
        self.register_buffer("centre", torch.zeros(n_measures, n_eeg, n_eeg))
        self.register_buffer("spread", torch.ones(n_measures, 1, 1))
        self.register_buffer("offset", torch.zeros(n_emg, n_emg))
        self.register_buffer("unit", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """EMG matrices (b, n_emg, n_emg) for connectivity matrices (b, n_measures, n_eeg, n_eeg)."""
        outputs = self.layers((features - self.centre) / self.spread)
        return outputs.unflatten(1, (self.n_emg, self.n_emg)) * self.unit + self.offset

    def normalise(self, features: np.ndarray, targets: np.ndarray | None = None, *, spread: bool = False) -> None:
        """Take the mean image of training records.

        Parameters
        ----------
        features : array (n, n_measures, n_eeg, n_eeg)
            Training records alone.
        targets : array (n, n_emg, n_emg), optional
            With them, outputs are in units of the targets' standard deviation about their mean matrix.
        spread : bool
            Whether each measure is divided by its standard deviation about the mean image.
        """
        features = np.asarray(features, np.float64)
        centre = features.mean(0)
        self.centre.copy_(torch.from_numpy(centre))
        if spread:
            sd = np.sqrt(np.mean((features - centre) ** 2, axis=(0, 2, 3)))
            self.spread.copy_(torch.from_numpy(_at_least_rounding(sd, np.abs(features).max((0, 2, 3))))[:, None, None])
        if targets is not None:
            targets = np.asarray(targets, np.float64)
            offset = targets.mean(0)
            sd = np.sqrt(np.mean((targets - offset) ** 2))
            self.offset.copy_(torch.from_numpy(offset))
            self.unit.copy_(torch.from_numpy(_at_least_rounding(sd, np.abs(targets).max())))


def build_emgnet(n_measures: int = 5, n_eeg: int = 19, n_emg: int = 6) -> EmgNet:
    """A fresh network, its weights drawn from torch's global generator.

    Parameters
    ----------
    n_measures : int
        Connectivity measures, the channels of the image.
    n_eeg : int
        EEG channels, at least 13; the image is n_eeg x n_eeg.
    n_emg : int
        EMG channels; the output is n_emg x n_emg.

    Returns
    -------
    EmgNet

    Raises
    ------
    InputError
        Too few EEG channels for the kernels, or no measure or muscle.

    Examples
    --------
    >>> net = build_emgnet()
    >>> sum(parameter.numel() for parameter in net.parameters())
    258986
    >>> net(torch.zeros(2, 5, 19, 19)).shape
    torch.Size([2, 6, 6])
    """
    check_eeg_channels(n_eeg)
    if n_measures < 1 or n_emg < 1:
        raise InputError(
            f"EMG network for {n_measures} connectivity measures and {n_emg} EMG channels: it needs at least one of "
            "each, or there is nothing to read or to predict. Check [connectivity] measures and the EMG channels."
        )
    return EmgNet(n_measures, n_eeg, n_emg)


def check_eeg_channels(n_eeg: int) -> None:
    """Refuse so few EEG channels that the network cannot be built for them.

    Parameters
    ----------
    n_eeg : int

    Raises
    ------
    InputError
        Fewer than 13.

    Examples
    --------
    >>> check_eeg_channels(13)
    """
    if n_eeg < FEWEST_EEG:
        raise InputError(
            f"EMG network for {n_eeg} EEG channel{'' if n_eeg == 1 else 's'}: its kernels of 7², 5² and 3² without "
            f"padding leave nothing of an image smaller than {FEWEST_EEG} x {FEWEST_EEG}; give at least {FEWEST_EEG} "
            "EEG channels, or go by the predictors without a network."
        )


def _at_least_rounding(sd, largest) -> np.ndarray:
    """The standard deviation, or 1 where it is rounding error: dividing by that would blow noise up."""
    return np.where(sd > 1e-7 * largest, sd, 1.0)
