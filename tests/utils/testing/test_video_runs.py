"""D_testing.py on videos: given by name or among photographs, some of them broken."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import D_testing
from tests.support.samples import SAMPLE, load, save, save_all
from tests.support.videos import clip, frames_of
from utils.common.errors import Terminated, UserError
from utils.common.signals import Interruption
from utils.runtime.distributed import DistributedContext
from utils.testing import videos
from utils.testing.inputs import find_inputs
from utils.testing.results import Results
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource

pytest.importorskip("av", reason="videos need PyAV")


@pytest.fixture
def run(tmp_path, small_networks):
    def restore(*sources, more=()):
        arguments = [text for source in sources for text in ("--testset_dir", str(source))]
        arguments += ["--weights", str(small_networks / "DeblurringNet_FT.pth"), "--device", "cpu"]
        D_testing.main(D_testing.parse_args([*arguments, "--save_dir", str(tmp_path / "out"), *more]))

    return restore


def outputs(*sources):
    """Return where the videos of sources go, relative to the folder of results, by their paths."""
    texts = [str(source) for source in sources]
    return find_inputs(texts, ("blur", "sharp"), Path("out"), None)[1]


@pytest.mark.slow
def test_videos_among_photographs_are_restored_to_their_paths(tmp_path, run, capsys):
    photos = tmp_path / "holiday"
    save(photos / "day1" / "a.png", load(SAMPLE)[:40, :40])
    clip(photos / "day1" / "sea.mp4")
    clip(photos / "deep" / "er" / "SURF.MOV")
    clip(photos / ".hidden" / "no.mp4")
    run(photos)
    assert "2 videos are also restored" in capsys.readouterr().out
    results = tmp_path / "out" / "holiday"
    made = sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    assert made == ["day1/a.png", "day1/sea.mp4", "deep/er/SURF.mov"]
    assert len(frames_of(results / "deep" / "er" / "SURF.mov")) == 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sets"]["holiday/day1/sea.mp4"]["frames"] == 3
    with pytest.raises(UserError, match=r"results\.csv exists already"):
        run(photos)
    before = (results / "day1" / "sea.mp4").stat().st_mtime_ns
    (results / "deep" / "er" / "SURF.mov").unlink()
    run(photos, more=["--resume"])
    assert (results / "day1" / "sea.mp4").stat().st_mtime_ns == before
    assert (results / "deep" / "er" / "SURF.mov").exists()
    run(photos, more=["--overwrite"])
    assert (results / "day1" / "sea.mp4").stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_folder_of_videos_alone_is_restored(tmp_path, run):
    clip(tmp_path / "clips" / "a.mp4")
    run(tmp_path / "clips")
    assert len(frames_of(tmp_path / "out" / "clips" / "a.mp4")) == 3
    assert (tmp_path / "out" / "report.html").exists()
    with pytest.raises(UserError, match="results of other settings: self_ensemble was False"):
        run(tmp_path / "clips", more=["--resume", "--self_ensemble"])


def test_a_folder_without_images_or_videos_is_still_refused(tmp_path):
    (tmp_path / "text.txt").write_text("nothing")
    clip(tmp_path / "gopro" / "a.mp4")
    for source in (tmp_path / "nothing", f"gopro={tmp_path / 'gopro'}"):
        with pytest.raises(UserError):
            outputs(source)


def test_videos_next_to_the_pairs_of_a_data_set_are_not_touched(tmp_path):
    save_all(tmp_path / "set", "blur/1.png", "sharp/1.png")
    clip(tmp_path / "set" / "blur" / "a.mp4")
    assert outputs(tmp_path / "set") == {}


@pytest.mark.slow
def test_names_of_videos_in_a_folder_stay_apart(tmp_path):
    folder = tmp_path / "clips"
    for name in ("a.avi", "a.webm", "b.mp4"):
        clip(folder / name)
    assert sorted(map(str, outputs(folder).values())) == ["clips/a.avi.mkv", "clips/a.webm.mkv", "clips/b.mp4.mp4"]
    assert outputs(folder, folder / "a.avi")[folder / "a.avi"] == Path("a.mkv")


def test_given_videos_of_one_name_are_named(tmp_path):
    one, two = clip(tmp_path / "one" / "a.mp4"), clip(tmp_path / "two" / "a.mp4")
    with pytest.raises(UserError, match=f"{one}, {two} would all be restored as a.mp4; restore them in runs with"):
        outputs(one, two, one)


def test_a_video_is_never_written_over(tmp_path, small_networks, run):
    given = clip(tmp_path / "out" / "a.mp4")
    with pytest.raises(UserError, match="is one of the files to restore"):
        run(given, more=["--overwrite"])
    clip(tmp_path / "out" / "out" / "b.mp4")
    with pytest.raises(UserError, match="would lie inside"):
        run(tmp_path / "out", more=["--overwrite"])


@pytest.mark.slow
def test_one_that_cannot_be_written_or_is_not_whole_does_not_keep_the_others(tmp_path, run, monkeypatch):
    def restore(restorer, path, *more):
        if path.name == "1.mp4":
            raise UserError("the video cannot be written: no reason given")
        return actual(restorer, path, *more)

    actual = videos.restore_video
    monkeypatch.setattr(videos, "restore_video", restore)
    sources = [clip(tmp_path / f"{i}.mp4", 12) for i in (1, 2, 3)]
    whole = sources[1].read_bytes()
    sources[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as error:
        run(*sources)
    listed = str(error.value).splitlines()
    assert listed[0] == "1 of the files were skipped:"
    assert listed[1] == f"  {sources[0]}: the video cannot be written: no reason given"
    assert listed[2] == "1 of the videos are incomplete, and were restored in part:"
    assert "2.mp4 ends early: " in listed[3]
    assert " of 12 frames" in listed[3]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["2.mp4", "3.mp4"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1.mp4: the video cannot be written: no reason given" in page
    sources[0].unlink()
    with pytest.raises(UserError, match=r"^1 of the videos are incomplete.*\n.*2.mp4 ends early"):
        run(*sources[1:], more=["--overwrite"])
    with pytest.raises(UserError, match=r"^1 of the videos are incomplete.*\n.*2.mp4 ends early"):
        run(*sources[1:], more=["--resume"])  # listed again, from the summary


def test_a_signal_ends_a_video_between_two_frames(tmp_path, monkeypatch):
    stop = Interruption()

    def video(restore, *_):
        restore(np.zeros((8, 8, 3), np.uint8))
        stop.requested = signal.SIGTERM
        restore(np.zeros((8, 8, 3), np.uint8))

    monkeypatch.setattr(videos, "restore_video", video)
    settings = RunSettings(tmp_path)
    method = ResultSource("", lambda frame: frame, tmp_path)
    results = Results(tmp_path, {}, DistributedContext(torch.device("cpu")))
    with pytest.raises(Terminated):
        videos.restore_videos(method, {tmp_path / "a.mp4": Path("a.mp4")}, settings, results, stop)
