"""Synthesising pairs of blurry and sharp images from sharp ones, in batches, as training data."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from datasets.synthesis.motion import MotionSettings, draw_motion
from datasets.synthesis.rendering import average, crop, send
from datasets.synthesis.sensor import Sensor, SensorSettings
from utils.common.errors import UserError


@dataclass(frozen=True)
class BlurSettings:
    """What blur is synthesised.

    Attributes:
        motion: of the camera and of objects.
        sensor: of the camera.
        margin: px at each border of the photograph that serve as context; beyond, it is reflected.
    """

    motion: MotionSettings = field(default_factory=MotionSettings)
    sensor: SensorSettings = field(default_factory=SensorSettings)
    margin: int = 32

    def changed(self, changes: Sequence[str]) -> "BlurSettings":
        """Return settings in which some of the motion's and the sensor's are others.

        Args:
            changes: NAME=VALUE, or NAME=LOW,HIGH where a setting is a pair.

        Raises:
            UserError: no such setting, or no such value of it.
        """
        parts = {"motion": self.motion, "sensor": self.sensor}
        for change in changes:
            name, _, text = change.partition("=")
            owner = next((key for key, part in parts.items() if name in [each.name for each in fields(part)]), None)
            if owner is None:
                names = [each.name for part in parts.values() for each in fields(part)]
                raise UserError(f"{change}: no setting of the synthesised blur; expected one of {', '.join(names)}")
            value = _parsed(change, text, getattr(parts[owner], name))
            try:
                parts[owner] = replace(parts[owner], **{name: value})
            except ValueError as error:
                raise UserError(f"{change}: {error}") from error
        return replace(self, **parts)


def _parsed(change: str, text: str, present: float | tuple[float, ...]) -> float | tuple[float, ...]:
    """Return the value that a change names, of the kind of the present one."""
    pair = isinstance(present, tuple)
    kind = type(present[0]) if pair else float
    try:
        values = [kind(each) for each in text.split(",")]
    except ValueError:
        values = []
    share = change.startswith("share_")
    ordered = not pair or (len(values) == 2 and values[0] <= values[1])
    if (
        len(values) != 1 + pair
        or not ordered
        or not all(abs(each) <= sys.float_info.max for each in values)
        or (share and not 0 <= values[0] <= 1)
    ):
        what = "a number from 0 to 1" if share else "LOW,HIGH" if pair else "a number"
        example = ",".join(map(str, present)) if isinstance(present, tuple) else present
        raise UserError(f"{change}: expected {what}, such as {example}")
    return tuple(values) if pair else values[0]


class BlurSynthesis:
    """Makes blurry images and their sharp partners of sharp ones.

    A blurry image is the average of sub-frames over an exposure, at most `settings.motion.step` px apart, in the light
    of a response curve. Its partner is the middle sub-frame: the photograph itself, moved nowhere, bit for bit unless a
    region was pasted in or highlights were made brighter. Then the blurry one gets noise, 8 bits, and some JPEG; the
    partner gets no noise, since that is what a network is to restore, and the photograph has its own.

    Random numbers of an image follow from its seed alone, whatever the rest of the batch; on the CPU so do the bits.

    Args:
        settings: what blur is drawn.
    """

    def __init__(self, settings: BlurSettings | None = None) -> None:
        self.settings = settings or BlurSettings()

    @property
    def margin(self) -> int:
        """Px at each border of what is given that serves as context only: the images come back without it."""
        return self.settings.margin

    @torch.no_grad()
    def __call__(self, sharp: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return blurry images and their sharp partners, (N, 3, H - 2 margin, W - 2 margin) in [-1, 1] each.

        Args:
            sharp: (N, 3, H, W) float32 in [-1, 1], on any device.
            seeds: (N,) int64, on the CPU.

        Raises:
            ValueError: shapes or types other than these, or images without anything inside the margin.
        """
        if sharp.dim() != 4 or sharp.shape[1] != 3 or sharp.dtype != torch.float32:
            raise ValueError(f"expected (N, 3, H, W) float32 images, got {tuple(sharp.shape)} {sharp.dtype}")
        if seeds.shape != sharp.shape[:1] or seeds.dtype != torch.int64 or seeds.device.type != "cpu":
            raise ValueError(
                f"expected ({len(sharp)},) int64 seeds on the CPU, got {tuple(seeds.shape)} {seeds.dtype} on "
                f"{seeds.device}"
            )
        if min(sharp.shape[-2:]) <= 2 * self.margin:
            raise ValueError(
                f"expected images larger than twice the margin of {self.margin} px, got {tuple(sharp.shape)}"
            )
        if sharp.device.type == "cpu" and len(sharp) > 1:
            # One after the other: vectorised loops treat the last values of a tensor in another way than the others.
            pairs = [self(*each) for each in zip(sharp.split(1), seeds.split(1), strict=True)]
            return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
        return self._synthesise(sharp.contiguous(), seeds.tolist())

    def _synthesise(self, sharp: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        height, width = sharp.shape[-2:]
        motion = draw_motion(seeds, height, width, self.margin, self.settings.motion)
        sensor = Sensor(seeds, self.settings.sensor, sharp.device)
        values = ((sharp + 1) / 2).clamp_(0.0, 1.0)
        blurry, middle = average(sensor.light(values), motion, self.margin)
        partner = crop(sharp, self.margin)
        changed = sensor.brightened.copy()
        for region in motion.regions:
            changed[region.images] |= region.pasted
        if changed.any():
            changed = send(np.flatnonzero(changed), sharp.device)
            partner[changed] = sensor.values(middle)[changed] * 2 - 1
        return sensor.record(blurry) * 2 - 1, partner
