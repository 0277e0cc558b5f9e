"""Training patches: the same whatever the workers, other ones every epoch, flagged as paired or not."""

import contextlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from datasets import find_images
from datasets.augmentation import PairAugmentation
from datasets.frame_cache import FrameCache
from datasets.patches import TrainingPatches, batches_of, training_loader
from datasets.sampler import SharedBatches
from tests.support.samples import ROOT, SAMPLES, load, save
from utils.common.errors import SystemLacksError, UserError
from utils.runtime.distributed import DistributedContext
from utils.training.data import DataSettings, TrainingData

PATCH = 32


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Seven pairs and three unpaired images, cut from the bundled pictures."""
    root = tmp_path_factory.mktemp("sets")
    for side in ("blur", "sharp"):
        frame = load(SAMPLES / "train" / "GOPR0372_07_00" / side / "000047.png")
        for i in range(7):
            save(root / "pairs" / side / f"{i}.png", frame[30 * i : 30 * i + 48, 60 * i : 60 * i + 64])
    frame = load(SAMPLES / "test" / "GOPR0881_11_01" / "blur" / "000203.png")
    for i in range(3):
        save(root / "alone" / f"{i}.png", frame[90 * i : 90 * i + 40, 150 * i : 150 * i + 80])
    return find_images(root / "pairs", "train"), find_images(root / "alone", "train")


def batches(sets, workers: int = 0, seed: int = 3, epochs=(0,), batch_size: int = 4) -> list[dict[str, torch.Tensor]]:
    patches = TrainingPatches(sets, PATCH)
    order = SharedBatches(len(patches), batch_size, seed)
    loader = training_loader(patches, order, workers, pin_memory=False)
    result = []
    for order.epoch in epochs:
        for batch in loader:
            blurry, sharp = batch.pop("pairs")
            result.append(batch | {"blurry": blurry, "sharp": sharp, "has_sharp": torch.tensor(batch["has_sharp"])})
    return result


def assert_equal(first, second) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


def test_patch_is_the_augmented_file(sets):
    patches = TrainingPatches(sets, PATCH)
    item, image_set = patches[2, 11], sets[0]
    frames = load(image_set.blurry[2]), load(image_set.sharp[2])
    expected = PairAugmentation(PATCH)(*frames, 11)
    for key, patch in zip(("blurry", "sharp"), expected, strict=True):
        np.testing.assert_array_equal(item[key].numpy(), patch)
    assert item["has_sharp"] == 1


def test_batches_have_the_documented_shapes(sets):
    result = batches(sets)
    assert [len(batch["has_sharp"]) for batch in result] == [4, 4, 2]
    for batch in result:
        assert batch["blurry"].shape == batch["sharp"].shape == (len(batch["has_sharp"]), PATCH, PATCH, 3)
        assert batch["blurry"].dtype == batch["sharp"].dtype == torch.uint8


def test_paired_and_unpaired_mixed(sets):
    patches = TrainingPatches(sets, PATCH)
    assert [patches[i, 0]["has_sharp"] for i in range(len(patches))] == [1] * 7 + [0] * 3
    paired = torch.cat([batch["has_sharp"] for batch in batches(sets)])
    assert sorted(paired.tolist()) == [0] * 3 + [1] * 7
    for batch in batches(sets):
        has_sharp = batch["sharp"].flatten(1).sum(1) > 0
        assert torch.equal(has_sharp.float(), batch["has_sharp"])
        assert (batch["blurry"].flatten(1).float().std(1) > 0).all()


def test_images_on_the_device_lie_between_minus_1_and_1_and_are_0_where_there_is_none(sets):
    data = TrainingData(sets, DataSettings(10, PATCH, seed=0, num_workers=0), DistributedContext(torch.device("cpu")))
    (batch,) = data.epoch(0, 0)
    (loaded,) = batches(sets, seed=0, batch_size=10)
    assert batch.images["blurry"].is_contiguous(memory_format=torch.channels_last)
    for name in ("blurry", "sharp"):
        expected = loaded[name].permute(0, 3, 1, 2) / 127.5 - 1
        if name == "sharp":
            expected[loaded["has_sharp"] == 0] = 0
        torch.testing.assert_close(batch.images[name], expected)


def test_an_epoch_that_was_started_is_the_same_and_another_is_not_mistaken_for_it(sets, monkeypatch):
    started = []
    monkeypatch.setattr("utils.training.data.batches_of", lambda loader: started.append(1) or batches_of(loader))
    settings = DataSettings(2, PATCH, seed=0, num_workers=1)
    early, usual = (TrainingData(sets, settings, DistributedContext(torch.device("cpu"))) for _ in range(2))
    early.start(1, 2)
    assert len(started) == 1
    for numbers, count in (((1, 2), 1), ((1, 2), 3), ((0, 0), 5)):
        found = early.epoch(*numbers)
        assert len(started) == count
        for ours, expected in zip(found, usual.epoch(*numbers), strict=True):
            assert ours.names == expected.names
            assert torch.equal(ours.images["blurry"], expected.images["blurry"])
    early.start(2, 0)  # its first batches are loaded, and not wanted
    names = [[batch.names for batch in data.epoch(3, 2)] for data in (early, usual)]
    assert names[0] == names[1]


def test_both_sides_get_the_same_map(sets):
    image_set = sets[0]
    twice = type(image_set)(**{**vars(image_set), "sharp": image_set.blurry})
    for batch in batches([twice], epochs=range(4)):
        assert torch.equal(batch["blurry"], batch["sharp"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(sets, workers):
    assert_equal(batches(sets, workers, epochs=(0, 1)), batches(sets, 0, epochs=(0, 1)))


def test_same_seed_same_batches_whatever_the_global_generators(sets):
    torch.manual_seed(1)
    first = batches(sets)
    torch.manual_seed(2)
    assert_equal(first, batches(sets))


def test_an_epoch_is_the_same_whatever_came_before(sets):
    """So that a resumed run continues with the same patches."""
    assert_equal(batches(sets, epochs=(5,)), batches(sets, epochs=(0, 1, 5))[-3:])


@pytest.mark.parametrize("other", [{"seed": 4}, {"epochs": (1,)}], ids=["seed", "epoch"])
def test_other_seed_or_epoch_gives_other_patches_in_another_order(sets, other):
    def patches(result):
        return {patch.numpy().tobytes() for batch in result for patch in batch["blurry"]}

    assert len(patches(batches(sets))) == 10
    assert not patches(batches(sets)) & patches(batches(sets, **other))


def test_every_frame_once_an_epoch_in_another_order_with_its_own_seed():
    order, draws = SharedBatches(50, 7, seed=0), []
    for order.epoch in range(20):
        epoch = [draw for batch in order for draw in batch]
        assert sorted(index for index, _ in epoch) == list(range(50))
        draws.append(epoch)
    assert len(order) == 8
    assert len({tuple(index for index, _ in epoch) for epoch in draws}) == 20
    assert len({seed for epoch in draws for _, seed in epoch}) == 1000
    first = [epoch[0][0] for epoch in draws]
    assert len(set(first)) > 10


def test_neighbouring_seeds_and_epochs_do_not_repeat_each_other():
    """Epoch 1 of seed 0 is not epoch 0 of seed 1."""
    orders = {}
    for seed in range(4):
        order = SharedBatches(20, 20, seed)
        for order.epoch in range(4):
            orders[seed, order.epoch] = tuple(*order)
    assert len(set(orders.values())) == 16


@pytest.mark.parametrize("workers", [0, 1])
def test_file_damaged_after_the_check_is_named(tmp_path, workers):
    path = save(tmp_path / "a.png", load(SAMPLES / "test" / "GOPR0881_11_01" / "blur" / "000203.png")[:64, :64])
    image_set = find_images(tmp_path, "train")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a\.png .*replace or remove it"):
        batches([image_set], workers)


def test_partners_that_are_not_of_one_size_any_more_are_named(sets, tmp_path):
    shutil.copytree(sets[0].root, tmp_path / "pairs")
    patches = TrainingPatches([find_images(tmp_path / "pairs", "train")], PATCH)
    save(tmp_path / "pairs" / "sharp" / "3.png", size=(40, 40))
    with pytest.raises(UserError, match=r"blur/3\.png and .*sharp/3\.png are not of one size any more"):
        _ = patches[3, 0]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_a_batch_and_their_weights_make_its_mean(world):
    whole = SharedBatches(23, 4, seed=0)
    parts = [SharedBatches(23, 4, 0, rank, world) for rank in range(world)]
    for position, batch, *shares in zip(range(0, 23, 4), whole, *parts, strict=True):
        weights = [part.weight(position) for part in parts]
        counted = [draw for share, weight in zip(shares, weights, strict=True) if weight for draw in share]
        assert counted == batch
        assert all(shares)  # every rank has something to compute
        sums = [sum(frame for frame, _ in share) * weight for share, weight in zip(shares, weights, strict=True)]
        assert sum(sums) / world == pytest.approx(np.mean([frame for frame, _ in batch]))


@pytest.mark.slow
def test_a_broken_frame_can_be_skipped(sets, tmp_path):
    root = tmp_path / "pairs"
    shutil.copytree(sets[0].root, root)
    image_set = find_images(root, "train")
    broken = image_set.sharp[3]
    broken.write_bytes(broken.read_bytes()[:300])
    patches = TrainingPatches([image_set], PATCH, skip_broken=True)
    item = patches[3, 5]
    assert torch.equal(item["blurry"], patches[4, 5]["blurry"])
    assert str(broken) in item["broken"]
    assert patches[4, 5]["broken"] == ""
    assert item["name"] == str(image_set.blurry[4])
    for path in image_set.sharp:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as an image"):
        patches[3, 5]


@pytest.mark.parametrize("cached", [False, True])
def test_a_frame_is_not_skipped_for_what_the_system_lacks(sets, tmp_path, cached):
    """--skip_bad_images had trained on the few frames that could still be opened."""
    resource = pytest.importorskip("resource")
    cache = FrameCache(tmp_path) if cached else None
    if cache:
        cache.build([*sets[0].blurry, *sets[0].sharp], threads=1)
    patches = TrainingPatches(sets[:1], PATCH, cache, skip_broken=True)
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(SystemLacksError, match=r"Too many open files\. The file is not to blame"):
            patches[0, 0]
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not patches[0, 0]["broken"]


@pytest.mark.slow
def test_workers_end_before_what_is_registered_for_them_at_exit():
    """PyTorch registers, for pinned batches, what waits 5 s for each worker; a cycle keeps the iterator until then."""
    script = f"""
import atexit, multiprocessing
from torch.utils.data import DataLoader
from datasets import find_images
from datasets.patches import TrainingPatches, batches_of, training_loader
from datasets.sampler import SharedBatches
started = DataLoader.__iter__
def start(self):
    iterator = started(self)
    workers = multiprocessing.active_children()
    atexit.register(lambda: print([worker.is_alive() for worker in workers]))
    return iterator
DataLoader.__iter__ = start
patches = TrainingPatches([find_images(__import__("pathlib").Path({str(SAMPLES)!r}), "train")], 32)
kept = batches_of(training_loader(patches, SharedBatches(len(patches), 1, 0), 2, pin_memory=False))
next(kept)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.stdout.splitlines()[-1], run.returncode) == ("[False, False]", 0), run.stderr
