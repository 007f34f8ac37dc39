"""MobileSAM's image encoder: TinyViT-5M at 1024 x 1024, batch norms folded in, for inference only.

Method: TinyViT (arXiv 2207.10666, table 6, TinyViT-5M) as changed by MobileSAM (arXiv 2306.14289):
the last stage does not halve the resolution, and SAM's neck follows it.

Legend: B images, H and W the resolution of a stage, C channels, w window side, n windows,
h heads, d channels a head. Maps are channels-last in memory: [B, C, H, W] in convolutions is
[B, H, W, C] in attention without a copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.errors import WeightsError

INPUT_SIDE = 1024
_DIMS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_HEAD_DIM = 32
_WINDOWS = (0, 7, 14, 7)
_DOWNSAMPLE_STRIDES = (2, 2, 1)
_EXPANSION = 4
_NECK_DIM = 256
_BATCH_NORM_EPS = 1e-5
_BAND_ROWS = 16
_UNUSED = ("norm_head.weight", "norm_head.bias", "head.weight", "head.bias")
"""The classification head TinyViT was pre-trained with; MobileSAM's file still carries it."""


class TinyViT(nn.Module):
    """Images to SAM's image embeddings; weights come from `load`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem(_DIMS[0])
        self.stages = nn.ModuleList()
        for index, (dim, depth, window) in enumerate(zip(_DIMS, _DEPTHS, _WINDOWS, strict=True)):
            blocks = [
                _ResidualBottleneck(dim) if index == 0 else _WindowBlock(dim, window)
                for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
        self.downsamples = nn.ModuleList(
            _Bottleneck(_DIMS[i], _DIMS[i + 1], _DIMS[i + 1], stride=stride)
            for i, stride in enumerate(_DOWNSAMPLE_STRIDES)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(_DIMS[-1], _NECK_DIM, 1, bias=False),
            _ChannelNorm(_NECK_DIM),
            nn.Conv2d(_NECK_DIM, _NECK_DIM, 3, padding=1, bias=False),
            _ChannelNorm(_NECK_DIM),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 1024, 1024] normalised pixels to [B, 256, 64, 64] embeddings."""
        x = self.stem(pixels)  # [B, 64, 256, 256]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index < len(self.downsamples):
                x = self.downsamples[index](x)  # [B, 128, 128, 128], [B, 160, 64, 64], [B, 320, ..]
        embedding: Tensor = self.neck(x)  # [B, 256, 64, 64]
        return embedding


