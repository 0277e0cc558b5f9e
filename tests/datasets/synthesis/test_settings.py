"""Settings of the blur, changed by name, as --blur does."""

from dataclasses import replace

import pytest
import torch

import DR_training
from datasets import BlurSettings, BlurSynthesis
from datasets.synthesis import motion, sensor
from datasets.synthesis.motion import MotionSettings
from datasets.synthesis.sensor import SensorSettings
from utils.common.errors import UserError


def test_settings_are_changed_by_name():
    changed = BlurSettings().changed(["share_still=0.25", "frames=7,9", "shot=1e-7,2e-5", "extent=12"])
    assert changed.motion == replace(MotionSettings(), share_still=0.25, frames=(7, 9), extent=12.0)
    assert changed.sensor == replace(SensorSettings(), shot=(1e-7, 2e-5))
    assert BlurSettings().changed([]) == BlurSettings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("wobble=1", "wobble=1: no setting of the synthesised blur; expected one of exposure, "),
        ("share_still=1.5", "share_still=1.5: expected a number from 0 to 1"),
        ("extent=1,2", "extent=1,2: expected a number"),
        ("extent=", "extent=: expected a number"),
        ("frames=8,12", "frames=8,12: frames should be two odd numbers from 3 up"),
        ("exposure=0,1", "exposure=0,1: exposure should be above 0"),
        ("extent=-1", "extent=-1: extent should be at least 0"),
        ("frame=0,0", "frame=0,0: frame should be above 0"),
        ("spread=-1", "spread=-1: spread should be at least 0"),
        ("region_edge=-3,-1", "region_edge should be at least 0"),
        ("contrast=1,1e3", "contrast should be above 0, from 0.1 to 10, not "),
        ("frame=1," + "9" * 400, "frame=1,9"),
        ("shot=0,1e-4", "shot=0,1e-4: shot should be above 0"),
        ("frames=7", "frames=7: expected LOW,HIGH"),
        ("frames=13,7", "frames=13,7: expected LOW,HIGH"),
        ("frames=7.5,9", "expected LOW,HIGH, such as 7,13"),
        ("shot=1e-6,nan", "shot=1e-6,nan: expected LOW,HIGH"),
    ],
)
def test_a_setting_that_is_none_is_refused(change, message, capsys):
    with pytest.raises(UserError, match=message):
        BlurSettings().changed([change])
    with pytest.raises(SystemExit):
        DR_training.parse_args(["--blur", change])
    assert "--blur" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "limits"), (motion._LIMITS | sensor._LIMITS).items())
def test_pictures_at_the_limits_of_a_setting_are_numbers(name, limits):
    base = ["share_linear=0", "share_gamma=0", "share_highlights=1", "share_jpeg=1", "share_with_regions=1"]
    settings = BlurSettings().changed(base)
    owner = settings.motion if hasattr(settings.motion, name) else settings.sensor
    pair = isinstance(getattr(owner, name), tuple)
    photograph = torch.rand(1, 3, 76, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for limit in limits:
        value = f"{limit:g},{limit:g}" if pair else f"{limit:g}"
        synthesis = BlurSynthesis(settings.changed(["sub_frames=3,31", f"{name}={value}"]))
        for seed in range(3):
            for image in synthesis(photograph, torch.tensor([seed])):
                assert image.abs().max() <= 1 + 1e-6  # and not NaN
