"""What restored images come from: networks, or the folder in which another method left its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models import DeblurringNet, load_deblurring_net
from utils.common.errors import UserError
from utils.common.files import file_digest
from utils.inference.restorer import Restorer
from utils.runtime.device import pick_deform_op
from utils.runtime.precision import set_precision
from utils.testing.inputs import InputSet
from utils.testing.saved_results import SavedResults
from utils.testing.settings import NetworkSettings


@dataclass(frozen=True)
class ResultSource:
    """What makes the restored images of one table.

    Attributes:
        name: as results name it; empty where it is the only one.
        restorer: a network, or the folder of pictures that another method saved.
        folder: where its restored images go.
    """

    name: str
    restorer: Restorer | SavedResults
    folder: Path

    @property
    def label(self) -> str:
        """What stands above its figures."""
        return self.name or "restored"

    @property
    def saves(self) -> bool:
        """Whether it makes images that are saved, rather than being what another method saved."""
        return isinstance(self.restorer, Restorer)

    @property
    def network(self) -> DeblurringNet | None:
        """Its network, where there is one."""
        network = self.restorer.network if isinstance(self.restorer, Restorer) else None
        return network if isinstance(network, DeblurringNet) else None

    def set_name(self, inputs: InputSet) -> str:
        """Return what a set is called in the results."""
        return f"{self.name}/{inputs.name}" if self.name else inputs.name

    def set_title(self, inputs: InputSet) -> str:
        """Return what a set is called in tables and messages."""
        return f"{self.name}/{inputs.title}" if self.name else inputs.title

    def outputs(self, inputs: InputSet) -> list[Path]:
        """Return where the restored pictures of a set's images are or will be.

        Raises:
            UserError: another method's pictures are missing.
        """
        if isinstance(self.restorer, SavedResults):
            return self.restorer.files(inputs)
        return [self.folder / path for path in inputs.outputs]


def find_sources(settings: NetworkSettings, device: torch.device) -> tuple[list[ResultSource], dict[str, Any]]:
    """Return what makes the images to be scored, and what their scores depend on.

    Args:
        settings: what makes the images.
        device: where networks compute.

    Raises:
        UserError: a file or folder cannot be used.
    """
    if settings.from_results:
        return [ResultSource("", SavedResults(settings.from_results), settings.save_dir)], {
            "from_results": str(settings.from_results.resolve())
        }
    set_precision(settings.precision, device)
    names = [path.stem for path in settings.weights]
    if len(set(names)) < len(names):
        names = ["_".join(path.with_suffix("").parts[-2:]) for path in settings.weights]
    if len(set(names)) < len(names):
        raise UserError("--weights: two of the files have the same name and folder's name; copy one under another name")
    sources: list[ResultSource] = []
    networks: dict[str, dict[str, str]] = {}
    for name, path in zip(names, settings.weights, strict=True):
        network = load_deblurring_net(path, device, settings.modulation)
        # PyTorch's types lack memory_format.
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        width, modulation = network.arguments["width"], network.arguments["modulation"]
        deform_op = network.deform_op = pick_deform_op(
            settings.deform_op, device, width, settings.precision, training=False
        )
        # images of one size in a row, such as a video's or a benchmark's, replay one recording
        recorded = deform_op == "fused" and device.type == "cuda"
        restorer = Restorer(
            network, width, device, settings.precision, settings.tile, settings.tile_overlap, settings.self_ensemble,
            recorded=recorded, log=tqdm.write,
        )  # fmt: skip
        several = len(settings.weights) > 1
        sources.append(
            ResultSource(name if several else "", restorer, settings.save_dir / name if several else settings.save_dir)
        )
        print(f"{path}: module 0 {modulation}; deformable convolutions {deform_op}; {settings.precision} on {device}")
        networks[name] = {
            "weights": str(path),
            "weights_sha256": file_digest(path),
            "modulation": modulation,
            "deform_op": deform_op,
        }
    return sources, {
        "networks": networks,
        "precision": settings.precision,
        "self_ensemble": settings.self_ensemble,
        "tile": settings.tile or "off",
        "tile_overlap": settings.tile_overlap,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
    }
