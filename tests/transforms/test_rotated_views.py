"""Eight views of a reference, in the order the head expects them."""

import torch

from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.transforms.rotate import RotatedViewsd
from helpers import backbone, load_unit, pictures


def test_first_view_is_the_image_and_the_fifth_is_turned_by_180_degrees():
    image = torch.rand(1, 8, 8)
    views = RotatedViewsd("image")({"image": image, "group": "p"})
    assert len(views) == 8 and all(view["group"] == "p" for view in views)
    assert torch.equal(views[0]["image"], image)
    # About the pixel (4, 4), as OpenCV does: the first row and column have no counterpart.
    torch.testing.assert_close(views[4]["image"][:, 1:, 1:], image[:, 1:, 1:].flip(1, 2), rtol=0, atol=1e-5)


def test_views_are_consecutive_slices_of_the_data_set(tmp_path):
    views = RotatedViewsd("image")
    # One image at a time: products of batches of other sizes may be rounded otherwise.
    dataset = EmbeddingDataset(pictures(tmp_path, 2), lambda entry: [views(load_unit(entry))], backbone(), batch_size=1)
    plain = EmbeddingDataset(dataset.data, load_unit, dataset.backbone, batch_size=1)
    assert len(dataset) == 16
    assert torch.equal(dataset[8]["embedding"], plain[1]["embedding"])
