r"""How autoencoder and mappers are built and trained: as the paper says, or as its authors' released code does.

=====================================  ===========================  ==============================================
\                                      ``"paper"``                  ``"released"``
=====================================  ===========================  ==============================================
batch of the autoencoder, the mapper   32, 32                       4, 16
code and output convolution            1³                           3³
L1 penalty of a mapper                 convolution kernels          convolution and dense kernels
synergy mapper                         dense r, sigmoid: fitted to  dense r, times the basis, sigmoid: fitted to
                                       the activations; then B      the muscles
last kernel of a residual mapper       zero                         glorot-uniform
batch-norm statistics                  of the final weights         running, momentum 0.99
=====================================  ===========================  ==============================================

What neither settles is the same in both: pooling of stride 2, convolution, activation, batch norm and pooling in this
order, an output times the mask, epochs, rates and their decay, all after the released code, as the paper is silent.
The leaks of the released code are in neither.
"""

from dataclasses import dataclass

from ..errors import InputError

DEVICES = ("auto", "cpu", "cuda")
"""Words for what networks are trained on; auto is a GPU where there is one."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the two protocols differ in.

    Parameters
    ----------
    autoencoder_batch, mapper_batch : int
    code_kernel : int
        Edge of the code's and the output's convolution kernel, voxels.
    l1_dense : bool
        Whether a mapper's L1 penalty counts its dense kernels too.
    fit_activations : bool
        Whether a synergy mapper is fitted to the activations of the synergies, rather than to the muscles.
    zero_residual : bool
        Whether a residual mapper starts from a last kernel of zero.
    settle_batch_norm : bool
        Whether batch-norm statistics are computed anew with the final weights.
    """

    autoencoder_batch: int
    mapper_batch: int
    code_kernel: int
    l1_dense: bool
    fit_activations: bool
    zero_residual: bool
    settle_batch_norm: bool


PROTOCOLS = {
    "paper": Protocol(
        autoencoder_batch=32,
        mapper_batch=32,
        code_kernel=1,
        l1_dense=False,
        fit_activations=True,
        zero_residual=True,
        settle_batch_norm=True,
    ),
    "released": Protocol(
        autoencoder_batch=4,
        mapper_batch=16,
        code_kernel=3,
        l1_dense=True,
        fit_activations=False,
        zero_residual=False,
        settle_batch_norm=False,
    ),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    InputError
        An unknown name.

    Examples
    --------
    >>> protocol_of("released").mapper_batch
    16
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is not known; choose from {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """Training of the autoencoder.

    The rate in epoch e (from 0) is ``learning_rate * decay ** (e // decay_every)``; `l1` times the sum of absolute
    values of all convolution kernels is added to the mean squared error. A `batch` of 0 becomes the protocol's.

    Examples
    --------
    >>> AutoencoderTraining(protocol="released").batch
    4
    """

    protocol: str = "paper"
    epochs: int = 100
    batch: int = 0
    learning_rate: float = 0.1
    momentum: float = 0.9
    l1: float = 1e-4
    decay: float = 0.7
    decay_every: int = 20

    def __post_init__(self):
        object.__setattr__(self, "batch", self.batch or protocol_of(self.protocol).autoencoder_batch)


@dataclass(frozen=True, kw_only=True)
class MapperTraining:
    """Training of a mapper: Adadelta; rate and penalty as in `AutoencoderTraining`.

    `synergies` of 0 takes as many as account for `synergy_vaf` of the training responses' variance.
    """

    protocol: str = "paper"
    epochs: int = 150
    batch: int = 0
    learning_rate: float = 1.0
    rho: float = 0.95
    decay: float = 0.7
    decay_every: int = 20
    dropout: float = 0.15
    l1: float = 1e-4
    synergies: int = 9
    synergy_vaf: float = 0.95

    def __post_init__(self):
        object.__setattr__(self, "batch", self.batch or protocol_of(self.protocol).mapper_batch)