class _Stem(nn.Module):
    """Two 3 x 3 convolutions with stride 2; the height of the pixels is a multiple of 4."""

    def __init__(self, out_dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, out_dim // 2, 3, stride=2, padding=1)
        self.second = nn.Conv2d(out_dim // 2, out_dim, 3, stride=2, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        bands = []
        for start, stop in _bands(pixels.shape[2] // 4, pixels):
            first = max(start * 2 - 1, 0)  # of the rows between the two convolutions
            top = first * 2 - 1
            strip = F.pad(pixels[:, :, max(top, 0) : stop * 4], (0, 0, max(-top, 0), 0))
            middle = F.gelu(_conv_band(strip, self.first))
            middle = F.pad(middle, (0, 0, int(start == 0), 0))
            bands.append(_conv_band(middle, self.second))
        return torch.cat(bands, dim=2)


class _Bottleneck(nn.Module):
    """1 x 1, depthwise 3 x 3 and 1 x 1 convolutions with GELU between (MobileNetV2's block)."""

    def __init__(self, dim: int, inner_dim: int, out_dim: int, *, stride: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, inner_dim)
        self.depthwise = nn.Conv2d(
            inner_dim, inner_dim, 3, stride=stride, padding=1, groups=inner_dim
        )
        self.project = nn.Linear(inner_dim, out_dim)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, out, H / stride, W / stride]."""
        tokens = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        rows = tokens.shape[1]
        bands = []
        for start, stop in _bands(rows // self.stride, x):
            first, last = start * self.stride - 1, (stop - 1) * self.stride + 2
            inner = F.gelu(self.expand(tokens[:, max(first, 0) : min(last, rows)]))
            # The depthwise convolution's padding is zeros in its own input.
            inner = F.pad(inner, (0, 0, 0, 0, max(-first, 0), max(last - rows, 0)))
            inner = _conv_band(inner.permute(0, 3, 1, 2), self.depthwise)
            bands.append(self.project(F.gelu(inner).permute(0, 2, 3, 1)))
        return torch.cat(bands, dim=1).permute(0, 3, 1, 2)


class _ResidualBottleneck(nn.Module):
    """The block of the first stage."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = _Bottleneck(dim, dim * _EXPANSION, dim, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.inner(x).add_(x))


class _WindowBlock(nn.Module):
    """Window attention, a depthwise 3 x 3 convolution, and an MLP."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.attention = _WindowAttention(dim, window)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.grow = nn.Linear(dim, dim * _EXPANSION)
        self.shrink = nn.Linear(dim * _EXPANSION, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        tokens = self.attention(tokens).add_(tokens)
        tokens = self.local(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        rows = [self._mlp(tokens[:, start:stop]) for start, stop in _bands(tokens.shape[1], x)]
        return torch.cat(rows, dim=1).permute(0, 3, 1, 2)

    def _mlp(self, tokens: Tensor) -> Tensor:
        """[B, rows, W, C] to the same, with the residual."""
        return torch.add(self.shrink(F.gelu(self.grow(self.norm(tokens)))), tokens)


class _WindowAttention(nn.Module):
    """Self-attention within w x w windows, with a learned bias for each offset |dy|, |dx|."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.window, self.num_heads = window, dim // _HEAD_DIM
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        area = window * window
        self.bias = nn.Parameter(torch.zeros(1, self.num_heads, area, area))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C]; without the residual."""
        batch, height, width, _ = tokens.shape
        window = self.window
        qkv = self.qkv(self.norm(tokens))
        rows, columns = -(-height // window), -(-width // window)
        qkv = self._pad(qkv, rows * window, columns * window)
        qkv = qkv.view(batch, rows, window, columns, window, self.num_heads, 3, _HEAD_DIM)
        # [3, B, rows, columns, h, w, w, d]
        q, k, v = qkv.permute(6, 0, 1, 3, 5, 2, 4, 7).reshape(
            3, batch * rows * columns, self.num_heads, window * window, _HEAD_DIM
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)  # [n, h, w * w, d]
        mixed = mixed.view(batch, rows, columns, self.num_heads, window, window, _HEAD_DIM)
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            batch, rows * window, columns * window, self.num_heads * _HEAD_DIM
        )
        mixed = mixed[:, :height, :width]
        return F.linear(mixed, self.proj.weight, self.proj.bias)

    def _pad(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """TinyViT pads with zeros before its norm: a padded token's qkv is one constant vector."""
        if qkv.shape[1:3] == (height, width):
            return qkv
        nothing = self.qkv(self.norm.bias)  # [3 C]
        padded: Tensor = nothing.expand(qkv.shape[0], height, width, -1).clone()
        padded[:, : qkv.shape[1], : qkv.shape[2]] = qkv
        return padded


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of a [B, C, H, W] map (SAM's LayerNorm2d)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


def _bands(num_rows: int, like: Tensor) -> list[tuple[int, int]]:
    """Half-open ranges of output rows to compute at a time.

    On the CPU, maps of 64 MiB cost more in page faults than in arithmetic; bands of them stay in
    the allocator's and the processor's caches. A GPU takes all rows at once.
    """
    step = num_rows if like.is_cuda else _BAND_ROWS
    return [(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _conv_band(strip: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3 x 3 convolution of a strip that has its own rows of padding already."""
    return F.conv2d(
        strip, conv.weight, conv.bias, stride=conv.stride, padding=(0, 1), groups=conv.groups
    )


def load(official: Mapping[str, Tensor]) -> TinyViT:
    """The encoder with weights from MobileSAM's file.

    Args:
        official: the entries of the file below `image_encoder.`, that prefix taken off.

    Raises:
        WeightsError: an entry is missing, unknown, or has another shape.
    """
    model = TinyViT()
    try:
        model.load_state_dict(translate(official))
    except RuntimeError as error:
        raise WeightsError(f"not MobileSAM's image encoder: {error}") from error
    return model.eval().requires_grad_(False)


def translate(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MobileSAM's entries to `TinyViT`'s: renamed, batch norms folded, bias tables spread out.

    Raises:
        WeightsError: an entry that is neither translated nor known to be unused.
    """
    used: set[str] = set(_UNUSED)
    ours: dict[str, Tensor] = {}
    for name, value in official.items():
        if name in used:
            continue
        if name.endswith(".c.weight"):
            stem = name.removesuffix(".c.weight")
            weight, bias = _fold(official, stem)
            if re.search(r"\.conv[13]$", stem):  # a 1 x 1 convolution is a linear map of channels
                weight = weight.flatten(1)
            ours[_rename(stem) + ".weight"], ours[_rename(stem) + ".bias"] = weight, bias
            used |= {f"{stem}.bn.{part}" for part in _BATCH_NORM}
        elif name.endswith("attention_biases"):
            ours[_rename(name)] = _spread(value)
        elif ".bn." not in name:
            ours[_rename(name)] = value
    left = [name for name in official if ".bn." in name and name not in used]
    if left:
        raise WeightsError(f"MobileSAM's file has a batch norm without convolution: {left[0]}")
    return ours


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_RENAMES = (
    (r"^patch_embed\.seq\.0", "stem.first"),
    (r"^patch_embed\.seq\.2", "stem.second"),
    (r"^layers\.(\d)\.downsample\.", r"downsamples.\1."),
    (r"^layers\.0\.blocks\.(\d)", r"stages.0.\1.inner"),
    (r"^layers\.(\d)\.blocks\.(\d)", r"stages.\1.\2"),
    (r"\.conv1$", ".expand"),
    (r"\.conv2$", ".depthwise"),
    (r"\.conv3$", ".project"),
    (r"\.attn\.attention_biases$", r".attention.bias"),
    (r"\.attn\.", r".attention."),
    (r"\.local_conv$", r".local"),
    (r"\.mlp\.norm\.", r".norm."),
    (r"\.mlp\.fc1\.", r".grow."),
    (r"\.mlp\.fc2\.", r".shrink."),
)


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _fold(official: Mapping[str, Tensor], stem: str) -> tuple[Tensor, Tensor]:
    """Convolution then batch norm as one convolution with bias, computed in float64."""
    parts = [f"{stem}.bn.{part}" for part in _BATCH_NORM[:4]]
    missing = [part for part in parts if part not in official]
    if missing:
        raise WeightsError(f"MobileSAM's file lacks {missing[0]}")
    gain, shift, mean, variance = (official[part].double() for part in parts)
    scale = gain / torch.sqrt(variance + _BATCH_NORM_EPS)
    weight = official[f"{stem}.c.weight"].double() * scale[:, None, None, None]
    return weight.float(), (shift - mean * scale).float()


def _spread(table: Tensor) -> Tensor:
    """[h, w * w] bias by offset to [1, h, w * w, w * w] bias by pair of positions.

    TinyViT numbers the offsets (|dy|, |dx|) in the order in which pairs of positions, row by row,
    first show them: with the first position in the corner that is |dy| * w + |dx|.
    """
    window = int(table.shape[1] ** 0.5)
    position = torch.arange(window * window)
    dy = (position[:, None] // window - position[None, :] // window).abs()
    dx = (position[:, None] % window - position[None, :] % window).abs()
    return table[:, dy * window + dx][None]
