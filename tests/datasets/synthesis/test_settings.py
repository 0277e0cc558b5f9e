"""Settings of the blur, changed by name, as --blur does."""

from dataclasses import replace

import pytest

import DR_training
from datasets import BlurSettings
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
