import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional

from dino_uad.heads.dino_ad.head import DinoADHead

CHANNELS = 16


def _batch(n=6, seed=0, side=5):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, CHANNELS, side, side, generator=generator)
    mask = torch.rand(n, 1, side, side, generator=generator) < 0.6
    return embeddings, torch.randn(n, CHANNELS, generator=generator), mask


def _fitted(**options):
    head = DinoADHead(CHANNELS, **options)
    head.fit_batch(*_batch())
    head.end_epoch()
    return head


def test_score_is_the_papers_definition_step_by_step():
    embeddings, cls, mask = _batch()
    query, query_cls, _ = _batch(3, seed=9)
    head = _fitted(n_clusters=1)
    for i, score in enumerate(head.score(query, query_cls)):
        support = functional.cosine_similarity(query_cls[i : i + 1], cls).argmax()
        foreground = embeddings[support].flatten(1).T[mask[support].flatten()]
        centroids = torch.from_numpy(KMeans(1, n_init=1).fit(foreground.numpy()).cluster_centers_)
        cosine = functional.cosine_similarity(query[i].flatten(1).T[:, None], centroids[None], dim=2).mean(dim=1)
        expected = 1 - (cosine - cosine.min()) / (cosine.max() - cosine.min())
        torch.testing.assert_close(score.flatten(), expected, rtol=0, atol=2e-3)  # centroids are kept in half


