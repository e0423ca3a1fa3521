"""What someone does with shared bundles, in an empty folder and a Python without this repository.

``test_zoo.py`` runs ``receive.py SCHEMA ZIP...``. It downloads and loads every bundle into this one process, goes
through the steps of the model zoo's verification, exports TorchScript and ONNX, and leaves the maps of one image in
``maps.pt``.
"""

import json
import sys
from pathlib import Path

import monai.bundle as mb
import torch
from monai.data import load_net_with_metadata

try:
    import dino_uad

    sys.exit(f"dino_uad is installed here, from {dino_uad.__file__}")
except ImportError:
    pass


def fetch(archive: str) -> str:
    """Download one bundle; what carries its own code has to be on the path."""
    name = Path(archive).name.split("_v")[0]
    mb.download(name=name, url=Path(archive).as_uri(), bundle_dir=".", progress=False)
    sys.path.append(str(Path(name).resolve()))
    return name


def verify(name: str, schema: str) -> torch.jit.ScriptModule:
    """The checks of the model zoo: files, version, metadata, properties, shapes, TorchScript."""
    root = Path(name)
    files = {"config_file": f"{name}/configs/inference.json", "meta_file": f"{name}/configs/metadata.json"}
    for file in ("LICENSE", "docs/README.md", "models/model.pt", "configs/inference.json"):
        assert (root / file).is_file(), file
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    mb.verify_metadata(meta_file=files["meta_file"], filepath=schema)
    workflow = mb.ConfigWorkflow(config_file=files["config_file"], workflow_type="inference", dataset_dir="data")
    workflow.initialize()
    assert workflow.check_properties() == [], workflow.check_properties()
    mb.verify_net_in_out(net_id="network_def", device="cpu", **files)
    shape = [1, 1, *metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]]
    scripted = f"{name}/models/model.ts"
    checkpoint = f"{name}/models/model.pt"
    common = {"net_id": "network_def", "ckpt_file": checkpoint, "input_shape": shape, **files}
    mb.ckpt_export(filepath=scripted, use_trace=True, bundle_root=name, **common)
    mb.onnx_export(filepath=f"{name}/models/model.onnx", **common)
    return load_net_with_metadata(scripted)[0]


def onnx_map(path: str, image: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])


@torch.inference_mode()
def main(schema: str, *archives: str) -> None:
    names = [fetch(archive) for archive in archives]
    networks = {name: mb.load(name, bundle_dir=".", workflow_type="inference").eval() for name in names}
    maps = {}
    for name in names:
        side = networks[name].image_size
        image = torch.rand(1, 1, *side, generator=torch.Generator().manual_seed(1))
        scripted = verify(name, schema)
        device = next(networks[name].parameters()).device  # MONAI loads to a GPU if there is one
        maps[name] = {"loaded": networks[name](image.to(device)).cpu(), "torchscript": scripted(image)}
        maps[name]["onnx"] = onnx_map(f"{name}/models/model.onnx", image)
    torch.save(maps, "maps.pt")
    print("package:", Path(sys.modules["dino_uad"].__file__).parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
