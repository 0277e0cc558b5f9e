"""Synthesised blur as files: photographs and videos made into pairs, runs that are resumed, the statistics of sets."""

import cv2
import numpy as np
import pytest

from datasets import DatasetError, find_images
from datasets.synthesis.writer import average_frames
from tests.support.samples import SAMPLES, load, save
from tests.support.videos import frames_of
from tools import blur_statistics, synthesize_blur
from tools import check_data as data_check
from tools.blur_statistics import TILE, blur_extent
from utils.common.errors import UserError
from utils.metrics.numpy_metrics import psnr

SHARP = SAMPLES / "train" / "GOPR0372_07_00" / "sharp" / "000047.png"


@pytest.fixture
def photographs(tmp_path):
    picture = load(SHARP)
    save(tmp_path / "photos" / "trip" / "a.png", picture[100:, :300])
    save(tmp_path / "photos" / "b.jpg", picture[140:340, 200:600])
    return tmp_path / "photos"


def run(*arguments):
    synthesize_blur.main(synthesize_blur.parse_args([*map(str, arguments), "--device", "cpu"]))


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_photographs_become_gopro_s_layout(tmp_path, photographs, capsys):
    out = tmp_path / "out"
    run(photographs, out, "--count", 2, "--long_side", 320)
    assert "4 pairs written" in capsys.readouterr().out
    pairs = find_images(out, "train")
    assert pairs.names == ("b/000000.png", "b/000001.png", "trip_a/000000.png", "trip_a/000001.png")
    assert load(pairs.sharp[0]).shape == (160 - 64, 320 - 64, 3)
    assert load(pairs.sharp[2]).shape == (284 - 64, 300 - 64, 3)
    assert len(find_images(out, "train", sides=("blur_gamma", "sharp"))) == 4
    assert data_check.main(data_check.parse_args([str(out)])) == 0
    assert all(np.any(load(pairs.blurry[i]) != load(pairs.blurry[i + 1])) for i in (0, 2))


def test_a_run_is_resumed_and_overwrites_nothing(tmp_path, photographs):
    out = tmp_path / "out"
    run(photographs, out, "--long_side", 160)
    first = contents(out)
    with pytest.raises(UserError, match=r"already holds b, trip_a; give --resume to continue, --overwrite"):
        run(photographs, out, "--long_side", 160)
    changed = out / "train" / "b" / "sharp" / "000000.png"
    changed.write_bytes(b"kept")
    lost = out / "train" / "trip_a" / "blur" / "000000.png"
    lost.unlink()
    with pytest.raises(UserError, match=r"b was made with \{'long_side': 160, 'seed': 0\}, not with .*128"):
        run(photographs, out, "--long_side", 128, "--resume")
    run(photographs, out, "--long_side", 160, "--resume")
    assert contents(out) == first | {changed.relative_to(out).as_posix(): b"kept"}
    run(photographs, out, "--long_side", 160, "--overwrite")
    assert contents(out) == first


def test_what_cannot_be_used_is_skipped_and_named(tmp_path, photographs):
    (photographs / "broken.png").write_bytes(b"no picture")
    save(photographs / "tiny.png", size=(100, 50))
    with pytest.raises(UserError) as error:
        run(photographs, tmp_path / "out", "--long_side", 160)
    assert "2 of the files were skipped" in str(error.value)
    assert "broken.png cannot be read" in str(error.value)
    assert "tiny.png is too small; expected 72 px or more" in str(error.value)
    assert len(find_images(tmp_path / "out", "train")) == 2


