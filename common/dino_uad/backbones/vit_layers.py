"""The layers of a DINO vision transformer, with the parameter names of the official checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dino_uad.backbones.attention import attend
from dino_uad.backbones.rope import rotate
from dino_uad.products import linear

Rope = tuple[Tensor, Tensor]


class PatchEmbed(nn.Module):
    """Linear projection of non-overlapping patches: ``[B,3,H,W]`` to ``[B,h*w,C]``.

    It stays in float32 under autocast: every later layer inherits its rounding. With bfloat16 this 1 % of the work is
    most of the error: anomaly maps of brain slices then correlate with float32's to 0.996 instead of 0.999. It is
    computed as a matrix product: CUDA's float32 convolutions are TF32 by default, its products are not.
    """

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        side = self.proj.kernel_size[0]
        patches = image.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
        with torch.autocast(image.device.type, enabled=False):
            return linear(patches.flatten(1, 2).flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class Linear(nn.Linear):
    """torch's layer, by the library that is fast on this processor (:mod:`dino_uad.products`)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class MaskedBiasLinear(Linear):
    """Linear layer whose bias is multiplied by a stored mask.

    DINOv3 switches the bias of the keys off. Softmax cancels a constant key bias, but not one that RoPE has rotated, so
    the mask of the checkpoint must be honoured.
    """

    bias_mask: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        mask = torch.ones(out_features)
        mask[out_features // 3 : 2 * out_features // 3] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias * self.bias_mask.to(self.bias.dtype))


class Attention(nn.Module):
    """Multi-head self-attention, on rotated queries and keys where the model has a rotary embedding.

    Args:
        dim: channels ``C``, a multiple of ``num_heads``.
        num_heads: number of heads.
        mask_key_bias: whether the checkpoint carries a mask on the bias (DINOv3).
    """

    def __init__(self, dim: int, num_heads: int, mask_key_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = MaskedBiasLinear(dim, 3 * dim) if mask_key_bias else Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rope | None) -> Tensor:
        """``[B,N,C]`` to ``[B,N,C]``; ``rope`` are sine and cosine tables ``[N,C/heads]``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        return self.proj(attend(q, k, v))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Residual branch with a learned gain per channel: ``x + gamma * branch`` (Touvron et al. 2021, CaiT).

    One fused operation: at these sizes the residual stream is bound by memory, and two cost 5 % of the CPU time.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return torch.addcmul(x, branch, self.gamma)


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each scaled per channel and added to its input."""

    def __init__(self, dim: int, num_heads: int, eps: float, mask_key_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, mask_key_bias)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor, rope: Rope | None) -> Tensor:
        x = self.ls1(x, self.attn(self.norm1(x), rope))
        return self.ls2(x, self.mlp(self.norm2(x)))
