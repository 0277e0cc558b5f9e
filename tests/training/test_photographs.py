"""Training on sharp photographs that are blurred during training, alone and with real pairs."""

from functools import partial

import pytest
import torch

from datasets import BlurSynthesis, find_images, parse_source
from datasets.patches import TrainingPatches, training_loader
from datasets.sampler import SharedBatches
from tests.support.samples import SAMPLES, load, save
from tests.support.training import same, train, values, weights
from utils.common.errors import UserError
from utils.images.conversion import to_network_range
from utils.runtime.distributed import DistributedContext
from utils.testing.inputs import find_inputs
from utils.training import DataSettings, TrainingData


@pytest.fixture
def photographs(tmp_path):
    """Three photographs, one of them smaller than a patch with its margin."""
    for i, path in enumerate(sorted(SAMPLES.rglob("sharp/*.png"))):
        save(tmp_path / "photos" / f"{i}.png", load(path)[: 80 if i == 1 else 300, :200])
    return f"sharp={tmp_path / 'photos'}"


def test_a_photographs_patch_has_the_margin_of_its_blur(photographs):
    sets = [find_images(SAMPLES, "train"), find_images(parse_source(photographs)[1], "train", "sharp")]
    assert [len(each) for each in sets] == [2, 3]
    assert sets[1].paired
    patches = TrainingPatches(sets, 32, margin=16)
    assert patches[0, 5]["blurry"].shape == (32, 32, 3)
    item = patches[3, 5]
    assert item["photograph"].shape == (64, 64, 3)
    assert torch.equal(item["photograph"], patches[3, 5]["photograph"])
    (batch,) = training_loader(patches, SharedBatches(5, 5, seed=0), 0, pin_memory=False)
    assert (batch["pairs"].shape, batch["photograph"].shape) == ((2, 2, 32, 32, 3), (3, 64, 64, 3))
    assert len(set(batch["seed"].tolist())) == 3
    assert ["photos" in name for name in batch["name"]] == [False, False, True, True, True]


def test_what_workers_draw_for_a_gpu_makes_the_pictures_of_the_seeds(photographs):
    sets = [find_images(SAMPLES, "train"), find_images(parse_source(photographs)[1], "train", "sharp")]
    synthesis = BlurSynthesis()
    patches, order = TrainingPatches(sets, 32, margin=synthesis.margin), SharedBatches(5, 5, seed=0)
    load_batch = partial(training_loader, patches, order, num_workers=1, pin_memory=False)
    (seeded,), (drawn,) = load_batch(), load_batch(draw_blur=synthesis.draw)
    assert seeded.keys() - drawn.keys() == {"seed"}
    assert drawn.keys() - seeded.keys() == {"plan"}
    plan = synthesis.draw(seeded["seed"].tolist(), 96, 96)
    assert torch.equal(drawn["plan"].numbers.view(torch.int32), plan.numbers.view(torch.int32))  # some bits are NaNs
    data = TrainingData(sets, DataSettings(5, 32, seed=0, num_workers=0), DistributedContext(torch.device("cpu")))
    one, other = data._images(seeded), data._images(drawn)
    assert one["blurry"].shape == other["blurry"].shape == (5, 3, 32, 32)
    for name in ("blurry", "sharp", "has_sharp"):
        assert (one[name] - other[name]).abs().max() < 0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chosen", [slice(2), slice(1), slice(1, 2)], ids=["both", "pairs", "photographs"])
def test_batches_on_a_gpu_are_those_on_a_cpu(chosen, workers, photographs):
    sets = [find_images(SAMPLES, "train"), find_images(parse_source(photographs)[1], "train", "sharp")][chosen]
    size = max(1, sum(map(len, sets)) - 1)  # the last batch is smaller
    settings = DataSettings(size, 32, seed=0, num_workers=workers)
    here, there = (TrainingData(sets, settings, DistributedContext(torch.device(name))) for name in ("cpu", "cuda"))
    for epoch, start in ((0, 0), (1, size)):
        pairs = list(zip(here.epoch(epoch, start), there.epoch(epoch, start), strict=True))
        assert len(pairs) == 2 - epoch
        for expected, found in pairs:
            assert found.names == expected.names
            for name, image in found.images.items():
                assert not image.is_inference()
                assert image.is_cuda
                assert (image.cpu() - expected.images[name]).abs().mean() < 0.002, name


@pytest.mark.slow
def test_every_stage_trains_on_photographs_alone(tmp_path, photographs):
    train(tmp_path, "--stage", "all", "--n_epochs", "2", trainset=(photographs,))
    for stage in ("reblur", "deblur", "finetune"):
        assert len(values(tmp_path / "log", stage, "loss/total")) == 4


@pytest.mark.slow
def test_a_run_on_photographs_and_pairs_is_resumed_to_the_same_bits(tmp_path, photographs):
    sources = (f"2*gopro={SAMPLES}", photographs)  # seven frames an epoch
    for name, parts in (("whole", [9]), ("parts", [2, 5, 9])):
        for i, steps in enumerate(parts):
            more = ("--resume", "auto") if i else ()
            train(tmp_path / name, "--stage", "deblur", "--max_steps", str(steps), *more, trainset=sources)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_blurred_photographs_are_blurrier_than_their_partners(photographs):
    patches = TrainingPatches(
        [find_images(parse_source(photographs)[1], "train", "sharp")], 64, margin=BlurSynthesis().margin
    )
    photos = torch.stack([patches[0, seed]["photograph"] for seed in range(8)])
    blurry, sharp = BlurSynthesis()(to_network_range(photos), torch.arange(8))
    energy = [image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean() for image in (blurry, sharp)]
    assert energy[0] < 0.7 * energy[1]


def test_photographs_are_for_training_alone(photographs):
    with pytest.raises(UserError, match=r"is for training; to restore such photographs give unpaired="):
        find_inputs([photographs], ("blur", "sharp"), SAMPLES, None)
