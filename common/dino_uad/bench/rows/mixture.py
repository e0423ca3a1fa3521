"""The DPMM's EM step against its own matrix products, and against scikit-learn's variational mixture."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.bench.row import Figure, Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import patch_embeddings
from dino_uad.heads.dpmm import Components, DPMMHead, log_joint

STEPS = 40  # of training on one batch, after which the components that the data do not need have vanished


def em_step(settings: Settings) -> Row:
    """One EM step (E, M, α) with every component alive, and late in a fit, against its four N×D×K products."""
    batch, head, start = start_of_fit(settings)
    n_rows, dim, n_components = _sizes(batch, head)
    row = Row("em", "DPMM EM step, diagonal", {"N": n_rows, "K": n_components, "D": dim}, settings)
    rows = batch.movedim(1, -1).reshape(-1, dim).float()
    squares, weights = rows.square(), torch.rand(dim, n_components, device=rows.device)
    resp = torch.rand(n_rows, n_components, device=rows.device)

    def products() -> None:
        for matrix in (rows, squares):
            matrix @ weights
            resp.T @ matrix

    def first_step() -> None:
        head.load_state_dict(start)
        head.fit_batch(batch)

    late = DPMMHead(dim, n_components).to(settings.device)
    late.load_state_dict(start)
    for _ in range(settings.size(STEPS, 3)):
        late.fit_batch(batch)
    row.time({"four products": products, "EM step": first_step, "EM step late": lambda: late.fit_batch(batch)})
    row.ratio(
        "EM step, all components alive / four products", "EM step", "four products", at_most=settings.on_processor(2.5)
    )
    row.ratio(f"EM step, {late.n_active} components left / four products", "EM step late", "four products")
    row.memory("EM step", first_step, at_most=400)
    first_step()
    _check_step(row, head, functional.normalize(rows, dim=1).double(), start)
    return row


def start_of_fit(settings: Settings) -> tuple[Tensor, DPMMHead, dict[str, Tensor]]:
    """A batch ``[B,C,h,w]``, a head, and the state before its first step: K rows as means, each with equal weight."""
    images, side, dim, n_components = settings.size((12, 32, 384, 500), (4, 8, 32, 20))
    batch = patch_embeddings(images, side, dim).to(settings.device)
    head = DPMMHead(dim, n_components).to(settings.device)
    state = {name: value.clone() for name, value in head.state_dict().items()}
    rows = functional.normalize(batch.movedim(1, -1).reshape(-1, dim).float(), dim=1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    state["running_means"] = rows[order[:n_components].to(rows.device)]
    state["running_covariances"] = (rows.var(0) + head.reg_covar).repeat(n_components, 1)
    state["log_weights"] = torch.full_like(state["log_weights"], -math.log(n_components))
    state["rows_per_batch"] = torch.tensor(len(rows), device=rows.device)
    head.load_state_dict(state)
    return batch, head, state


def scikit_learn(settings: Settings) -> Row:
    """One iteration of ``BayesianGaussianMixture`` with the same prior, truncation and rows."""
    from threadpoolctl import threadpool_limits

    batch, head, start = start_of_fit(settings)
    n_rows, dim, n_components = _sizes(batch, head)
    row = Row("sklearn", "EM iteration, scikit-learn", {"N": n_rows, "K": n_components, "D": dim}, settings)
    rows = functional.normalize(batch.movedim(1, -1).reshape(-1, dim).float(), dim=1).cpu()

    def ours() -> None:
        head.load_state_dict(start)
        head.fit_batch(batch)

    def peer(iterations: int) -> None:
        with threadpool_limits(settings.threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged, which is not its fault
            _peer_mixture(n_components, iterations).fit(rows.numpy())

    row.time({"EM step": ours, "scikit-learn, fit of 1": lambda: peer(1), "scikit-learn, fit of 3": lambda: peer(3)})
    mine, once, thrice = row.timings.values()
    wall, cpu = (thrice.wall_median - once.wall_median) / 2, (thrice.cpu_median - once.cpu_median) / 2
    ratios = wall / mine.wall_median, cpu / mine.cpu_median
    row.figures.append(Figure("scikit-learn iteration / EM step", ratios[0], cpu=ratios[1], at_least=3))
    row.notes.append(
        "An iteration of scikit-learn is half the difference between fits of 3 and of 1 iterations from the same "
        f"start, on the same float32 rows: {wall:.2f} s, {cpu:.2f} s of processor time."
    )
    row.check("log density of the fitted mixture, relative to scikit-learn's", _density_error(head, rows), 1e-6)
    return row


def _density_error(head: DPMMHead, rows: Tensor) -> float:
    """Log densities of ``rows`` ``[N,D]`` by our formula and by scikit-learn's, of the same mixture in float64."""
    from sklearn.mixture import GaussianMixture

    components = Components(*(tensor.double().cpu() for tensor in head.components))
    components = components._replace(log_weights=components.log_weights.log_softmax(0))
    components = components.select(torch.nonzero(components.log_weights > -torch.inf).squeeze(1))
    judge = GaussianMixture(len(components.means), covariance_type="diag")
    judge.weights_, judge.means_ = components.log_weights.exp().numpy(), components.means.numpy()
    judge.covariances_ = components.covariances.numpy()
    judge.precisions_cholesky_ = judge.covariances_**-0.5
    found = log_joint(rows.double(), components).logsumexp(1)
    return _relative(found, torch.from_numpy(judge.score_samples(rows.double().numpy())))


def _peer_mixture(n_components: int, iterations: int) -> object:
    from sklearn.mixture import BayesianGaussianMixture

    return BayesianGaussianMixture(
        n_components=n_components,
        covariance_type="diag",
        weight_concentration_prior_type="dirichlet_process",
        init_params="random_from_data",
        max_iter=iterations,
        tol=0,
        random_state=0,
    )


def _check_step(row: Row, head: DPMMHead, rows: Tensor, start: dict[str, Tensor]) -> None:
    """Compare the state after the first step with textbook EM in float64 on the same ``rows`` ``[N,D]``."""
    means, precision = start["running_means"].double(), 1 / start["running_covariances"].double()
    joint = -0.5 * (
        rows.square() @ precision.T - 2 * rows @ (means * precision).T + (means.square() * precision).sum(1)
    )
    resp = (joint + 0.5 * precision.log().sum(1)).softmax(1)
    counts = resp.sum(0)
    row.check("responsibility mass, share of all", (head.resp_mean / 0.2 - counts / len(rows)).abs().max(), 1e-5)
    used = counts > 1
    new_means = (resp.T @ rows)[used] / counts[used, None]
    new_variances = (resp.T @ rows.square())[used] / counts[used, None] - new_means.square() + head.reg_covar
    row.check("means, embeddings of length 1", (head.running_means[used] - new_means).abs().max(), 1e-4)
    row.check("variances, of their mean", _relative(head.running_covariances[used], new_variances), 1e-2)


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max() / exact.abs().mean())


def _sizes(batch: Tensor, head: DPMMHead) -> tuple[int, int, int]:
    return batch.shape[0] * batch.shape[2] * batch.shape[3], batch.shape[1], len(head.log_weights)
