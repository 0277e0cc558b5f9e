"""The README and docs/: their commands run as they stand, their links lead somewhere, and no flag in them is unknown.

Commands run on small data where they say /data, and training is ended by a signal after its first step.
"""

import importlib
import re
import runpy
import shlex
import shutil
import signal
import sys
from pathlib import Path

import cv2
import pytest

import D_testing
import DR_training
from models import checkpoint, deblurring_net
from tests.support.samples import ROOT, SAMPLE, SAMPLES, load, save
from utils.common.errors import TERMINATED_STATUS
from utils.training.run_log import RunLog

SCRIPTS = {"D_testing.py": D_testing, "DR_training.py": DR_training}
MAKE = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"\w+:", line)}


# Their commands are run; those of other pages say how a figure was measured, some of them at an earlier commit.
GUIDES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("testing", "reuse", "training", "data", "metrics")),
]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md")),
         *(ROOT / folder / "README.md" for folder in ("final_model", "models/ops", "samples"))]  # fmt: skip
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if "def parse_args" in path.read_text())
OTHERS_FLAGS = {
    "torchrun": {
        "standalone",
        "nproc_per_node",
        "nnodes",
        "rdzv_backend",
        "rdzv_endpoint",
        "rdzv_id",
        "signals-to-handle",
    },
    "SLURM": {"nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "signal", "requeue"},
    "Docker": {"shm-size"},
    "pip and uv": {"no-deps", "upgrade", "upgrade-package", "no-build-isolation"},
    "TensorBoard, py-spy": {"logdir", "gil"},
}


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    """Return the commands of each block of a page, without comments and shell scripts."""
    found = re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL)
    texts = [text.replace("\\\n", " ") for text in found if not text.startswith("#!")]
    commands = [[shlex.split(line, comments=True) for line in text.splitlines()] for text in texts]
    return [[words for words in block if words] for block in commands]


BLOCKS = [(page, block) for page in GUIDES for block in blocks(page)]


def label(given):
    return given.stem if isinstance(given, Path) else " ".join(given[0][:4]).replace("/", "_")


@pytest.fixture(autouse=True)
def short_networks(monkeypatch):
    """Networks of one block: exporting takes minutes with all of them."""
    monkeypatch.setattr(deblurring_net, "BLOCKS", 1)


@pytest.fixture
def data(tmp_path, monkeypatch, short_networks, small_networks):
    """A working directory with what the commands name, small bundled networks, and what stands for /data."""
    folder = tmp_path / "data"
    (tmp_path / "final_model").mkdir()
    shutil.copytree(SAMPLES, folder / "GOPRO_Large")
    for file in (folder / "GOPRO_Large" / "train").rglob("*.png"):
        if file.stem != "000047":  # one pair, one image a step
            file.unlink()
    pair = {side: load(SAMPLE.parents[1] / side / SAMPLE.name) for side in ("blur", "sharp")}
    for name in ("my_pairs", "my_validation"):
        for side, image in pair.items():
            save(folder / name / side / "a.png", image)
    for place in ("HIDE/train/a.png", "HIDE/test/test-close-ups/b.png", "HIDE/GT/a.png", "HIDE/GT/b.png"):
        save(folder / place, pair["sharp" if "GT" in place else "blur"])
    for name in ("data/RWBI", "data/photographs", "my_photos", "my_blurry_photos", "my_photographs"):
        save(tmp_path / name / "a.jpg", pair["sharp"])
    save(tmp_path / "shaky.jpg", pair["blur"][:48, :64])
    for name, frames in (("shaky.mp4", 2), ("clip_240fps.mp4", 40)):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*"mp4v"), 240, (320, 240))
        for i in range(frames):
            writer.write(pair["sharp"][:240, 2 * i : 2 * i + 320, ::-1])
        writer.release()
    for name in ("ReBlurringNet", "DeblurringNet_NF", "DeblurringNet_FT"):
        shutil.copy(small_networks / f"{name}.pth", (tmp_path / "final_model" / name).with_suffix(".pth"))
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path / "final_model" / "DeblurringNet_NF.pth")
    monkeypatch.chdir(tmp_path)
    return folder


def run(words, data, monkeypatch):
    """Run a command in this process; training ends with a signal after its first step."""
    words = [re.sub(r"(^|=|\*)/data(?=/|$)", rf"\1{data}", word) for word in words if word != "..."]
    if words[0] == "make":
        assert words[1] in MAKE
    elif words[0] == "pip":
        assert all("==" in word for word in words[2:])
    elif words[0] == "torchrun":  # all but the number of processes is as without it
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        SCRIPTS[words[script]].parse_args(words[script + 1 :])
    elif len(words) > 2:  # python and more than a script's name
        shutil.rmtree("sharp", ignore_errors=True)  # the commands of a block are alternatives
        monkeypatch.setattr(RunLog, "step", lambda *_: signal.raise_signal(signal.SIGTERM))
        monkeypatch.setattr(sys, "argv", words[1:] if words[1] != "-m" else words[2:])
        try:
            if words[1] == "-m":
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code or 0
        assert status == (TERMINATED_STATUS if words[1] == "DR_training.py" else 0)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=label)
def test_commands_run(page, block, data, monkeypatch):
    if any(word.endswith(".mp4") for words in block for word in words):
        pytest.importorskip("av", reason="videos need PyAV")
    if ["--format", "onnx"] in (words[-2:] for words in block) and sys.version_info < (3, 11):
        pytest.skip("ONNX Runtime for Python 3.10 cannot be compared with: status 2")
    for words in block:
        run(words, data, monkeypatch)


def anchors(page):
    """Return the names under which a page's headings are linked to, as the forge makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    for link in links:
        file, _, anchor = link.partition("#")
        if not re.match(r"https?:", link):
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_names_in_the_guide_for_contributors_exist():
    examples = {"lambda_C", "lambda_c", "loss_edges", "mae"}  # of what is added there
    page = ROOT / "docs" / "contributing.md"
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    named = set(re.findall(r"`([A-Za-z_][\w.]*)`", text))
    folders = ("datasets", "losses", "models", "tests", "tools", "utils")
    files = [*ROOT.glob("*.*"), *(file for folder in folders for file in (ROOT / folder).rglob("*.*"))]
    code = [text_of(file) for file in files if file.suffix in (".py", ".js", ".toml") and file != Path(__file__)]
    words = set(re.findall(r"\w+", "\n".join(code))) | {file.name for file in files} | examples
    assert len(named) > 50
    assert [name for name in named if (name if name.endswith(".py") else name.split(".")[-1]) not in words] == []


def known_flags(capsys):
    """Return the flags of the scripts and tools, by their help."""
    modules = [*SCRIPTS.values(), *(importlib.import_module(f"tools.{name}") for name in TOOLS)]
    for module in modules:
        with pytest.raises(SystemExit):
            module.parse_args(["--help"])
    return set(re.findall(r"--([a-z][\w-]*)", capsys.readouterr().out))


def test_flags_are_those_of_the_scripts(capsys):
    known = known_flags(capsys).union(*OTHERS_FLAGS.values())
    for page in GUIDES:
        unknown = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", text_of(page))) - known
        assert not unknown, page.name


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").split()) <= 1200
