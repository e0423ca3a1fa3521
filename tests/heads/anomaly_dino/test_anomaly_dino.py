import functools
import io

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from dino_uad import parallel
from dino_uad.heads.anomaly_dino.head import AnomalyDinoHead
from dino_uad.heads.anomaly_dino.nearest import unit_rows
from dino_uad.heads.anomaly_dino.part import row_counts
from dino_uad.heads.anomaly_dino.pca_mask import pca_foreground
from dino_uad.heads.anomaly_dino.zero_shot import batched_zero_shot_scores
from dino_uad.heads.dino_ad.head import DinoADHead
from dino_uad.heads.masking import fill_background
from workflows import run_in_group

CHANNELS = 16


def _images(n=6, seed=0, side=5):
    return torch.randn(n, CHANNELS, side, side, generator=torch.Generator().manual_seed(seed))


def _rows(images):
    return images.movedim(1, -1).flatten(0, 2)


def _tokens(n=6, seed=0):
    return torch.randn(n, CHANNELS, generator=torch.Generator().manual_seed(100 + seed))


def _fitted(images=None, cls=None, mask=None, **options):
    head = AnomalyDinoHead(CHANNELS, **options)
    images = _images() if images is None else images
    head.fit_batch(images, _tokens(len(images)) if cls is None else cls, mask)
    head.end_epoch()
    return head


def _images_in(bank, images):
    """Which of the images have their patches in the bank."""
    patches = {tuple(row) for row in unit_rows(bank).numpy().round(2).tolist()}
    return {
        i
        for i, image in enumerate(images)
        if tuple(unit_rows(_rows(image[None]))[0].numpy().round(2).tolist()) in patches
    }


@pytest.mark.parametrize("k", [1, 3])
def test_score_is_the_mean_cosine_distance_to_the_nearest(k):
    query = _images(2, seed=1)
    exact = np.sort(cdist(_rows(query).double(), _rows(_images()).double(), "cosine"), axis=1)[:, :k].mean(axis=1)
    scores = _fitted(k_neighbors=k).score(query)
    assert scores.shape == (2, 1, 5, 5)
    np.testing.assert_allclose(scores.flatten(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("retrieve", "k"), [(1, 1), (3, 2), (99, 1)])
def test_retrieval_searches_the_patches_of_the_most_similar_images_exactly(retrieve, k):
    images, tokens, query, wanted = _images(), _tokens(), _images(2, seed=1), _tokens(2, seed=1)
    mask = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(5)) > 0.4
    scores = _fitted(images, tokens, mask, retrieve=retrieve, k_neighbors=k).score(query, wanted)
    nearest = np.argsort(cdist(wanted.double(), tokens.double(), "cosine"), axis=1)[:, :retrieve]
    for score, image, chosen in zip(scores, query, nearest, strict=True):
        bank = torch.cat([images[i].movedim(0, -1)[mask[i, 0]] for i in chosen])
        exact = np.sort(cdist(_rows(image[None]).double(), bank.double(), "cosine"), axis=1)[:, :k].mean(axis=1)
        np.testing.assert_allclose(score.flatten(), exact, rtol=0, atol=2e-5)


def _uneven():
    """A head whose coreset keeps fewer rows of some images than neighbours are asked for, and none of others."""
    images, tokens = _images(7), _tokens(7, seed=3)
    images[[1, 4, 6]] = images[0, :, :1, :1]  # one and the same patch
    return _fitted(images, tokens, retrieve=1, k_neighbors=3, coreset=0.4), tokens


