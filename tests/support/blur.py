"""What tests of synthesised blur share: a picture, cameras without noise, motions of next to nothing."""

import torch

from datasets.synthesis.motion import MotionSettings
from datasets.synthesis.sensor import Response, SensorSettings
from tests.support.samples import SAMPLES

SHARP = SAMPLES / "train" / "GOPR0372_07_00" / "sharp" / "000047.png"
QUIET = SensorSettings(share_linear=1.0, share_jpeg=0.0, shot=(1e-12, 1e-12), read=(1e-9, 1e-9))
STILL = MotionSettings(extent=1e-4, region_extent=1e-4, region_turn=0.0, region_growth=0.0, share_with_regions=0.0)


def response(gamma, contrast=1.0, brightness=0.0):
    return Response(Response.numbers_of(*torch.tensor([[gamma], [contrast], [brightness]])))
