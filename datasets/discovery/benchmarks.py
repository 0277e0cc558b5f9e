"""The table of data sets of the field: their names, layouts, and what was published of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A row.

    Attributes:
        title: as papers write it.
        layouts: where its files lie, for messages.
        named: pattern of the last two folders and the blurry side's, or of a list and its folder, in lower case; the
            first row that fits is taken. Empty if the name alone does not tell.
        files: pattern of the paths of all blurry images, without the folder that names their side, if they tell.
        sides: names of the two sides' folders, in lower case, that `files` is of; empty for any.
        lists: name of the list of a split's pairs, "{}" in the split's place, if lists alone tell training from test.
        train: published number of training images; 0 if there is none.
        test: published number of test images; 0 if there is none.
        several: whether the name is of several sets of one size, as of BSD's three exposures.
    """

    title: str
    layouts: tuple[str, ...]
    named: str = ""
    files: str = ""
    sides: tuple[str, ...] = ()
    lists: str = ""
    train: int = 0
    test: int = 0
    several: bool = False


_COPIES = "{train,test}/{input,target}/*"
_REALBLUR = "LIST.txt, sceneNNN/{blur/blur_N,gt/gt_N}"
_SCENES, _SCENE_SIDES = r"(^|/)scene\d+/blur_\d+\.\w+$", ("blur", "gt")
BENCHMARKS = {
    "gopro": Benchmark(
        "GoPro",
        ("{train,test}/SEQUENCE/{blur,sharp}/*", "{train,test}/{blur,sharp}/SEQUENCE/*", "{train,test}/{blur,sharp}/*",
         _COPIES),
        named=r"gopro", files=r"(^|/)GOPR\d{4}_", train=2103, test=1111,
    ),
    "hide": Benchmark(
        "HIDE",
        ("train/*, test/test-*/*, sharp in GT/", _COPIES),
        named=r"(^|/)hide([-_ ]?(dataset|data|deblur|train|test))?($|/)", train=6397, test=2025,
    ),
    "rwbi": Benchmark("RWBI", ("images at any depth",), train=3112, test=3112),
    "realblur_j": Benchmark(
        "RealBlur-J",
        (_REALBLUR,),
        named=r"realblur[-_]j", files=_SCENES, sides=_SCENE_SIDES, lists="RealBlur_J_{}_list.txt", train=3758, test=980,
    ),
    "realblur_r": Benchmark(
        "RealBlur-R",
        (_REALBLUR,),
        named=r"realblur[-_]r", files=_SCENES, sides=_SCENE_SIDES, lists="RealBlur_R_{}_list.txt", train=3758, test=980,
    ),
    "rsblur": Benchmark(
        "RSBlur",
        ("LIST.txt, N/N/{real_blur/real_blur,gt/gt_sharp}",),
        named=r"rsblur", lists="RSBlur_real_{}.txt", train=8878, test=3360,
    ),
    "reds_jpeg": Benchmark(
        "REDS-JPEG",
        ("{train,val}_{blur_jpeg,sharp}/SEQUENCE/*", "val/{blur_300,sharp_300}/*"),
        named=r"(^|/)((train|val)_blur_jpeg|blur_300)$", train=24000, test=300,  # of val's 3,000, as papers take
    ),
    "reds": Benchmark(
        "REDS",
        ("{train,val}_{blur,sharp}/SEQUENCE/*",),
        named=r"(?<![a-z])reds(?![a-z])", train=24000, test=3000,  # test: val
    ),
    "bsd": Benchmark(
        "BSD",
        ("{train,test}/SEQUENCE/{Blur,Sharp}/RGB/*",),
        named=r"bsd_\dms", train=6000, test=3000, several=True,
    ),
    "dvd": Benchmark(
        "DVD",
        ("SEQUENCE/{input,GT}/*",),
        named=r"deepvideodeblurring|quantitative_datasets",
        files=r"(^|/)(720p_240fps_\d|C00\d\d|GOPR96\d\d|IMG_0\d{3})/\d{5}\.\w+$", sides=("input", "gt"),
        train=5708, test=1000,  # 61 and 10 videos, which only a list splits
    ),
}  # fmt: skip


def published_count(kind: str, split: str) -> int | None:
    """Return how many images the "train" or "test" split of a kind of set was published with; None if not known."""
    row = BENCHMARKS.get(kind)
    return ((row.train if split == "train" else row.test) or None) if row else None


def known_layouts() -> list[tuple[str, str]]:
    """Return the layouts of all rows, each once, with the names of the data sets that come in it."""
    layouts = dict.fromkeys(layout for row in BENCHMARKS.values() for layout in row.layouts)
    return [
        (layout, ", ".join(row.title for row in BENCHMARKS.values() if layout in row.layouts)) for layout in layouts
    ]
