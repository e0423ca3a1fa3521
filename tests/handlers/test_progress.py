"""The progress bar gets out of the way, also of errors."""

import pytest
from ignite.engine import Engine

from dino_uad.handlers.progress import FitProgress


def step(engine, batch):
    if batch == "bad":
        raise ValueError("p1.nii.gz: cannot be read")
    return [{"loss": 0.5, "note": "text is not shown"}]


def test_bar_counts_the_batches_of_all_epochs():
    engine, progress = Engine(step), FitProgress()
    progress.attach(engine)
    engine.run(["good", "good"], max_epochs=3)
    assert progress.bar.n == progress.bar.total == 6 and progress.bar.disable


def test_an_error_in_the_fit_reaches_the_caller():
    engine, progress = Engine(step), FitProgress()
    progress.attach(engine)
    with pytest.raises(ValueError, match=r"p1\.nii\.gz"):
        engine.run(["good", "bad"], max_epochs=1)
    assert progress.bar.disable
