import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from dino_uad.heads.dino_ad.kmeans import kmeans


def _images(n=6, patches=80, channels=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(n, 5, channels, generator=generator)
    pick = torch.randint(5, (n, patches), generator=generator)
    rows = centres.gather(1, pick[..., None].expand(-1, -1, channels))
    mask = torch.rand(n, patches, generator=generator) < torch.linspace(0.3, 1.1, n)[:, None]
    return 40 + rows + torch.randn(n, patches, channels, generator=generator), mask


@pytest.mark.parametrize("n_clusters", [1, 2, 4])
def test_same_inertia_as_scikit_learn_from_the_same_starts(n_clusters):
    rows, mask = _images()
    init = torch.stack([image[keep][:n_clusters] for image, keep in zip(rows, mask, strict=True)])
    found = kmeans(rows, n_clusters, mask, init=init)
    for image, keep, start, centroids, inertia in zip(rows, mask, init, found.centroids, found.inertia, strict=True):
        peer = KMeans(n_clusters, init=start.double().numpy(), n_init=1, tol=0).fit(image[keep].double().numpy())
        assert inertia.item() <= peer.inertia_ * (1 + 1e-5)
        np.testing.assert_allclose(np.sort(centroids, 0), np.sort(peer.cluster_centers_, 0), atol=1e-4)


def test_own_starts_are_as_good_as_scikit_learns():
    rows, mask = _images(seed=1)
    found = kmeans(rows, 3, mask)
    peers = [
        KMeans(3, n_init=4, random_state=0).fit(image[keep].numpy()).inertia_
        for image, keep in zip(rows, mask, strict=True)
    ]
    assert found.inertia.sum().item() <= 1.02 * sum(peers)


def test_inertia_and_assignment_belong_to_the_centroids():
    rows, mask = _images(seed=2)
    found = kmeans(rows, 3, mask)
    distance = torch.cdist(rows.double(), found.centroids.double()).square()
    assert torch.equal(found.assignment, distance.argmin(dim=2))
    torch.testing.assert_close(found.inertia.double(), (distance.amin(dim=2) * mask).sum(dim=1), rtol=1e-4, atol=0)


def test_an_image_does_not_depend_on_the_others_in_its_batch():
    rows, mask = _images(seed=3)
    together = kmeans(rows, 3, mask, seed=5)
    for i in range(len(rows)):
        alone = kmeans(rows[i : i + 1], 3, mask[i : i + 1], seed=5)
        torch.testing.assert_close(alone.centroids[0], together.centroids[i], rtol=1e-5, atol=1e-4)


def test_masked_rows_have_no_influence():
    rows, mask = _images(seed=4)
    spoiled = torch.where(mask[..., None], rows, rows.new_tensor(1e4))
    torch.testing.assert_close(kmeans(spoiled, 2, mask).centroids, kmeans(rows, 2, mask).centroids)


def test_empty_cluster_moves_to_the_farthest_row():
    rows = torch.tensor([[[0.0], [0.1], [0.2], [9.0]]])
    found = kmeans(rows, 2, init=torch.tensor([[[0.0], [1e3]]]))
    torch.testing.assert_close(found.centroids.flatten().sort().values, torch.tensor([0.1, 9.0]))


def test_fewer_distinct_rows_than_clusters():
    rows = torch.ones(1, 5, 3)
    mask = torch.tensor([[False, True, False, False, False]])
    for found in (kmeans(rows, 3), kmeans(rows, 3, mask), kmeans(rows[:, :1], 3)):
        torch.testing.assert_close(found.centroids, torch.ones(1, 3, 3))
        assert found.inertia.item() == 0


def test_empty_batch_and_errors():
    assert kmeans(torch.empty(0, 4, 3), 2).centroids.shape == (0, 2, 3)
    with pytest.raises(ValueError, match="n_clusters"):
        kmeans(torch.ones(1, 4, 3), 0)
    with pytest.raises(ValueError, match="unmasked"):
        kmeans(torch.ones(1, 4, 3), 2, torch.zeros(1, 4, dtype=torch.bool))
