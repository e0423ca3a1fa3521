"""The published AnomalyDINO code's own inputs and outputs; where it is wrong, the test says why and asserts the fix."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dino_uad.detector.upsample import upsample_scores
from dino_uad.heads import image_score
from dino_uad.heads.anomaly_dino.head import AnomalyDinoHead
from dino_uad.heads.anomaly_dino.nearest import encode_rows, nearest_neighbours
from dino_uad.heads.anomaly_dino.pca_mask import first_component, pca_foreground

MASK_CASES = [
    "object_positive",
    "object_negative",
    "small_object_positive",
    "medium_object_positive",
    "corner_object_positive",
]
IMAGES = ["bad/000", "bad/001", "good/000", "good/001"]
GRID = (9, 11)


def _published_mask(embeddings):
    """The reference's morphology: dilation and closing of each image's patches as one column, not as a grid."""
    component = first_component(embeddings)
    top, left = (int(0.2 * side) for side in embeddings.shape[-2:])
    bottom, right = (int(0.8 * side) for side in embeddings.shape[-2:])
    share = (component > 10)[..., top:bottom, left:right].float().mean(dim=(2, 3), keepdim=True)
    column = torch.where(share <= 0.35, -component > 10, component > 10).float().flatten(2)
    dilated = functional.max_pool1d(column, 3, 1, 1)
    closed = -functional.max_pool1d(-functional.max_pool1d(dilated, 3, 1, 1), 3, 1, 1)
    return (closed > 0).view(component.shape)


def _grid(features, shape):
    return torch.from_numpy(features).T.reshape(1, -1, *shape)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("encode", [False, True])
def test_nearest_neighbour_distances_and_indices(golden, k, encode):
    arrays, _ = golden("anomalydino_knn")
    query, bank = torch.from_numpy(arrays["query"]), torch.from_numpy(arrays["bank"])
    # With 32 channels the largest component of a unit row is large, and so is the step of the 16-bit bank.
    tolerance = 2e-5 if encode else 1e-6
    distance, index = nearest_neighbours(query, encode_rows(bank) if encode else bank, k)
    np.testing.assert_allclose(distance.mean(1), arrays[f"L2_normalized_k{k}_distance"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(2 * distance, arrays[f"L2_normalized_k{k}_raw_sq"], rtol=0, atol=2 * tolerance)
    np.testing.assert_array_equal(index, arrays[f"L2_normalized_k{k}_index"])
    if k == 1:
        np.testing.assert_allclose(distance[:, 0], arrays["exact_cosine_distance_f64"], rtol=0, atol=tolerance)


def test_image_score_of_the_neighbour_distances(golden):
    arrays, _ = golden("anomalydino_knn")
    distance = torch.from_numpy(arrays["L2_normalized_k1_distance"]).view(1, 1, 16, 20)
    score = image_score(distance).item()
    assert score == pytest.approx(arrays["mean_top1p_of_distance"].item(), rel=1e-6)


def test_image_score_for_every_size(golden):
    arrays, _ = golden("anomalydino_top1p")
    names = [f"dist_{size}" for size in arrays["sizes"]] + ["dist_masked"]
    for name, expected in zip(names, arrays["mean_top1p"], strict=True):
        scores = torch.from_numpy(arrays[name]).view(1, 1, 1, -1)
        assert image_score(scores).item() == pytest.approx(expected, rel=1e-12), name


@pytest.mark.parametrize("case", MASK_CASES)
def test_foreground_on_the_grid(golden, case):
    """The reference dilates and closes an N x 1 column, joining row ends and never rows; expected is the 2-D result."""
    arrays, meta = golden("anomalydino_mask")
    embeddings = _grid(arrays[f"{case}_features"], meta["grid"])
    component = first_component(embeddings).flatten().numpy()
    np.testing.assert_allclose(component, arrays[f"{case}_first_pc"], rtol=0, atol=1e-4)
    side = -component if meta["cases"][case]["flipped"] else component
    np.testing.assert_array_equal(side > meta["threshold"], arrays[f"{case}_thresholded"])

    mask = pca_foreground(embeddings).flatten().numpy()
    np.testing.assert_array_equal(_published_mask(embeddings).flatten(), arrays[f"{case}_mask"])
    if not arrays[f"{case}_mask"].any():
        assert mask.all()  # the reference then has an empty bank and an all-zero map
    else:
        np.testing.assert_array_equal(mask, arrays[f"{case}_mask_if_2d_morphology"])


def test_without_masking_everything_is_foreground(golden):
    arrays, _ = golden("anomalydino_mask")
    assert arrays["no_masking_mask"].all() and AnomalyDinoHead(32)._foreground(torch.ones(1, 32, 2, 2), None) is None


def _fit(features, mask=None):
    """References are image-major, rotations and patches within."""
    images = torch.from_numpy(features).view(-1, *GRID, features.shape[1]).movedim(-1, 1)
    head = AnomalyDinoHead(features.shape[1])
    head.fit_batch(images, None, mask)
    head.end_epoch()
    return head, images


def test_end_to_end_without_masks(golden):
    arrays, _ = golden("anomalydino_e2e")
    head, _ = _fit(arrays["plain/reference_features"])
    assert len(head.bank) == 198
    for name in IMAGES:
        scores = head.score(_grid(arrays[f"plain/test_features/{name}"], GRID))
        np.testing.assert_allclose(scores[0, 0], arrays[f"plain/patch_distance/{name}"], rtol=0, atol=1e-5)
        assert image_score(scores).item() == pytest.approx(arrays[f"plain/score/{name}"].item(), abs=1e-5)
        # The reference crops 130 x 160 to 126 x 154 px, a multiple of its patches, and stretches the map of that over
        # the whole image. The interpolation is right; our detector only takes sizes that are multiples of the patch.
        stretched = upsample_scores(scores, (130, 160), sigma=4)[0, 0]
        np.testing.assert_allclose(stretched, arrays[f"plain/map/{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("run", ["rot_mask", "rot_maskref"])
def test_end_to_end_with_rotations_and_masks(golden, run, name):
    """With the reference's flattened masks our head gives its distances and image scores; it only fills them otherwise.

    The reference gives masked patches 0, we the lowest distance of the foreground. Its maps are smooth versions of
    its grids, zeros included, stretched over the uncropped image.
    """
    arrays, _ = golden("anomalydino_e2e")
    references = arrays["rot_mask/reference_features"]
    images = torch.from_numpy(references).view(-1, *GRID, references.shape[1]).movedim(-1, 1)
    head, _ = _fit(references, _published_mask(images) if run == "rot_maskref" else None)
    embeddings = _grid(arrays[f"plain/test_features/{name}"], GRID)
    expected = arrays[f"{run}/patch_distance/{name}"]
    mask = _published_mask(embeddings)
    scores, kept = head.score(embeddings, None, mask), mask[0, 0].numpy()

    np.testing.assert_array_equal(expected[~kept], 0)
    np.testing.assert_allclose(scores[0, 0][kept], expected[kept], rtol=0, atol=1e-5)
    assert (scores[0, 0][~kept] == scores[0, 0][kept].min()).all()
    assert image_score(scores).item() == pytest.approx(arrays[f"{run}/score/{name}"].item(), abs=1e-5)
    stretched = upsample_scores(torch.from_numpy(expected)[None, None], (130, 160), sigma=4)[0, 0]
    np.testing.assert_allclose(stretched, arrays[f"{run}/map/{name}"], rtol=0, atol=1e-5)


def test_rotated_references_are_the_references_own(golden):
    """The unrotated view of each image in the rotated run is the plain run's."""
    arrays, _ = golden("anomalydino_e2e")
    rotated = arrays["rot_mask/reference_features"].reshape(2, 8, 99, -1)[:, 0]
    np.testing.assert_allclose(rotated, arrays["plain/reference_features"].reshape(rotated.shape), atol=1e-3)
