"""Ignite engines that fit heads, evaluate detectors, and score without training images."""

from dino_uad.engines.batch import unpack
from dino_uad.engines.batched_zero_shot import zero_shot
from dino_uad.engines.embedding_trainer import EmbeddingTrainer, PredictionLoss
from dino_uad.engines.evaluate import DetectorEvaluator, EmbeddingEvaluator, resize_like
from dino_uad.engines.fit import HeadTrainer
from dino_uad.engines.prepare_embedding import PrepareEmbedding
from dino_uad.engines.scan import ScanEvaluator

__all__ = [
    "DetectorEvaluator",
    "EmbeddingEvaluator",
    "EmbeddingTrainer",
    "HeadTrainer",
    "PredictionLoss",
    "PrepareEmbedding",
    "ScanEvaluator",
    "resize_like",
    "unpack",
    "zero_shot",
]
