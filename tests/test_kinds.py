"""Plain values against annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from dino_uad.kinds import admits, in_words

CASES = [
    (int, [0, 7], [True, 0.5, "1", None, [1]], "a whole number"),
    (float, [0, 0.5, 1e9], [True, "1", None], "a number"),
    (bool, [True], [1, 0, "yes", None], "True or False"),
    (str, ["", "a"], [1, None, ["a"]], "text"),
    (int | None, [3, None], ["None"], "a whole number or None"),
    (float | torch.Tensor, [0.1], [None, "a"], "a number"),
    (Sequence[int], [[1, 2], (), [0]], [1, "12", ["1"], [0.5]], "a list of whole numbers"),
    (tuple[int, ...] | None, [[1], None], [[None]], "a list of whole numbers or None"),
    (Mapping[str, Any], [{}, {"a": 1}], [[], "a", None], "a dictionary"),
    (Literal["a", "b"], ["a"], ["c", [], None], "one of a, b"),
    (torch.nn.Module, [torch.nn.ReLU()], ["relu", 3], "Module"),
    (torch.device, ["cpu", 0], [], "device"),
    (Callable[[int], int], [abs], ["abs"], "a function"),
    (Any, [None, 1, "a", []], [], "Any"),
]


@pytest.mark.parametrize(("hint", "right", "wrong", "words"), CASES, ids=str)
def test_kinds(hint, right, wrong, words):
    assert [value for value in right if not admits(hint, value)] == []
    assert [value for value in wrong if admits(hint, value)] == []
    assert in_words(hint) == words
