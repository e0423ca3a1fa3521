"""The frozen DINO backbone: image in [0, 1] to patch embeddings and class token."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dino_uad.backbones.architectures import architecture
from dino_uad.backbones.checkpoints import load_strict, state_digest
from dino_uad.backbones.vit import VisionTransformer
from dino_uad.backbones.weights import resolve
from dino_uad.heap import keep_freed_memory
from dino_uad.processor import half_precision_pays
from dino_uad.tracing import is_traced

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NUMBERS_A_THREAD = 450_000
"""Numbers of a token sequence that each thread of a processor works on at a time. Larger tensors, such as the hidden
layers of a whole batch, are taken from the system and given back in every block, which costs more than they do."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DinoBackbone(nn.Module):
    """Frozen vision transformer with the preprocessing an exported model must not leave to its caller.

    Args:
        arch: name of a backbone, see :data:`dino_uad.backbones.architectures.ARCHITECTURES`.
        layers: indices of the blocks to read, negative ones count from the end; several are averaged, or joined.
        joined: scale what each of ``layers`` gives to length 1 and join them to ``len(layers)`` times the channels.
        final_norm: apply the model's final layer norm to what is read.
        weights: None takes the architecture's own weights from the weight store, downloading them if need be; else the
            path of a checkpoint, or ``"random"`` for seeded random weights (a baseline, never a fallback).
        precision: ``float32``, or ``bfloat16`` / ``float16``, in which the matrices of the blocks are then held, and
            autocast of the transformer; a processor that would only emulate it multiplies the rounded matrices in
            float32. The output is float32.
        compiled: run the transformer through ``torch.compile``: minutes at the start, and only sometimes faster.

    Attributes:
        identity: SHA-256 of the weights, independent of the file format they came in.
        embed_dim: channels ``C`` of the embeddings.
        patch_size: side of a patch in pixels.
        layers: the block indices, all non-negative.

    Raises:
        ValueError: unknown name, layer or precision, or a checkpoint that does not fit ``arch``.
        FileNotFoundError: no checkpoint at the path.
        RuntimeError: the weights are not here and could not be fetched; the message says what to do.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        arch: str,
        layers: Sequence[int] = (-1,),
        final_norm: bool = True,
        weights: str | None = None,
        precision: str = "float32",
        joined: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        config = architecture(arch)
        keep_freed_memory()
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
        self.arch = arch
        self.layers = _resolve_layers(layers, config.depth, arch)
        self.final_norm = final_norm
        self.precision = precision
        self.joined = bool(joined)
        self.embed_dim = config.embed_dim * (len(self.layers) if self.joined else 1)
        self.patch_size = config.patch_size
        with torch.device("meta"):
            self.vit = VisionTransformer(config)
        state = random_state(self.vit) if weights == "random" else resolve(weights or arch)
        load_strict(self.vit, state, arch, origin=weights or "the weight store")
        self.identity = state_digest(state)
        self._hold_matrices(PRECISIONS[precision])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.compiled = bool(compiled)
        if compiled:
            self.vit.compile()  # in place: names of weights stay
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> DinoBackbone:
        """Stay in evaluation mode: the backbone is frozen."""
        return super().train(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a batch of images.

        Args:
            image: ``[B,1|3,H,W]`` in [0, 1]; ``H`` and ``W`` multiples of the patch; ``B`` may be 0.

        Returns:
            Patch embeddings ``[B,C,h,w]`` and class tokens ``[B,C]``, float32, averaged or joined over ``layers``.
        """
        tokens = self.tokens(image)
        rows, columns = (int(size) // self.patch_size for size in image.shape[-2:])
        embeddings = tokens[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
        return embeddings, tokens[:, 0]

    def tokens(self, image: Tensor) -> Tensor:
        """All tokens ``[B,1+R+h*w,C]``, class token first, then registers, then patches in row-major order."""
        parts = [self._tokens(part) for part in self._parts(self.normalize(image))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _parts(self, image: Tensor) -> Sequence[Tensor]:
        """The images of a batch that are computed together: as many as a processor's caches hold."""
        if image.device.type != "cpu" or self.compiled or is_traced():
            return [image]
        numbers = image.shape[-2:].numel() // self.patch_size**2 * self.vit.config.embed_dim
        return image.split(max(1, NUMBERS_A_THREAD * torch.get_num_threads() // numbers))

    def _tokens(self, image: Tensor) -> Tensor:
        dtype = PRECISIONS[self.precision]
        if dtype != torch.float32 and not is_traced():  # a graph is for any processor
            dtype = dtype if half_precision_pays(image.device, dtype) else torch.float32
            self._hold_matrices(dtype)
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
            outputs = self.vit(image, self.layers, self.final_norm)
        if self.joined:
            return torch.cat([F.normalize(output.float(), dim=-1) for output in outputs], dim=-1)
        mean = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(dim=0)
        return mean.float()

    def _hold_matrices(self, dtype: torch.dtype) -> None:
        """Convert the matrices of the blocks once: autocast would round them again in every call."""
        others = [one for one in self.vit.blocks.modules() if isinstance(one, nn.Linear) and one.weight.dtype != dtype]
        with torch.inference_mode(False), torch.no_grad():  # they outlive the call, and may have been made in that mode
            for layer in others:
                for name, values in dict(layer.named_parameters()).items():
                    setattr(layer, name, nn.Parameter(values.to(dtype), requires_grad=False))
        if others and dtype == torch.float32:
            logger.warning(
                f"precision is {self.precision}, which this processor would only emulate, at several times the time: "
                f"matrices rounded to {self.precision} are multiplied in float32"
            )

    def normalize(self, image: Tensor) -> Tensor:
        """Check the shape, replicate grey to three channels and normalise with ImageNet's statistics."""
        if hasattr(image, "as_tensor"):  # a MONAI MetaTensor would dispatch every operation in Python
            image = image.as_tensor()
        if image.ndim != 4 or image.shape[1] not in (1, 3) or not image.is_floating_point():
            raise ValueError(
                f"{self.arch} takes float images [B,1|3,H,W] in [0, 1], got {list(image.shape)} {image.dtype}; "
                "scale the intensities and repeat or drop channels first"
            )
        height, width = (int(size) for size in image.shape[-2:])
        patch = self.patch_size
        if height % patch or width % patch or not height or not width:
            nearest = [max(1, round(size / patch)) * patch for size in (height, width)]
            raise ValueError(
                f"{self.arch} takes sides that are multiples of {patch} pixels, got {height}x{width}; "
                f"resize or pad the image first, for example to {nearest[0]}x{nearest[1]}"
            )
        return (image.to(self.mean.dtype) - self.mean) / self.std


def random_state(model: VisionTransformer, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random weights: matrices and tokens normal with deviation 0.02, gains one, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in model.state_dict().items():
        if key.endswith(("bias", "bias_mask")):
            state[key] = torch.zeros(tensor.shape)
        elif tensor.ndim == 1:
            state[key] = torch.ones(tensor.shape)
        else:
            state[key] = torch.randn(tensor.shape, generator=generator) * 0.02
    return state


def _resolve_layers(layers: Sequence[int], depth: int, arch: str) -> tuple[int, ...]:
    listed = isinstance(layers, list | tuple) and len(layers) > 0
    if not listed or any(not isinstance(index, int) or not -depth <= index < depth for index in layers):
        blocks = f"{arch} has blocks 0 to {depth - 1} (or -{depth} to -1)"
        raise ValueError(f"{blocks}, got layers={list(layers) if listed else layers}; expected some, such as [5, 8]")
    return tuple(index % depth for index in layers)