def test_mean_over_centroids_of_the_cosine():
    head, (query, cls, _) = _fitted(n_clusters=3, normalization="none"), _batch(1, seed=9)
    centroids = head.centroids[head._support(cls)][0].float()
    cosine = functional.cosine_similarity(query[0].flatten(1).T[:, None], centroids[None], dim=2).mean(dim=1)
    torch.testing.assert_close(head.score(query, cls).flatten(), 1 - cosine, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_support", [1, 3, 99])
@pytest.mark.parametrize("similarity", ["mean", "max"])
def test_cosine_to_all_centroids_of_the_nearest_images(n_support, similarity):
    head = _fitted(n_clusters=4, normalization="none", n_support=n_support, similarity=similarity)
    (_, normal_cls, _), (query, cls, _) = _batch(), _batch(3, seed=9)
    for i, found in enumerate(head.score(query, cls)):
        order = functional.cosine_similarity(cls[i : i + 1], normal_cls).argsort(descending=True)[:n_support]
        centroids = head.centroids[order].float().flatten(0, 1)
        cosine = functional.cosine_similarity(query[i].flatten(1).T[:, None], centroids[None], dim=2)
        expected = cosine.mean(dim=1) if similarity == "mean" else cosine.amax(dim=1)
        torch.testing.assert_close(found.flatten(), 1 - expected, rtol=0, atol=1e-3)


def test_query_among_the_normal_images_finds_itself():
    _, cls, _ = _batch()
    assert _fitted()._support(cls * 3).tolist() == list(range(6))


def test_minmax_reaches_both_ends_and_none_is_comparable():
    query, cls, _ = _batch(3, seed=9)
    scores = _fitted().score(query, cls).flatten(1)
    torch.testing.assert_close(scores.amin(1), torch.zeros(3))
    torch.testing.assert_close(scores.amax(1), torch.ones(3))
    assert _fitted(normalization="none").score(query, cls).flatten(1).amax(1).std() > 0


def test_calibrated_scores_of_the_validation_patches_are_standard():
    head = _fitted(normalization="calibrated")
    embeddings, cls, mask = _batch(8, seed=2)
    with pytest.raises(RuntimeError, match="not calibrated"):
        head.score(embeddings, cls)
    head.calibrate_batch(embeddings[:5], cls[:5], mask[:5])
    head.calibrate_batch(embeddings[5:], cls[5:], mask[5:])
    head.calibrate_batch(embeddings[:0], cls[:0], mask[:0])
    head.end_calibration()
    scores = head.score(embeddings, cls)[mask]
    torch.testing.assert_close(scores.mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(scores.std(correction=0), torch.tensor(1.0), rtol=0, atol=1e-4)


def test_log_likelihood_is_minus_the_mean_distance_and_needs_no_calibration():
    head, (query, cls, mask) = _fitted(normalization="calibrated"), _batch(3, seed=9)
    distance = _fitted(normalization="none").score(query, cls)
    expected = torch.stack([-d[m].mean() for d, m in zip(distance, mask, strict=True)])
    torch.testing.assert_close(head.log_likelihood(query, cls, mask), expected)
    torch.testing.assert_close(head.log_likelihood(query, cls), -distance.mean(dim=(1, 2, 3)))


def test_random_support_depends_on_seed_and_query_only():
    _, cls, _ = _batch(200, seed=3)
    head = _fitted(support="random")
    picks = head._support(cls)
    assert torch.equal(picks[50:60], head._support(cls[50:60]))
    assert picks.bincount(minlength=6).min() > 10
    assert not torch.equal(picks, _fitted(support="random", seed=1)._support(cls))


def test_background_is_learned_from_only_where_there_is_nothing_else():
    embeddings, cls, mask = _batch()
    mask[0] = False
    head, reference = DinoADHead(CHANNELS), DinoADHead(CHANNELS)
    head.fit_batch(torch.where(mask | ~mask.any(), embeddings, 1e3)[1:], cls[1:], mask[1:])
    reference.fit_batch(embeddings[1:], cls[1:], mask[1:])
    head.fit_batch(embeddings[:1], cls[:1], mask[:1])
    reference.fit_batch(embeddings[:1], cls[:1])
    head.end_epoch()
    reference.end_epoch()
    torch.testing.assert_close(head.centroids, reference.centroids, rtol=0, atol=2e-3)


def test_masked_query_patches_are_never_the_most_anomalous():
    head, (query, cls, mask) = _fitted(), _batch(3, seed=9)
    scores = head.score(query, cls, mask)
    assert (scores[~mask] == 0).all()
    assert (scores.flatten(1).amax(1) == 1).all()


def test_batches_second_pass_and_reload_give_the_same_model():
    embeddings, cls, mask = _batch()
    head = DinoADHead(CHANNELS)
    for _ in range(2):
        for part in (slice(0, 4), slice(4, 4), slice(4, 6)):
            head.fit_batch(embeddings[part].half().float(), cls[part], mask[part])
        head.end_epoch()
    assert head.centroids.shape == (6, 2, CHANNELS)
    loaded = DinoADHead(CHANNELS)
    loaded.load_state_dict(head.state_dict())
    query, query_cls, _ = _batch(2, seed=9)
    assert torch.equal(loaded.score(query, query_cls), head.score(query, query_cls))
    torch.testing.assert_close(_fitted().class_tokens, head.class_tokens)
    assert head.score(query[:0], query_cls[:0]).shape == (0, 1, 5, 5)
    assert head.score(query.half(), query_cls.half()).dtype == torch.float32


class _Scorer(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, embeddings, cls):
        return self.head.score(embeddings, cls)


@pytest.mark.parametrize("normalization", ["minmax", "none", "calibrated"])
def test_trace_and_onnx_hold_for_other_queries(normalization, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    head = _fitted(normalization=normalization)
    head.calibrate_batch(*_batch(4, seed=5))
    head.end_calibration()
    scorer = _Scorer(head).eval()
    (example, example_cls, _), (query, cls, _) = _batch(2, seed=8), _batch(2, seed=9)
    traced = torch.jit.trace(scorer, (example, example_cls))
    torch.testing.assert_close(traced(query, cls), scorer(query, cls))
    torch.onnx.export(scorer, (example, example_cls), tmp_path / "head.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, (query.numpy(), cls.numpy()), strict=True)))
    torch.testing.assert_close(torch.from_numpy(output), scorer(query, cls), rtol=1e-4, atol=1e-4)


def test_a_head_calibrated_in_inference_mode_can_be_reloaded_calibrated_again_and_traced_with_gradients():
    head = _fitted(normalization="calibrated")
    with torch.inference_mode():
        head.calibrate_batch(*_batch(4, seed=5))
        head.end_calibration()
    assert not any(buffer.is_inference() for buffer in head.buffers())
    head.load_state_dict(head.state_dict())
    head.calibrate_batch(*_batch(4, seed=5))
    head.end_calibration()
    query, cls, _ = _batch(2, seed=9)
    query.requires_grad_()
    torch.jit.trace(_Scorer(head), (query, cls))(query, cls).sum().backward()
    assert query.grad.abs().sum() > 0


def test_errors():
    query, cls, _ = _batch(1)
    with pytest.raises(RuntimeError, match=r"not fitted.*train"):
        DinoADHead(CHANNELS).score(query, cls)
    with pytest.raises(RuntimeError, match="no normal image"):
        DinoADHead(CHANNELS).end_epoch()
    with pytest.raises(ValueError, match="'cls'"):
        _fitted().score(query)
    for options in (
        {"n_clusters": 0},
        {"support": "best"},
        {"normalization": "max"},
        {"n_support": 0},
        {"similarity": "sum"},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            DinoADHead(CHANNELS, **options)
