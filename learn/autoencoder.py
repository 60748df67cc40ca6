"""The convolutional autoencoder of M2M-Net: volumes (n³) to codes ((n/4)³) and back (sections 2.4 and 2.5).

    encoder: conv 3³ 1→32, ELU, max-pool 2;  conv 3³ 32→64, ELU, max-pool 2;  conv 64→1 (the code)
    decoder: conv 3³ 1→64, ELU, upsample 2;  conv 3³ 64→32, ELU, upsample 2;  conv 32→1, linear, times the mask

The two convolutions to one channel are 1³ in the paper (113 474 parameters) and 3³ in the authors' released code
(115 970). Pooling has stride 2 (with the stride of 1 printed in the paper, 64 could not become 16), upsampling repeats
each voxel, and the output is multiplied by the motor-cortex mask, as in the authors' released code. The code itself is
linear.

Training this net is most of the work of a study, so on the CPU it is not computed as it is written, but by algebra that
is exact up to rounding (a test compares it with the plain layers, values and gradients):

- ELU is monotone: pooling first gives the same numbers from an eighth of the exponentials;
- the gradient of convolution and pooling together is seven eighths zeros, which `pooled_convolution` skips;
- upsampling and then a 3³ convolution equals eight 2³ convolutions of the small volume (`upsampled_convolution`);
- the output convolution and ELU need no upsampled input: a coarse voxel's products are made once and added to the fine
  voxels that see it;
- where the volume is empty the encoder's numbers are known, and where the mask is zero the decoder's are not asked for:
  neither is computed.

That is the form "masked". "plain" are torch's own layers as written, up to the order of ELU and pooling; "transposed"
makes upsampling and 3³ convolution one transposed convolution of 4³ with stride 2: the same sums, 64 products a coarse
voxel in place of 216. The CPU takes "masked", other devices "plain", if nothing else is set.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .pooled_convolution import Background, convolve_and_pool
from .pooled_kernels import WIDTH
from .upsampled_convolution import (
    convolve_transposed,
    convolve_upsampled_rows,
    masked_voxels,
    upsample_and_convolve_rows,
)

FORMS = ("masked", "plain", "transposed")


class Autoencoder(nn.Module):
    """M2M-Net's autoencoder for volumes of n³ voxels; see the module's text for its layers.

    Parameters
    ----------
    n : int
        Voxels along each axis; a multiple of 4.
    mask : Tensor, shape (n, n, n), optional
        Factor of the output, 1 inside the motor cortex and 0 outside; all ones without it. Kept as buffer ``mask``.
    kernel : int
        Edge of the kernels of the code and of the output: 1 as in the paper, 3 as in the authors' released code.

    Attributes
    ----------
    form : str or None
        One of `FORMS`: how the layers are computed, see the module's text; None leaves it to the device.

    Raises
    ------
    InputError
        n is no multiple of 4, the mask has another shape, or the kernel is neither 1 nor 3.
    """

    def __init__(self, n: int = 64, mask: Tensor | None = None, kernel: int = 1):
        super().__init__()
        if kernel not in (1, 3):
            raise InputError(
                f"autoencoder with code and output kernels of {kernel}³: the paper has 1³ and the authors' released "
                "code 3³; give 1 or 3."
            )
        if n < 4 or n % 4:
            raise InputError(
                f"autoencoder for volumes of {n}³: two poolings halve each axis twice, so n must be a multiple of 4; "
                "set [volume] n to 64, or to another multiple of 4."
            )
        if mask is None:
            mask = torch.ones(n, n, n)
        if tuple(mask.shape) != (n, n, n):
            raise InputError(
                f"autoencoder for volumes of {n}³: the mask has shape {tuple(mask.shape)}. It multiplies the output "
                "voxel by voxel; give the mask on the volumes' own grid."
            )
        self.n, self.form = n, None
        self.encoder_1 = nn.Conv3d(1, WIDTH, 3, padding=1)
        self.encoder_2 = nn.Conv3d(WIDTH, 2 * WIDTH, 3, padding=1)
        self.code = nn.Conv3d(2 * WIDTH, 1, kernel, padding=kernel // 2)
        self.decoder_1 = nn.Conv3d(1, 2 * WIDTH, 3, padding=1)
        self.decoder_2 = nn.Conv3d(2 * WIDTH, WIDTH, 3, padding=1)
        self.output = nn.Conv3d(WIDTH, 1, kernel, padding=kernel // 2)
        self.register_buffer("mask", mask.to(torch.float32))
        for layer in self.convolutions():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def convolutions(self) -> tuple[nn.Conv3d, ...]:
        """The six convolution layers, from input to output; their kernels carry the L1 penalty."""
        return self.encoder_1, self.encoder_2, self.code, self.decoder_1, self.decoder_2, self.output

    def _form_for(self, x: Tensor) -> str:
        # the kernels of "masked" know no autocast
        on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return self.form or ("masked" if on_cpu else "plain")

    def encode(self, x: Tensor) -> Tensor:
        """Codes (b, 1, n/4, n/4, n/4) of volumes (b, 1, n, n, n)."""
        if self._form_for(x) != "masked":
            return self.code(_pool_elu(self.encoder_2(_pool_elu(self.encoder_1(x)))))
        x, background = convolve_and_pool(x, self.encoder_1.weight, self.encoder_1.bias)
        if background is not None:
            background = Background(background.where, functional.elu(background.value))
        x, _ = convolve_and_pool(functional.elu(x), self.encoder_2.weight, self.encoder_2.bias, background)
        return _convolve_to_one(functional.elu(x), self.code)

    def decode(self, code: Tensor) -> Tensor:
        """Volumes (b, 1, n, n, n), zero outside the mask, of codes (b, 1, n/4, n/4, n/4)."""
        form, x = self._form_for(code), functional.elu(self.decoder_1(code))
        if form == "masked":
            voxels = masked_voxels(self.mask, reach=self.output.kernel_size[0] // 2)
            rows = functional.elu(convolve_upsampled_rows(x, self.decoder_2.weight, self.decoder_2.bias, voxels))
            x = upsample_and_convolve_rows(rows, self.output.weight, self.output.bias, voxels, self.n)
        else:
            layer = convolve_transposed if form == "transposed" else _upsample_convolve
            x = layer(functional.elu(layer(x, self.decoder_2)), self.output)
        return x * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Volumes (b, 1, n, n, n) rebuilt from their own codes."""
        return self.decode(self.encode(x))