def test_scores_do_not_depend_on_what_is_retrieved_for_the_rest_of_the_batch():
    head, tokens = _uneven()
    rows = row_counts(head.ends).tolist()
    assert 0 in rows and max(rows) > 3
    query = _images(7, seed=1)
    together = head.score(query, tokens)
    alone = torch.cat([head.score(query[i : i + 1], tokens[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    similarity = (tokens.double() @ tokens.double().T) / tokens.norm(dim=1)  # of the rows' tokens, in every column
    for i in range(7):
        chosen = max((j for j in range(7) if rows[j]), key=lambda j: float(similarity[i, j]))
        bank = unit_rows(head.bank.split(rows)[chosen]).double()
        exact = np.sort(cdist(_rows(query[i : i + 1]).double(), bank, "cosine"), axis=1)[:, :3].mean(axis=1)
        np.testing.assert_allclose(together[i].flatten(), exact, rtol=0, atol=2e-4)  # the bank has 16 bits


def test_retrieval_works_with_a_coreset_and_needs_class_tokens():
    head = _fitted(retrieve=99, coreset=0.5)
    assert int(head.ends[-1]) == len(head.bank) == 75
    whole = _fitted(coreset=0.5)
    query = _images(2, seed=1)
    torch.testing.assert_close(head.score(query, _tokens(2)), whole.score(query), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="class tokens"):
        head.score(query)
    state = {key: value for key, value in whole.state_dict().items() if key == "bank"}  # as version 0.1 wrote it
    old = AnomalyDinoHead(CHANNELS, retrieve=2)
    old.load_state_dict(state)
    with pytest.raises(RuntimeError, match="set retrieve to null"):
        old.score(query, _tokens(2))


def test_batches_second_pass_half_precision_and_reload_give_the_same_bank():
    images = _images().half()
    head = AnomalyDinoHead(CHANNELS)
    for _ in range(2):
        for part in (images[:4], images[4:4], images[4:]):
            head.fit_batch(part)
        head.end_epoch()
    assert torch.equal(head.bank, _fitted(images).bank) and head.bank.element_size() == 2
    loaded = AnomalyDinoHead(CHANNELS)
    loaded.load_state_dict(head.state_dict())
    assert loaded.fitted and torch.equal(loaded.score(images), head.score(images))
    assert head.score(images[:0]).shape == (0, 1, 5, 5)


def test_shots_are_nested_seeded_and_whole_images():
    images = _images(12)
    chosen = {shots: _images_in(_fitted(images, shots=shots).bank, images) for shots in (1, 2, 4, 8, 16)}
    assert [len(found) for found in chosen.values()] == [1, 2, 4, 8, 12]
    assert chosen[1] < chosen[2] < chosen[4] < chosen[8]
    assert torch.equal(_fitted(images, shots=2).bank, _fitted(images, shots=2).bank)
    others = [_images_in(_fitted(images, shots=2, seed=seed).bank, images) for seed in range(1, 6)]
    assert any(found != chosen[2] for found in others)


def test_all_views_of_a_drawn_reference_are_kept():
    images = _images(12)
    found = _images_in(_fitted(images, shots=2, views=3).bank, images)
    assert len(found) == 6 and len({i // 3 for i in found}) == 2


def test_references_and_queries_are_restricted_to_the_foreground():
    images, mask = _images(), torch.zeros(6, 1, 5, 5, dtype=torch.bool)
    mask[1:, :, 1:3] = True
    head = _fitted(images, mask=mask)
    assert len(head.bank) == 25 + 5 * 10  # nothing is foreground in the first image: all of it counts
    scores = head.score(_images(2, seed=1), None, mask[:2])
    assert torch.equal(scores[0], head.score(_images(2, seed=1))[0])
    assert (scores[1][~mask[1]] == scores[1][mask[1]].min()).all()


def test_fill_keeps_the_foreground_and_makes_no_step_below_it():
    scores, mask = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4) < 0.5
    filled = fill_background(scores, mask)
    assert torch.equal(filled[mask], scores[mask])
    assert (filled.flatten(1).amin(1) == torch.where(mask, scores, 9).flatten(1).amin(1)).all()
    with pytest.raises(ValueError, match="reduce it to patches"):
        fill_background(scores, torch.ones(2, 1, 8, 8, dtype=torch.bool))


def test_pca_foreground_of_an_object_in_the_middle():
    images = torch.randn(3, CHANNELS, 12, 12, generator=torch.Generator().manual_seed(0))
    images[:2, 0, 4:9, 4:9] += 60
    images[1] *= -1
    mask = pca_foreground(images)
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[3:10, 3:10] = True
    assert torch.equal(mask[0, 0], expected) and torch.equal(mask[1, 0], expected)
    assert mask[2].all()  # nothing stands out
    head = _fitted(images, foreground="pca")
    assert len(head.bank) == 49 + 49 + 144


def test_pca_foreground_of_embeddings_that_are_too_short_is_told(caplog):
    images = 3 * torch.randn(3, CHANNELS, 12, 12, generator=torch.Generator().manual_seed(0))
    _fitted(images, foreground="pca")
    assert "every patch" not in caplog.text
    short = torch.nn.functional.normalize(images, dim=1)
    assert pca_foreground(short).all()
    _fitted(short, foreground="pca")
    assert "these are at most 1 long, so that every patch is foreground" in caplog.text


def test_coreset_keeps_its_share_of_the_bank():
    whole, kept = _fitted(), _fitted(coreset=0.2)
    assert len(kept.bank) == int(0.2 * len(whole.bank))
    assert (kept.score(_images(2, seed=1)) >= whole.score(_images(2, seed=1)) - 1e-6).all()


def test_batched_zero_shot_against_scipy():
    images = _images(4, side=8)
    scores = batched_zero_shot_scores(images, quantile=0.05)
    for i in range(4):
        others = _rows(images[[j for j in range(4) if j != i]]).double()
        distance = np.sort(cdist(_rows(images[i : i + 1]).double(), others, "cosine"), axis=1)
        np.testing.assert_allclose(scores[i].flatten(), distance[:, : int(0.05 * 192)].mean(1), atol=2e-5)


def test_batched_zero_shot_finds_the_odd_patch_even_when_it_occurs_twice():
    images = _images(1).repeat(8, 1, 1, 1) + 0.1 * _images(8, seed=1)
    odd = torch.randn(CHANNELS, generator=torch.Generator().manual_seed(7))
    images[:2, :, 2, 2] = odd
    scores = batched_zero_shot_scores(images, quantile=0.02)
    assert scores[:2].flatten(1).argmax(1).tolist() == [12, 12]
    assert batched_zero_shot_scores(images[:2]).isfinite().all()
    with pytest.raises(ValueError, match="at least 2"):
        batched_zero_shot_scores(images[:1])


class _Scorer(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        mask = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(5)) > 0.4
        self.head = _fitted(mask=mask, **{"k_neighbors": 2} | options)

    def forward(self, embeddings, cls):
        return self.head.score(embeddings, cls)


@pytest.mark.parametrize("options", [{}, {"retrieve": 2}, {"retrieve": 2, "k_neighbors": 5, "coreset": 0.05}])
def test_traced_and_exported_scores_are_the_same(options, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    scorer, inputs = _Scorer(**options).eval(), (_images(3, seed=1), _tokens(3, seed=1))
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(scorer, tuple(part[:1] for part in inputs)), buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(*inputs), scorer(*inputs))
    torch.onnx.export(scorer, inputs, tmp_path / "head.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    given = {node.name: part.numpy() for node, part in zip(session.get_inputs(), inputs, strict=False)}
    (output,) = session.run(None, given)
    np.testing.assert_allclose(output, scorer(*inputs), rtol=0, atol=1e-5)


OPTIONS = (
    {},
    {"shots": 2},
    {"coreset": 0.3},
    {"retrieve": 3, "k_neighbors": 2},
    {"coreset": 0.3, "retrieve": 2},
    {"coreset": 0.06, "retrieve": 1, "k_neighbors": 4},  # some images have fewer rows left, some none
)


def _rank_main(folder):
    with parallel.process_group("cpu"):
        _fit_and_score(parallel.rank(), folder)


def _fit_and_score(rank, folder):
    images, cls = _images(7), _tokens(7, seed=3)
    heads = [AnomalyDinoHead(CHANNELS, **options) for options in OPTIONS]
    heads += [AnomalyDinoHead(CHANNELS, sharded=True, **options) for options in OPTIONS]
    heads.append(DinoADHead(CHANNELS, normalization="calibrated"))
    for head in heads:
        # Joined batches are images 0-3 and 4-6; in the second, the ranks get 3 and 0.
        for parts in ((slice(0, 2), slice(2, 4)), (slice(4, 7), slice(7, 7))):
            head.fit_batch(images[parts[rank]], cls[parts[rank]])
        head.end_epoch()
        head.calibrate_batch(images[rank::2], cls[rank::2])
        head.end_calibration()
    torch.save([head.state_dict() for head in heads], f"{folder}/state{rank}.pt")
    # One rank has two images and scores them one by one, the other has one.
    part = slice(0, 2) if rank == 0 else slice(2, 3)
    own = list(zip(_images(3, seed=1)[part], _tokens(3, seed=1)[part], strict=True))
    scores = []
    for whole, fitted, options in zip(heads, heads[len(OPTIONS) :], OPTIONS, strict=False):
        loaded = AnomalyDinoHead(CHANNELS, sharded=True, **options)
        loaded.load_state_dict(whole.state_dict())
        for sharded in (loaded, fitted):
            assert 0 < len(sharded.bank) < len(whole.bank) and sharded.divided
            scores.append(torch.cat([sharded.score(image[None], token[None]) for image, token in own]))
            sharded.end_scoring()
    torch.save(scores, f"{folder}/scores{rank}.pt")


def test_two_ranks_give_the_model_and_scores_of_one(tmp_path):
    assert run_in_group(2, functools.partial(_rank_main, tmp_path)) == [0, 0]
    images, cls = _images(7), _tokens(7, seed=3)
    dino_ad = DinoADHead(CHANNELS, normalization="calibrated")
    dino_ad.fit_batch(images, cls)
    dino_ad.end_epoch()
    dino_ad.calibrate_batch(images, cls)
    dino_ad.end_calibration()
    single = [_fitted(images, cls, **options) for options in OPTIONS]
    states = [torch.load(tmp_path / f"state{rank}.pt", weights_only=True) for rank in range(2)]
    for rank, state in enumerate(states):
        for i, head in enumerate([*single, *single, dino_ad]):
            if rank == 0 or not len(OPTIONS) <= i < 2 * len(OPTIONS):  # a divided bank is joined on the first rank
                torch.testing.assert_close(state[i], dict(head.state_dict()), rtol=1e-5, atol=1e-6)
    scores = zip(*(torch.load(tmp_path / f"scores{rank}.pt", weights_only=True) for rank in range(2)), strict=True)
    for parts, head in zip(scores, (head for head in single for _ in range(2)), strict=True):
        expected = head.score(_images(3, seed=1), _tokens(3, seed=1))
        torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-6)


def test_errors():
    with pytest.raises(RuntimeError, match=r"not fitted.*train"):
        AnomalyDinoHead(CHANNELS).score(_images())
    with pytest.raises(RuntimeError, match="no normal image"):
        AnomalyDinoHead(CHANNELS).end_epoch()
    for options in ({"shots": 0}, {"k_neighbors": 0}, {"coreset": 1.5}, {"foreground": "otsu"}, {"views": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            AnomalyDinoHead(CHANNELS, **options)
