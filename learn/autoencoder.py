"""The convolutional autoencoder of M2M-Net: volumes (n³) to codes ((n/4)³) and back (sections 2.4 and 2.5).

    encoder: conv 3³ 1→32, ELU, max-pool 2;  conv 3³ 32→64, ELU, max-pool 2;  conv 1³ 64→1 (the code)
    decoder: conv 3³ 1→64, ELU, upsample 2;  conv 3³ 64→32, ELU, upsample 2;  conv 1³ 32→1, linear, times the mask

Pooling has stride 2 (with the stride of 1 printed in the paper, 64 could not become 16), upsampling repeats each voxel,
and the output is multiplied by the motor-cortex mask, as in the authors' released code. The code itself is linear.

Training this net is most of the work of a study, so it is not computed as it is written, but by algebra that is exact
up to rounding (a test compares it with the plain layers, values and gradients):

- ELU is monotone: pooling first gives the same numbers from an eighth of the exponentials;
- the gradient of convolution and pooling together is seven eighths zeros, which `pooled_convolution` skips;
- upsampling and then a 3³ convolution equals eight 2³ convolutions of the small volume, one for each place of a fine
  voxel in its coarse voxel, with kernels that are sums of the 3³ kernel: 8 products a voxel instead of 27;
- the 1³ output convolution and ELU act voxel by voxel, so they come before the last upsampling, which then repeats
  one channel in place of 32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .pooled_convolution import WIDTH, convolve_and_pool

# Which taps of a 3-kernel on the doubled line fall on the same coarse voxel: _FOLD[place, coarse tap, fine tap].
# At place 0 (left half of a voxel) the taps fall on the left neighbour, itself, itself; at place 1 on itself, itself
# and the right neighbour.
_FOLD = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


class Autoencoder(nn.Module):
    """M2M-Net's autoencoder, 113 474 parameters, for volumes of n³ voxels; see the module's text for its layers.

    Parameters
    ----------
    n : int
        Voxels along each axis; a multiple of 4.
    mask : Tensor, shape (n, n, n), optional
        Factor of the output, 1 inside the motor cortex and 0 outside; all ones without it. Kept as buffer ``mask``.

    Raises
    ------
    InputError
        n is no multiple of 4, or the mask has another shape.
    """

    def __init__(self, n: int = 64, mask: Tensor | None = None):
        super().__init__()
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
        self.n = n
        self.encoder_1 = nn.Conv3d(1, WIDTH, 3, padding=1)
        self.encoder_2 = nn.Conv3d(WIDTH, 2 * WIDTH, 3, padding=1)
        self.code = nn.Conv3d(2 * WIDTH, 1, 1)
        self.decoder_1 = nn.Conv3d(1, 2 * WIDTH, 3, padding=1)
        self.decoder_2 = nn.Conv3d(2 * WIDTH, WIDTH, 3, padding=1)
        self.output = nn.Conv3d(WIDTH, 1, 1)
        self.register_buffer("mask", mask.to(torch.float32))
        for layer in self.convolutions():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def convolutions(self) -> tuple[nn.Conv3d, ...]:
        """The six convolution layers, from input to output; their kernels carry the L1 penalty."""
        return self.encoder_1, self.encoder_2, self.code, self.decoder_1, self.decoder_2, self.output

    def encode(self, x: Tensor) -> Tensor:
        """Codes (b, 1, n/4, n/4, n/4) of volumes (b, 1, n, n, n)."""
        x = functional.elu(convolve_and_pool(x, self.encoder_1.weight, self.encoder_1.bias))
        x = functional.elu(convolve_and_pool(x, self.encoder_2.weight, self.encoder_2.bias))
        return _mix_channels(x, self.code)

    def decode(self, code: Tensor) -> Tensor:
        """Volumes (b, 1, n, n, n), zero outside the mask, of codes (b, 1, n/4, n/4, n/4)."""
        x = functional.elu(self.decoder_1(code))
        x = _convolve_upsampled(x, self.decoder_2, self.output)
        x = _repeat_voxels(x)
        return x * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Volumes (b, 1, n, n, n) rebuilt from their own codes."""
        return self.decode(self.encode(x))


def _mix_channels(x: Tensor, layer: nn.Conv3d) -> Tensor:
    """1³ convolution to one channel, as a matrix-vector product over channels-last memory."""
    return functional.linear(x.permute(0, 2, 3, 4, 1), layer.weight.flatten(1), layer.bias).permute(0, 4, 1, 2, 3)


def _convolve_upsampled(x: Tensor, layer: nn.Conv3d, output: nn.Conv3d) -> Tensor:
    """output(elu(layer(upsample(x)))) for x (b, c, m, m, m), as (b, 1, 2m, 2m, 2m)."""
    batch, _, *shape = x.shape
    fold = _FOLD.to(x)
    kernels = torch.einsum("aik,bjl,cmn,odkln->abcodijm", fold, fold, fold, layer.weight)
    padded = functional.pad(x, (1,) * 6)
    places = []
    for i, j, k in ((i, j, k) for i in range(2) for j in range(2) for k in range(2)):
        window = padded[:, :, i : i + shape[0] + 1, j : j + shape[1] + 1, k : k + shape[2] + 1]
        window = window.contiguous(memory_format=torch.channels_last_3d)
        kernel = kernels[i, j, k].contiguous(memory_format=torch.channels_last_3d)
        places.append(_mix_channels(functional.elu(functional.conv3d(window, kernel, layer.bias)), output))
    fine = torch.stack(places, dim=-1).reshape(batch, *shape, 2, 2, 2)
    return fine.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, 1, *(2 * n for n in shape))


def _repeat_voxels(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling of (b, 1, m, m, m) by 2 along each axis."""
    batch, channels, i, j, k = x.shape
    wide = x[:, :, :, None, :, None, :, None].expand(batch, channels, i, 2, j, 2, k, 2)
    return wide.reshape(batch, channels, 2 * i, 2 * j, 2 * k)


def build_autoencoder(n: int = 64, mask: Tensor | None = None) -> Autoencoder:
    """A fresh autoencoder with glorot-uniform kernels and zero biases, drawn from torch's global generator.

    Parameters
    ----------
    n : int
        Voxels along each axis; a multiple of 4.
    mask : Tensor, shape (n, n, n), optional
        Factor of the output; all ones without it.

    Returns
    -------
    Autoencoder

    Raises
    ------
    InputError
        n is no multiple of 4, or the mask has another shape.

    Examples
    --------
    >>> net = build_autoencoder(8)
    >>> net.encode(torch.zeros(3, 1, 8, 8, 8)).shape
    torch.Size([3, 1, 2, 2, 2])
    """
    return Autoencoder(n, mask)
