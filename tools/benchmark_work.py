"""The pieces of work that `tools.benchmark` measures, each as a function that returns something to run."""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import torch
from torch import nn

from datasets import FrameCache, find_images
from datasets.patches import TrainingPatches
from DR_training import Deblur, Finetune, Reblur, training_step
from models import DeblurringNet, ReblurringNet, cached_kernel_weights
from models.blocks import MIN_SIZE
from utils.images.codecs import read_image
from utils.images.conversion import to_tensor
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.precision import autocast, set_precision
from utils.training.optimization import OptimizationSettings, TrainingState
from utils.training.stage import Stage

Size = tuple[int, int]
Run = Callable[[], object]

OPENVINO_MULTIPLE = 4  # px; it converts the network without its padding


@dataclass(frozen=True)
class Configuration:
    """How a piece of work is done. `precision` None is fp32 with PyTorch's default flags: TF32 in convolutions."""

    deform_op: str
    precision: str | None
    channels_last: bool

    def set_flags(self, device: torch.device) -> None:
        """Set the process's TF32 flags as this configuration wants them."""
        if self.precision is None:  # the defaults of PyTorch
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = True
        else:
            set_precision(self.precision, device)

    @property
    def baseline(self) -> bool:
        """Whether it is a direct transcription, of which nothing was made faster."""
        return not self.channels_last

    def prepare(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Move a network to the device, in this configuration's memory layout."""
        # PyTorch's types lack memory_format.
        return network.to(device, memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def recorded(self, function: Callable[..., object], device: torch.device) -> Callable[..., object]:
        """Return a function of tensors as the scripts run it: replayed from a recording where it is fused on CUDA."""
        return CudaGraph(function, warmup=1) if device.type == "cuda" and self.deform_op == "fused" else function

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def baseline_configuration(precision: str | None = None) -> Configuration:
    """Return a direct transcription: torchvision's operator, NCHW, fp32, PyTorch's default flags or those named."""
    return Configuration("torchvision", precision, channels_last=False)


def _images(
    configuration: Configuration, count: int, batch: int, size: Size, device: torch.device
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(batch, 3, *size, generator=generator) * 2 - 1).to(device, memory_format=configuration.memory_format)
        for _ in range(count)
    ]


def _forward(configuration: Configuration, network: nn.Module, images: list[torch.Tensor], device: torch.device) -> Run:
    forward = configuration.recorded(network, device)
    weights = ExitStack()
    weights.enter_context(cached_kernel_weights(network))

    @torch.inference_mode()
    def run(weights: ExitStack = weights) -> None:  # holds them as long as the recording
        with autocast(configuration.precision or "fp32", device):
            forward(*images)

    return run


def deblur(configuration: Configuration, batch: int, size: Size, device: torch.device, frames: Path) -> Run:
    """Restore a batch with the deblurring network."""
    network = configuration.prepare(DeblurringNet(deform_op=configuration.deform_op).eval(), device)
    return _forward(configuration, network, _images(configuration, 1, batch, size, device), device)


def openvino_deblur(precision: str, batch: int, size: Size) -> tuple[Run, float]:
    """Return what restores a batch on the CPU by OpenVINO, and its largest difference from the baseline in fp32.

    Both sizes are multiples of `OPENVINO_MULTIPLE`.
    """
    import openvino  # pyright: ignore[reportMissingImports] (optional)

    device = torch.device("cpu")
    baseline = baseline_configuration()
    (image,) = _images(baseline, 1, batch, size, device)
    network = baseline.prepare(DeblurringNet(deform_op=baseline.deform_op).eval(), device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks of the shape, which is fixed
        model = openvino.convert_model(network, example_input=image[..., :MIN_SIZE, :MIN_SIZE], input=[image.shape])
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()
    run = partial(request.infer, {0: image.numpy()})
    with torch.inference_mode():
        difference = (torch.from_numpy(run()[0]) - network(image)).abs().max()
    return run, difference.item()


def reblur(configuration: Configuration, batch: int, size: Size, device: torch.device, frames: Path) -> Run:
    """Blur a batch with the reblurring network."""
    network = configuration.prepare(ReblurringNet(deform_op=configuration.deform_op).eval(), device)
    return _forward(configuration, network, _images(configuration, 2, batch, size, device), device)


def _training_step(
    name: str, configuration: Configuration, batch: int, size: Size, device: torch.device, frames: Path
) -> Run:
    """Train a stage for one step."""
    deblurring = DeblurringNet(deform_op=configuration.deform_op)
    reblurring = ReblurringNet(deform_op=configuration.deform_op)
    stages = {
        "reblur": lambda: Reblur(reblurring),
        "deblur": lambda: Deblur(deblurring),
        "finetune": lambda: Finetune(deblurring, reblurring, 1.0, 0.1),
    }
    stage: Stage = stages[name]()
    configuration.prepare(stage, device)
    network = stage.network
    precision = configuration.precision or "fp32"
    blurry, sharp = _images(configuration, 2, batch, size, device)
    has_sharp, notes = torch.ones(batch, device=device), torch.zeros(2, device=device)
    weight = torch.full((), 1 / batch, device=device)

    if configuration.baseline:
        optimizer = torch.optim.Adam(network.parameters(), 1e-5)

        def step(**images: torch.Tensor) -> object:
            optimizer.zero_grad(set_to_none=True)
            with autocast(precision, device):
                loss = stage(images).loss
            loss.backward()
            optimizer.step()
    else:
        training = TrainingState(network, 1e-5, OptimizationSettings(precision))

        def step(**images: torch.Tensor) -> object:
            return training_step(stage, training, weight=weight, notes=notes, **images)

    run_step = configuration.recorded(step, device)
    weights = ExitStack()
    weights.enter_context(stage.frozen_weights_cached())

    def run(weights: ExitStack = weights) -> None:  # holds them as long as the recording
        run_step(blurry=blurry, sharp=sharp, has_sharp=has_sharp)

    return run


def data(configuration: Configuration, batch: int, size: Size, device: torch.device, frames: Path) -> Run:
    """Make a batch of training samples on one core: from the cache, or for the baseline from the files."""
    import albumentations as A  # after datasets.patches, which turns its look-up of newer versions off

    cv2.setNumThreads(0)
    pairs = find_images(frames, "train")
    if configuration != baseline_configuration():
        folder = tempfile.TemporaryDirectory(prefix="frames-")
        cache = FrameCache(Path(folder.name))
        cache.build([*pairs.blurry, *(pairs.sharp or ())], threads=1)
        patches = TrainingPatches([pairs], size[0], cache)

        def run(folder: tempfile.TemporaryDirectory = folder) -> None:  # holds the folder as long as it is needed
            for i in range(batch):
                patches[i % len(pairs), i]

        return run
    # albumentations' own classes for the five transforms; its elastic one is far slower today than in 2021.
    whole = A.Compose(
        [
            A.OneOf(
                [A.HorizontalFlip(p=1), A.ShiftScaleRotate(p=1), A.Transpose(p=1), A.OpticalDistortion(p=1),
                 A.ElasticTransform(p=1)], p=1),
            A.PadIfNeeded(*size),
            A.RandomCrop(*size),
        ],
        additional_targets={"sharp": "image"},
        seed=0,
    )  # fmt: skip

    def run_baseline() -> None:
        for i in range(batch):
            blurry = read_image(pairs.blurry[i % len(pairs)])
            sharp = read_image(pairs.sharp[i % len(pairs)]) if pairs.sharp else None
            patches = whole(image=blurry) if sharp is None else whole(image=blurry, sharp=sharp)
            for patch in patches.values():
                to_tensor(patch)

    return run_baseline


WORKS: dict[str, Callable[[Configuration, int, Size, torch.device, Path], Run]] = {
    "deblur": deblur,
    "reblur": reblur,
    **{f"{stage}_step": partial(_training_step, stage) for stage in ("finetune", "deblur", "reblur")},
    "data": data,
}
