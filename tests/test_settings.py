"""Settings that are refused: whatever it is, the message names the setting and what it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.settings import require_choice, require_count, require_number, require_size

CHOICES = {
    AnomalyDinoHead: ("index", "foreground"),
    DinoADHead: ("support", "normalization", "similarity"),
    DPMMHead: ("covariance", "schedule", "score_type", "init"),
    SpatialARHead: ("direction", "combine", "covariance"),
}
COUNTS = {
    AnomalyDinoHead: ("shots", "k_neighbors", "retrieve", "views"),
    DinoADHead: ("n_clusters", "n_support"),
    DPMMHead: ("n_components",),
    SpatialARHead: ("hidden",),
}
NUMBERS = {
    AnomalyDinoHead: ("coreset",),
    DPMMHead: ("step_size", "concentration", "weight_threshold", "reg_covar"),
    SpatialARHead: ("own_share",),
}
WRONG = [
    *((head, name, value) for head, names in CHOICES.items() for name in names for value in ("unheard of", 3, "")),
    *((head, name, value) for head, names in COUNTS.items() for name in names for value in (0, -1, 1.5, "4", True)),
    *((head, name, v) for head, names in NUMBERS.items() for name in names for v in (-0.1, float("nan"), "0.5", True)),
    *((SpatialARHead, "dilations", value) for value in ([], 1, "11", [1, 0])),
]


@pytest.mark.parametrize(("head", "name", "value"), WRONG)
def test_the_message_says_which_setting_and_what_it_was(head, name, value):
    with pytest.raises(ValueError, match=f"^{name} is .*; expected "):
        head(8, **{name: value})


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_counts(value, least):
    for kind in (int, np.int64):
        if value >= least:
            require_count("n", kind(value), least)
        else:
            with pytest.raises(ValueError, match=f"n is .*{value}.*at least {least}"):
                require_count("n", kind(value), least)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, np.float32(1)])
@pytest.mark.parametrize("ends", ["[]", "(]", "[)", "()"])
def test_ends_of_a_range(value, ends):
    if (value == 0 and ends[0] == "(") or (value == 1 and ends[1] == ")"):
        with pytest.raises(ValueError, match=r"share is .*; expected a number in .0, 1."):
            require_number("share", value, 0, 1, ends=ends)
    else:
        require_number("share", value, 0, 1, ends=ends)


def test_choices_are_listed():
    require_choice("way", None, (None, "pca"))
    with pytest.raises(ValueError, match="way is 'best'; expected one of None, pca"):
        require_choice("way", "best", (None, "pca"))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1, "2", True])
def test_a_number_without_a_highest_value_is_finite(value):
    require_number("width", 2.5, 0)
    with pytest.raises(ValueError, match=r"width is .*; expected a number of at least 0$"):
        require_number("width", value, 0)
    with pytest.raises(ValueError, match=r"width is 0; expected a number above 0$"):
        require_number("width", 0, 0, ends="(]")


@pytest.mark.parametrize("value", [56, "56", [56], [56, 0], [56, 56.0], [56, True], [56, 56, 3], ["56", "56"]])
def test_sizes(value):
    assert require_size("image size", (56, np.int64(70))) == (56, 70)
    with pytest.raises(ValueError, match=r"image size is .*; expected height and width"):
        require_size("image size", value)
