"""The images of a set between reading and writing."""

import numpy as np
import torch

from tests.support.samples import save_all
from utils.images.photographs import Picture
from utils.images.saving import PNG
from utils.inference.evaluation import Decoded
from utils.metrics.scorer import Scorer
from utils.runtime.distributed import DistributedContext
from utils.testing.inputs import find_inputs
from utils.testing.results import Results
from utils.testing.set_images import LoadedImage, SetImages
from utils.testing.settings import NetworkSettings
from utils.testing.sources import find_sources


def test_pictures_that_are_not_as_their_headers_say_are_restored_one_by_one(tmp_path, small_networks):
    """A PNG with its EXIF rotation after the pixels, which only decoding reveals."""
    distributed = DistributedContext(torch.device("cpu"))
    (source,), _ = find_sources(
        NetworkSettings(tmp_path, [small_networks / "DeblurringNet_FT.pth"]), distributed.device
    )
    (inputs,), _ = find_inputs([str(save_all(tmp_path / "photos", "{a,b}.png"))], ("blur", "sharp"), tmp_path, None)
    results = Results(tmp_path, {}, distributed)
    images = SetImages(inputs, source, Scorer(("psnr",), distributed.device), results, PNG)
    shapes = [(24, 40, 3), (40, 24, 3)]
    loaded = [LoadedImage(i, Decoded(Picture(np.zeros(s, np.uint8)), None), None) for i, s in enumerate(shapes)]
    restored = images.restore(loaded)
    assert [each.shape for each in restored.images()] == shapes
