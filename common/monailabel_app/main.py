"""A MONAI Label app for the bundles in its ``model/`` folder, which knows how anomalous each scan is.

MONAI Label's own app for bundles (``monaibundle``) with two things added: ``POST /scoring/anomaly_BUNDLE`` stores the
image score of every scan that has no label yet, and two active-learning strategies offer scans by it: the most
anomalous next, to look at first, or the most typical, to enlarge the set of normal scans quickly. And batch inference
goes on after a study that cannot be read.

    monailabel start_server --app common/monailabel_app --studies STUDIES --conf models dpmm --conf zoo_source local
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import get_bundle_models, strtobool

import monailabel

logger = logging.getLogger(__name__)


class AnomalyScoring(ScoringMethod):
    """Stores a bundle's image score for every scan without a label, unless its present model has scored it already."""

    def __init__(self, task: BundleInferTask, name: str) -> None:
        super().__init__(f"How anomalous each scan is, by {name}")
        self.task, self.key = task, score_key(name)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        start, fitted = time.time(), model_state(self.task)
        images = datastore.get_unlabeled_images()
        fresh = [i for i in images if datastore.get_image_info(i).get(self.key, {}).get("model") == fitted]
        failed = {}
        for image in sorted(set(images) - set(fresh)):
            try:
                _, data = self.task({"image": datastore.get_image_uri(image), "logging": "error"})
                score = data["result"]["image_score"]
                if score is None:
                    raise ValueError("no slice of it has a foreground")
            except Exception as error:  # one scan that cannot be read must not keep the others from being ranked
                logger.warning(f"{image}: not scored: {error}")
                failed[image] = str(error)
                continue
            datastore.update_image_info(image, {self.key: {"score": score, "model": fitted}})
        executed = len(images) - len(fresh) - len(failed)
        return {
            "total": len(images),
            "skipped": len(fresh),
            "executed": executed,
            "failed": failed,
            "latency": round(time.time() - start, 3),
        }


class ByAnomaly(Strategy):
    """Offers the scan without a label that has the highest (or lowest) image score of a bundle's present model.

    Args:
        tasks: of bundles that may have scored, by name; the request's ``model`` chooses, the first one otherwise.
        typical: offer the lowest score.
    """

    def __init__(self, tasks: dict[str, BundleInferTask], typical: bool = False) -> None:
        super().__init__("The most typical scan next" if typical else "The most anomalous scan next")
        self.tasks, self.typical = tasks, typical

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        name = request.get("model") or next(iter(self.tasks))
        if name not in self.tasks:
            raise HTTPException(400, f"model {name!r} scores no scans; expected one of {', '.join(self.tasks)}")
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        if not images:
            return None
        found = {image: datastore.get_image_info(image).get(score_key(name), {}) for image in images}
        fitted = model_state(self.tasks[name])
        scores = {image: facts["score"] for image, facts in found.items() if facts.get("model") == fitted}
        if not scores:
            # MONAI Label's own exceptions reach the client as a bare "Internal Server Error".
            raise HTTPException(
                400, f"no scan is scored by the present model yet: POST /scoring/{score_key(name)} first"
            )
        sign = 1 if self.typical else -1
        chosen = min(scores, key=lambda image: (sign * scores[image], image))
        return {"id": chosen, "anomaly_score": scores[chosen], "unscored": len(images) - len(scores)}


def score_key(name: str) -> str:
    """Under which a data store keeps the scores of a bundle, and the name of the scoring method that makes them."""
    return f"anomaly_{name}"


def model_state(task: BundleInferTask) -> int:
    """What tells a bundle's present model from former ones, whose scores are of another scale."""
    return int(Path(task.get_path()).stat().st_mtime)


class MyApp(MONAILabelApp):
    """MONAI Label looks for a class of this name."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles = get_bundle_models(app_dir, conf)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"DINO-UAD - anomaly detection ({monailabel.__version__})",
            description="Marks what does not look like normal anatomy; research only",
            version=monailabel.__version__,
        )

    def init_infers(self) -> dict[str, BundleInferTask]:
        return {name: BundleInferTask(path, self.conf) for name, path in self.bundles.items()}

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """What MONAI Label answers for each image; ``{"failed": reason}`` for one that cannot be scored."""

        def infer(one: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
            try:
                return self.infer(one, datastore)
            except Exception as error:  # MONAI Label ends the batch with it where one worker scores
                logger.warning(f"{one['image']}: not scored: {error}")
                return {"failed": str(error)}

        return self._batch_infer(request, datastore or self.datastore(), infer)

    def init_trainers(self) -> dict[str, BundleTrainTask]:
        if strtobool(self.conf.get("skip_trainers", "false")):
            return {}
        tasks = {name: BundleTrainTask(path, self.conf) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}

    def init_strategies(self) -> dict[str, Strategy]:
        tasks = self._scoring_tasks()
        by_score = {"anomalous": ByAnomaly(tasks), "typical": ByAnomaly(tasks, typical=True)} if tasks else {}
        return {**by_score, "first": First(), "random": Random()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {score_key(name): AnomalyScoring(task, name) for name, task in self._scoring_tasks().items()}

    def _scoring_tasks(self) -> dict[str, BundleInferTask]:
        tasks = {name: BundleInferTask(path, self.conf, skip_writer=True) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}
