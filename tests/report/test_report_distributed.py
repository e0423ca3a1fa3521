"""Two processes with unequal shares of the images report what one process does."""

import torch

from dino_uad.report.collect import Collector
from workflows import two_ranks


def item(index: int) -> dict:
    generator = torch.Generator().manual_seed(index)
    label = torch.zeros(1, 12, 12, dtype=torch.uint8)
    label[0, 3:6, 4:8] = index % 2
    scores = torch.rand(1, 12, 12, generator=generator) + 0.5 * label
    result = {"image": torch.rand(1, 14, 14, generator=generator), "label": label, "pred": scores, "has_mask": True}
    result |= {"patch_scores": scores[:, ::6, ::6], "image_score": scores.max(), "seconds": 0.1}
    return result | {"group": f"patient {index}", "name": f"patient {index}.png", "scan": 0, "slice_index": None}


def collected(share: range) -> dict:
    collector, anonymous = Collector(threshold=1.0), Collector(anonymous_names=True)
    for each in (collector, anonymous):
        for index in share:
            each.add([item(index)])
        each.gather()
    return {
        "rows": sorted(collector.rows, key=lambda row: row.name),
        "distinct": [len({getattr(row, key) for row in anonymous.rows}) for key in ("name", "group")],
        "counts": collector.pixels.counts,
        "keys": collector.anomalous.keys,
        "best": [case.name for case in collector.anomalous.highest(2)],
        "worst": [case.name for case in collector.anomalous.lowest(2)],
        "false alarm": [case.name for case in collector.normal.highest(2)],
        "position": collector.position_mean(),
    }


def process(rank: int, folder: str) -> None:
    torch.save(collected(range(0, 7) if rank == 0 else range(7, 10)), f"{folder}/{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    two_ranks(process, str(tmp_path))
    expected = collected(range(10))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        torch.testing.assert_close(found.pop("counts"), expected["counts"])
        torch.testing.assert_close(found.pop("position"), expected["position"])
        assert str(found) == str({key: value for key, value in expected.items() if key in found})
