"""Every test of the DPMM by the products of both libraries, whichever this processor would take."""

import pytest
import torch

from dino_uad import products


@pytest.fixture(params=["torch", "oneDNN"], scope="module", autouse=True)
def library(request):
    if request.param == "oneDNN" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "mkl_is_slow", lambda: request.param == "oneDNN")
        patch.setattr(products, "_SMALL", 1)
        yield request.param
