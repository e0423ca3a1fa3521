import numpy as np
import pytest
import torch

from dino_uad.transforms.rotate import ANGLES, rotate_image, rotated_views


@pytest.mark.parametrize("reference", ["rotated_0", "rotated_0_opencv5"])
def test_matches_opencv_to_a_few_grey_levels(golden, reference):
    """OpenCV's versions differ from each other by up to 3 levels: they round source coordinates to parts of a pixel."""
    arrays, _ = golden("anomalydino_rotate")
    assert tuple(arrays["angles"]) == ANGLES
    image = torch.from_numpy(arrays["image_0"]).movedim(-1, 0).float() / 255
    views = (255 * rotated_views(image)).movedim(1, -1).numpy()
    difference = np.abs(views - arrays[reference].astype(np.float32))
    assert difference.max() <= 4
    assert difference.mean() < 0.5


def test_right_angles_only_move_pixels():
    image = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(rotate_image(image, 0), image, rtol=0, atol=1e-5)
    turned = rotate_image(rotate_image(image, 90), 270)
    torch.testing.assert_close(turned[:, 1:-1, 1:-1], image[:, 1:-1, 1:-1], rtol=0, atol=1e-4)
