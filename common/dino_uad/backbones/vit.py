"""One vision transformer for DINOv2 (with and without registers) and DINOv3; parameters named as officially.

DINOv2: Oquab et al. 2023; registers: Darcet et al. 2023; DINOv3: Siméoni et al. 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dino_uad.backbones.rope import RopeEmbedding
from dino_uad.backbones.vit_layers import Block, PatchEmbed, Rope
from dino_uad.tracing import is_traced

Table = TypeVar("Table")
MAX_CACHED_GRIDS = 16


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a vision transformer.

    Attributes:
        embed_dim: channels ``C`` of a token.
        depth: number of blocks.
        num_heads: attention heads.
        patch_size: side of a patch in pixels.
        num_registers: register tokens between the class token and the patches.
        rope: rotary position embedding (DINOv3) instead of a learned one (DINOv2).
        position_grid: side of the grid of the learned position embedding; 37 is 518 pixels at patch 14.
    """

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 14
    num_registers: int = 0
    rope: bool = False
    position_grid: int = 37

    @property
    def norm_eps(self) -> float:
        """Epsilon of the layer norms: the two generations differ."""
        return 1e-5 if self.rope else 1e-6

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: the class token and the registers."""
        return 1 + self.num_registers


class VisionTransformer(nn.Module):
    """DINO vision transformer for images whose sides are multiples of the patch.

    Position tables are computed once per grid size in evaluation mode. While the model is traced or exported nothing is
    cached, but a table that already exists is used and becomes a constant of the graph; the TorchScript-based ONNX
    exporter needs that for the antialiased resampling of the register variants, so run the model once before it.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        # Unused at inference, but part of the official checkpoints that are loaded strictly.
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        if config.rope:
            self.rope_embed = RopeEmbedding(dim // config.num_heads)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_grid**2, dim))
        if config.num_registers:
            name = "storage_tokens" if config.rope else "register_tokens"
            self.register_parameter(name, nn.Parameter(torch.zeros(1, config.num_registers, dim)))
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.norm_eps, mask_key_bias=config.rope) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self._tables: dict[tuple[int, int], object] = {}
        self.register_load_state_dict_post_hook(_forget_tables)

    def forward(self, image: Tensor, layers: Sequence[int] = (-1,), norm: bool = True) -> list[Tensor]:
        """Tokens after the given blocks: ``[B,3,H,W]`` normalised image to one ``[B,1+R+h*w,C]`` per layer.

        Args:
            image: ImageNet-normalised; ``H`` and ``W`` multiples of the patch.
            layers: block indices in the order wanted, negative ones count from the end; later blocks are not run.
            norm: apply the model's final layer norm, to intermediate layers too (as the official code does).
        """
        wanted = [range(self.config.depth)[index] for index in layers]
        tokens, rope = self.embed(image)
        outputs: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(wanted) + 1]):
            tokens = block(tokens, rope)
            if index in wanted:
                outputs[index] = self.norm(tokens) if norm else tokens
        return [outputs[index] for index in wanted]

    def embed(self, image: Tensor) -> tuple[Tensor, Rope | None]:
        """Token sequence entering the first block, ``[B,1+R+h*w,C]``: class, registers, patches; and its rotation."""
        rows, columns = (int(size) // self.config.patch_size for size in image.shape[-2:])
        patches = self.patch_embed(image)
        cls, rope = self.cls_token, None
        if self.config.rope:
            rope = self._table(rows, columns, self.rope_table)
        else:
            position = self._table(rows, columns, self.position_embedding)
            cls, patches = cls + position[:, :1], patches + position[:, 1:]
        prefix = [cls]
        if self.config.num_registers:
            prefix.append(self.storage_tokens if self.config.rope else self.register_tokens)
        prefix = torch.cat(prefix, dim=1).expand(image.shape[0], -1, -1)
        return torch.cat((prefix, patches.to(prefix.dtype)), dim=1), rope

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """Learned embedding of class token and patches resampled to the grid, ``[1,1+rows*columns,C]``.

        Bicubic. Without registers by a scale factor with an offset of 0.1, no antialias; with registers by output size
        with antialias: the two families were trained so.
        """
        side = self.config.position_grid
        if rows == columns == side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.config.num_registers:
            grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        else:
            scale = ((rows + 0.1) / side, (columns + 0.1) / side)
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(self.pos_embed.dtype)
        return torch.cat((self.pos_embed[:, :1], patches), dim=1)

    def rope_table(self, rows: int, columns: int) -> Rope:
        """Sine and cosine tables ``[1+R+rows*columns,head_dim]``; class token and registers keep their direction."""
        sin, cos = self.rope_embed(rows, columns)
        still = sin.new_zeros(self.config.num_prefix_tokens, sin.shape[1])
        return torch.cat((still, sin)), torch.cat((still + 1, cos))

    def _table(self, rows: int, columns: int, compute: Callable[[int, int], Table]) -> Table:
        table = self._tables.get((rows, columns))
        if table is not None and not self.training:
            return table
        table = compute(rows, columns)
        differentiable = torch.is_grad_enabled() and self.cls_token.requires_grad
        if self.training or differentiable or is_traced():
            return table
        if len(self._tables) >= MAX_CACHED_GRIDS:
            self._tables.clear()
        self._tables[rows, columns] = table
        return table

    def _apply(self, *args, **kwargs) -> VisionTransformer:
        # Moving or casting the parameters leaves cached tables on the old device and precision.
        self._tables.clear()
        return super()._apply(*args, **kwargs)


def _forget_tables(module: VisionTransformer, _incompatible_keys: object) -> None:
    module._tables.clear()
