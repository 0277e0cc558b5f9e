"""Synthesising pairs of blurry and sharp images from sharp ones, in batches, as training data."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from datasets.synthesis.jpeg import quantisation
from datasets.synthesis.motion import MotionSettings, draw_motion
from datasets.synthesis.rendering import Exposure, average, exposure_arrays, inside
from datasets.synthesis.sensor import Sensor, SensorSettings, draw_cameras, to_8_bits
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


@dataclass(frozen=True)
class BlurPlan:
    """What is drawn for a batch, before its photographs are needed.

    Attributes:
        numbers: (count,) float32, arrays one after the other, so that one copy brings all of them to a GPU.
        shapes: of the arrays.
        regions: which image each region is of.
        brightened: whether any image has highlights brighter than the photograph could record.
        changed: whether any partner is not the photograph itself.
    """

    numbers: Tensor
    shapes: Sequence[tuple[int, ...]]
    regions: Sequence[int]
    brightened: bool
    changed: bool

    def pin_memory(self) -> "BlurPlan":
        """Return the plan in memory from which a GPU can copy; PyTorch's data loader calls this."""
        return replace(self, numbers=self.numbers.pin_memory())

    def on(self, device: torch.device) -> list[Tensor]:
        """Return the arrays on a device, without waiting for what a GPU has to do before."""
        numbers = self.numbers.pin_memory() if device.type == "cuda" else self.numbers
        parts = numbers.to(device, non_blocking=True).split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


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

    def draw(self, seeds: Sequence[int], height: int, width: int) -> BlurPlan:
        """Return what is drawn from seeds, for images of height × width px with the margin."""
        motion = draw_motion(seeds, height, width, self.margin, self.settings.motion)
        cameras, regions = draw_cameras(seeds, self.settings.sensor), motion.regions
        changed = cameras.brightened.copy()  # the partners that are not the photograph itself
        changed[regions.images[regions.pasted]] = True
        compressed = cameras.compressed
        steps = quantisation(cameras.quality) * compressed[:, None, None, None] if compressed.any() else np.empty(0)
        arrays = exposure_arrays(motion, height, width, self.margin)
        arrays += [cameras.numbers, cameras.keys.view(np.float32), changed, steps]
        return BlurPlan(
            torch.from_numpy(np.concatenate([each.astype(np.float32).ravel() for each in arrays])),
            [each.shape for each in arrays],
            regions.images.tolist(),
            bool(cameras.brightened.any()),
            bool(changed.any()),
        )

    @torch.no_grad()
    def __call__(self, sharp: Tensor, seeds: Tensor | BlurPlan) -> tuple[Tensor, Tensor]:
        """Return blurry images and their sharp partners, (N, 3, H - 2 margin, W - 2 margin) in [-1, 1] each.

        Args:
            sharp: (N, 3, H, W) float32 in [-1, 1], on any device.
            seeds: (N,) int64, on the CPU; or what `draw` returned for them and this size.

        Raises:
            ValueError: shapes or types other than these, or images without anything inside the margin.
        """
        if sharp.dim() != 4 or sharp.shape[1] != 3 or sharp.dtype != torch.float32:
            raise ValueError(f"expected (N, 3, H, W) float32 images, got {tuple(sharp.shape)} {sharp.dtype}")
        if min(sharp.shape[-2:]) <= 2 * self.margin:
            raise ValueError(
                f"expected images larger than twice the margin of {self.margin} px, got {tuple(sharp.shape)}"
            )
        if isinstance(seeds, BlurPlan):
            return self._synthesise(sharp.contiguous(), seeds)
        if seeds.shape != sharp.shape[:1] or seeds.dtype != torch.int64 or seeds.device.type != "cpu":
            raise ValueError(
                f"expected ({len(sharp)},) int64 seeds on the CPU, got {tuple(seeds.shape)} {seeds.dtype} on "
                f"{seeds.device}"
            )
        if sharp.device.type == "cpu" and len(sharp) > 1:
            # One after the other: vectorised loops treat the last values of a tensor in another way than the others.
            pairs = [self(*each) for each in zip(sharp.split(1), seeds.split(1), strict=True)]
            return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
        return self._synthesise(sharp.contiguous(), self.draw(seeds.tolist(), *sharp.shape[-2:]))

    def _synthesise(self, sharp: Tensor, plan: BlurPlan) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():  # a tenth less of the host's time than without gradients alone
            blurry, partner = self._pair(sharp, plan)
        # Outside, so that these are usual tensors; copied, since the partner may be a view of the caller's images.
        return blurry * 2 - 1, partner.clone(memory_format=torch.contiguous_format)

    def _pair(self, sharp: Tensor, plan: BlurPlan) -> tuple[Tensor, Tensor]:
        """Return the blurry images in [0, 1] and their partners in [-1, 1]."""
        maps, weights, outlines, pasted, ruler, numbers, keys, changed, steps = plan.on(sharp.device)
        exposure = Exposure(maps, weights, outlines, pasted, ruler, plan.regions)
        sensor = Sensor(numbers, keys.view(torch.int32), steps if len(steps) else None, plan.brightened)
        light = sensor.light(((sharp + 1) / 2).clamp_(0.0, 1.0))
        blurry, middle = sensor.values(torch.stack(average(light, exposure, self.margin)))
        partner = inside(sharp, self.margin)
        if plan.changed:
            partner = torch.where(changed.bool()[:, None, None, None], to_8_bits(middle) * 2 - 1, partner)
        return sensor.record(blurry), partner