def test_names_stay_unique(tmp_path, photographs):
    save(photographs / "b.png", load(SHARP)[:90, :90])
    run(photographs, tmp_path / "out", "--long_side", 160)
    assert {path.name for path in (tmp_path / "out" / "train").iterdir()} == {"b.jpg", "b.png", "trip_a"}
    save(photographs / "trip_a.png", load(SHARP)[:90, :90])
    save(photographs / "trip" / "a.jpg", load(SHARP)[:90, :90])
    save(photographs / "trip_a.jpg", load(SHARP)[:90, :90])
    with pytest.raises(UserError, match="several photographs would be called trip_a.jpg, trip_a.png"):
        run(photographs, tmp_path / "out2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/nothing", "{tmp}/out"), "nothing does not exist; expected a folder of photographs"),
        (("{tmp}/empty", "{tmp}/out"), "holds no photographs"),
        (("{tmp}/empty", "{tmp}/empty/out"), "is inside"),
        (("{tmp}/out", "--from_video", "{tmp}/nothing"), "--from_video .* does not exist"),
        (("{tmp}/out", "--from_video", "{tmp}/empty"), "has no .* successive frames"),
    ],
)
def test_bad_input_is_one_message(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises((UserError, DatasetError), match=message):
        run(*(text.format(tmp=tmp_path) for text in arguments))


@pytest.mark.parametrize(
    "arguments", ["out", "a b --from_video c", "a b --count 0", "a b --frames 8 8", "a b --resume --overwrite"]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(SystemExit):
        synthesize_blur.parse_args(arguments.split())


# Videos


def frames(count, size=(24, 32)):
    picture = load(SHARP)
    return [np.ascontiguousarray(picture[2 * i : 2 * i + size[0], 3 * i : 3 * i + size[1]]) for i in range(count)]


def reference(window):
    stack = np.stack(window).astype(np.float64)
    blur = np.rint(stack.mean(axis=0))
    gamma = np.rint(255 * np.mean((stack / 255) ** 2.2, axis=0) ** (1 / 2.2))
    return blur, gamma, window[len(window) // 2]


def test_frames_are_averaged_exactly_as_numpy_does(tmp_path):
    clip = frames(40)
    for i, frame in enumerate(clip):
        save(tmp_path / "clip" / f"{i:04}.png", frame)
    run(tmp_path / "out", "--from_video", tmp_path / "clip")
    root = tmp_path / "out" / "train" / "clip"
    middles = [int(path.stem) for path in sorted((root / "sharp").iterdir())]
    start, lengths = 0, []
    for middle in middles:  # windows follow one another
        length = 2 * (middle - start) + 1
        for side, expected in zip(blur_synthesis_sides(), reference(clip[start : start + length]), strict=True):
            assert np.array_equal(load(root / side / f"{middle:06}.png"), expected)
        start += length
        lengths.append(length)
    assert set(lengths) <= {7, 9, 11, 13}
    assert 40 - start < 13
    assert find_images(tmp_path / "out", "train").paired
    before = contents(root)
    run(tmp_path / "again", "--from_video", tmp_path / "clip")
    assert contents(tmp_path / "again" / "train" / "clip") == before
    (root / "blur" / f"{middles[0]:06}.png").unlink()
    run(tmp_path / "out", "--from_video", tmp_path / "clip", "--resume")
    assert contents(root) == before


def blur_synthesis_sides():
    return "blur", "blur_gamma", "sharp"


def test_the_mean_of_dark_frames_is_darker_in_values_than_in_light():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    blur, gamma, sharp = average_frames([black, white, black, black, white])
    assert blur[0, 0, 0] == 102  # 255 * 2/5
    assert gamma[0, 0, 0] == round(255 * 0.4 ** (1 / 2.2))
    assert np.array_equal(sharp, black)


@pytest.mark.slow
def test_a_video_file_gives_its_own_frames(tmp_path, capsys):
    pytest.importorskip("av", reason="videos need PyAV")
    path = tmp_path / "slow.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (32, 24))
    for frame in frames(11):
        writer.write(frame[..., ::-1])
    writer.release()
    run(tmp_path / "out", "--from_video", path, "--frames", 5, 5)
    assert "30 frames a second; below 100" in capsys.readouterr().out
    decoded = frames_of(path)
    pairs = find_images(tmp_path / "out", "train")
    assert pairs.names == ("slow/000002.png", "slow/000007.png")
    for k, (blurry, sharp) in enumerate(zip(pairs.blurry, pairs.sharp, strict=True)):
        expected = reference(decoded[5 * k : 5 * k + 5])
        assert np.array_equal(load(blurry), expected[0])
        assert np.array_equal(load(sharp), expected[2])


def test_a_broken_frame_costs_its_window_and_is_named(tmp_path):
    for i, frame in enumerate(frames(12)):
        save(tmp_path / "clip" / f"{i:04}.png", frame)
    (tmp_path / "clip" / "0001.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of the files were skipped:\n.*0001.png"):
        run(tmp_path / "out", "--from_video", tmp_path / "clip", "--frames", 5, 5)
    assert find_images(tmp_path / "out", "train").names == ("clip/000004.png", "clip/000009.png")
    save(tmp_path / "clip" / "0005.png", size=(16, 16))
    with pytest.raises(UserError, match="frame 5 has another size"):
        run(tmp_path / "out2", "--from_video", tmp_path / "clip", "--frames", 5, 5)


# Statistics


@pytest.mark.parametrize("length", [1, 5, 16, 32])
def test_the_extent_of_a_known_blur_is_found(length):
    picture = cv2.cvtColor(load(SHARP), cv2.COLOR_RGB2GRAY).astype(np.float32)
    kernel = np.full((1, length), 1 / length)
    for turned in (picture, picture.T):
        blurred = cv2.filter2D(turned, -1, kernel)
        found = blur_extent(*(np.ascontiguousarray(each[60 : 60 + TILE, 60 : 60 + TILE]) for each in (blurred, turned)))
        assert found <= 1 if length == 1 else length / 1.3 < found < 1.3 * length


def test_sets_are_compared_in_a_figure(tmp_path, capsys):
    arguments = [f"GoPro={SAMPLES / 'test'}", str(SAMPLES / "train"), "--output", str(tmp_path / "figure.png")]
    blur_statistics.main(blur_statistics.parse_args(arguments))
    lines = capsys.readouterr().out.splitlines()
    pair = SAMPLES / "test" / "GOPR0881_11_01"
    expected = psnr(load(pair / "blur" / "000203.png"), load(pair / "sharp" / "000203.png"))
    assert lines[0].startswith(f"GoPro: input PSNR {expected:.2f} ± 0.00 dB of 1 pair,")
    assert lines[1].startswith("train: input PSNR")
    assert load(tmp_path / "figure.png").std() > 5


def test_sets_that_cannot_be_compared_are_one_message(tmp_path):
    save(tmp_path / "single" / "a.png")
    with pytest.raises(UserError, match="without ground truth"):
        blur_statistics.main(blur_statistics.parse_args([str(tmp_path / "single")]))
    small, flat = np.zeros((160, 224, 3), np.uint8), np.zeros((300, 300, 3), np.uint8)
    for sides, message in (
        ((small, small + 1), "all pairs are smaller than 256×256 px .the largest is 224×160."),
        ((flat, flat), "both images of every pair are equal"),
        ((flat, flat + 1), "no part of 256×256 px has both texture and blur"),
    ):
        for side, image in zip(("blur", "sharp"), sides, strict=True):
            save(tmp_path / "pairs" / side / "a.png", image)
        with pytest.raises(UserError, match=message):
            blur_statistics.main(blur_statistics.parse_args([str(tmp_path / "pairs")]))