def _pool_elu(x: Tensor) -> Tensor:
    return functional.elu(functional.max_pool3d(x, 2))


def _upsample_convolve(x: Tensor, layer: nn.Conv3d) -> Tensor:
    return layer(functional.interpolate(x, scale_factor=2))


def _convolve_to_one(x: Tensor, layer: nn.Conv3d) -> Tensor:
    """layer(x) for a layer with one output channel: channels first, as a product over channels-last memory."""
    taps = functional.linear(x.permute(0, 2, 3, 4, 1), layer.weight.reshape(x.shape[1], -1).T)
    if taps.shape[-1] == 1:
        return taps.permute(0, 4, 1, 2, 3) + layer.bias
    edge = layer.kernel_size[0]
    shifts = ((tap, [edge // 2 - t for t in np.unravel_index(tap, (edge,) * 3)]) for tap in range(edge**3))
    return sum(_shift(taps[..., tap], shift) for tap, shift in shifts)[:, None] + layer.bias


def _shift(x: Tensor, shift: list[int]) -> Tensor:
    """Move (b, i, j, k) by shift voxels along its last axes; zeros come in."""
    return functional.pad(x, [side for s in reversed(shift) for side in (int(s), -int(s))])


def build_autoencoder(n: int = 64, mask: Tensor | None = None, kernel: int = 1) -> Autoencoder:
    """A fresh autoencoder with glorot-uniform kernels and zero biases, drawn from torch's global generator.

    Parameters
    ----------
    n : int
        Voxels along each axis; a multiple of 4.
    mask : Tensor, shape (n, n, n), optional
        Factor of the output; all ones without it.
    kernel : int
        Edge of the kernels of the code and of the output: 1 (the paper) or 3 (the authors' released code).

    Returns
    -------
    Autoencoder

    Raises
    ------
    InputError
        n is no multiple of 4, the mask has another shape, or the kernel is neither 1 nor 3.

    Examples
    --------
    >>> net = build_autoencoder(8)
    >>> net.encode(torch.zeros(3, 1, 8, 8, 8)).shape
    torch.Size([3, 1, 2, 2, 2])
    """
    return Autoencoder(n, mask, kernel)
