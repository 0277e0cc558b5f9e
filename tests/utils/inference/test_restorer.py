"""Restoring several images at once."""

import numpy as np
import pytest
import torch

from models import DeblurringNet
from models.ops.common import kernel_weights
from tests.support.samples import SAMPLE, load
from utils.inference.restorer import Restorer


@pytest.mark.slow
def test_a_batch_is_its_images(monkeypatch):
    torch.manual_seed(0)
    network, calls = DeblurringNet(4).eval(), []

    def counted(x):
        calls.append(len(x))
        return network(x)

    picture = load(SAMPLE)
    images = [np.ascontiguousarray(picture[y : y + 50, 90:163]) for y in (0, 100, 200)]
    singly = [Restorer(network, 4, torch.device("cpu"))(image) for image in images]
    for options, expected in (({}, [3]), ({"tile": 128, "overlap": 64}, [3]), ({"self_ensemble": True}, [1] * 24)):
        calls.clear()
        together = Restorer(counted, 4, torch.device("cpu"), **options)(np.stack(images))
        assert calls == expected
        if "self_ensemble" not in options:
            for one, other in zip(singly, together, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5)

    def limited(x):
        calls.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(x)

    calls.clear()
    together = Restorer(limited, 4, torch.device("cpu"))(np.stack(images))
    assert calls == [3, 1, 1, 1]
    np.testing.assert_array_equal(together, singly)


def test_within_its_context_kernel_weights_are_kept():
    network = DeblurringNet(4).eval()
    image = np.zeros((16, 16, 3), np.uint8)
    restorer = Restorer(network, 4, torch.device("cpu"))
    expected = restorer(image)
    assert not set(network.modules()) & set(kernel_weights._caches)
    with restorer:
        assert set(network.modules()) <= set(kernel_weights._caches)
        np.testing.assert_array_equal(restorer(image), expected)
        with pytest.raises(RuntimeError, match="is a context already"):
            restorer.__enter__()
    assert not set(network.modules()) & set(kernel_weights._caches)
    np.testing.assert_array_equal(restorer(image), expected)


def test_weights_that_were_built_while_memory_ran_out_are_built_once_more():
    """They lie among the tensors of the image that did not fit, whose memory they would keep."""
    built = []

    class Limited(torch.nn.Module):
        def forward(self, x):
            kernel_weights.kernel_weights(self, "rows", lambda: built.append(x.shape))
            if x.shape[2] * x.shape[3] > 200**2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x

    with torch.no_grad(), Restorer(Limited(), 4, torch.device("cpu"), tile="auto", log=lambda line: None) as restorer:
        restorer(load(SAMPLE)[:300, :400])
        restorer(load(SAMPLE)[:300, :400])
    assert [shape[2:] for shape in built] == [(300, 400), (200, 200)]
