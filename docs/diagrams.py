"""Draw the diagrams of the documentation: the ASPDC block, the three training stages, and module 0's two readings.

    python docs/diagrams.py    # writes docs/aspdc.svg, docs/stages.svg and docs/module0.svg

The same versions of matplotlib and Pillow write the same bytes on each run. Coordinates are px of a page 800 px wide,
whose y axis points down. Letters are drawn as paths, so that they look the same wherever the page is read.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath

WIDTH, PX = 800, 1 / 96  # px of a page; inches of a px
STYLE = {"font.family": "DejaVu Sans", "font.size": 8.5, "svg.fonttype": "path", "svg.hashsalt": "aspdc"}
INK, GREY, PAPER = "#1f2933", "#5f6b7a", "#fafbfc"
IMAGE, LAYER, DEFORMABLE, ATTENTION = "#ffffff", "#dcebf9", "#fde2c4", "#dff0d8"
TRAINED, FROZEN, LOSS, FILE = "#c9e7c9", "#e2e6ea", "#f9d3cc", "#fff4bf"

TAPS = 9
MAP = (90, 160)  # H'×W' of a 360×640 image
SHOWN = (0, 4, 8)  # taps
TAP_COLOURS = ("#6bade6", "#99ccee", "#8cd4c7", "#a8db99", "#73bf73", "#c7de80", "#fadb75", "#fac280", "#f29966")


class Page(Figure):
    """A white page of a height in px, on which things are placed in px."""

    def __init__(self, height: float) -> None:
        super().__init__(figsize=(WIDTH * PX, height * PX), facecolor="white")
        self.height = height
        self.sheet = self.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, WIDTH), ylim=(height, 0))
        self.sheet.axis("off")

    def write(self, x: float, y: float, text: str, ha: str = "center", size: float = 8.5, **options: str) -> None:
        """Write a text that is centred vertically on y."""
        self.sheet.text(x, y, text, **{"ha": ha, "va": "center", "size": size, "color": INK, **options})

    def title(self, y: float, title: str, subtitle: str, gap: float, x: float = 16, size: float = 12) -> None:
        """Write a title and, `gap` px after its beginning, what it is about."""
        self.write(x, y, title, "left", size, weight="bold")
        self.write(x + gap, y + 1, subtitle, "left", color=GREY)

    def box(self, x: float, y: float, width: float, height: float, text: str, fill: str = LAYER, **look: str) -> None:
        """Draw a box around a text by its left side and the middle of its height; `look` is of its line."""
        line = {"ec": INK, "lw": 0.9, "ls": "--" if fill in (FROZEN, ATTENTION) else "-", **look}
        shape = "round,pad=0,rounding_size=5"
        self.sheet.add_patch(FancyBboxPatch((x, y - height / 2), width, height, boxstyle=shape, fc=fill, **line))
        self.write(x + width / 2, y, text)

    def chain(self, y: float, height: float, *boxes: tuple[float, float, str, str]) -> None:
        """Draw boxes (left side, width, text, fill) in a row, and an arrow from each to the next."""
        for i, (x, width, text, fill) in enumerate(boxes):
            self.box(x, y, width, height, text, fill)
            if i:
                self.arrows([(boxes[i - 1][0] + boxes[i - 1][1], y), (x, y)])

    def circle(self, x: float, y: float, text: str, fill: str = IMAGE, radius: float = 13) -> None:
        """Draw an operation: a circle around its sign."""
        self.sheet.add_patch(Ellipse((x, y), 2 * radius, 2 * radius, ec=INK, fc=fill, lw=0.9))
        self.write(x, y, text, size=10)

    def arrows(self, *paths: Sequence[tuple[float, float]], ls: str = "-", head: bool = True) -> None:
        """Draw lines, each through points and with a head at its end."""
        style, colour = "-|>,head_length=5,head_width=2.6" if head else "-", INK if ls == "-" else GREY
        look = {"lw": 1.1, "ls": ls, "ec": colour, "fc": colour, "joinstyle": "miter", "mutation_scale": 1}
        for path in paths:
            self.sheet.add_patch(FancyArrowPatch(path=Outline(path), arrowstyle=style, **look))

    def panel(self, x: float, y: float, picture: np.ndarray, *marks: tuple[int, int]) -> None:
        """Draw an H×W×3 picture around (x, y); its first mark (column, row) is a dot, the others are rings."""
        width, height = (1.15 * side + 1 for side in picture.shape[1::-1])
        place = ((x - width / 2) / WIDTH, 1 - (y + height / 2) / self.height, width / WIDTH, height / self.height)
        axes = self.add_axes(place, xticks=[], yticks=[])
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        for i, mark in enumerate(marks):
            axes.plot(*mark, "o", ms=7, mec="white" if i else INK, mfc="none" if i else "white", mew=1.8 if i else 1.0)


def draw_aspdc() -> Page:
    """Return the ASPDC block, and where it stands in the network (figure 2 of the paper)."""
    page = Page(672)
    page.title(20, "One ASPDC", "x and its result: 128 channels at a quarter of the image's height and width", 116)
    page.chain(175, 42, (16, 40, "x", IMAGE), (92, 84, "conv3\nLReLU", LAYER))
    page.circle(74, 175, "", INK, radius=2.5)
    page.arrows([(176, 175), (208, 175)], head=False)
    page.write(190, 165, "f")
    predicted = [f"offsets and modulation by conv3s of dilation {dilation}" for dilation in (1, 2, 4)]
    for i, text in enumerate(("no offsets (zero); modulation by a conv3", *predicted)):
        y = 84 + 60 * i
        page.box(232, y, 286, 46, "", DEFORMABLE)
        page.write(375, y - 8, f"module {i}: modulated deformable conv 3×3", weight="bold", size=8)
        page.write(375, y + 9, text, size=8)
        page.arrows([(208, 175), (208, y), (232, y)], [(518, y), (566, y)])
        page.write(540, y - 9, f"m{i}")
    page.box(566, 174, 74, 224, "weighted\nsum\n\na0·m0\n+ a1·m1\n+ a2·m2\n+ a3·m3")
    page.box(664, 175, 56, 42, "conv3")
    page.circle(746, 175, "+")
    page.arrows(*([(start, 175), (end, 175)] for start, end in ((640, 664), (720, 733), (759, 790))))
    page.box(84, 354, 470, 84, "", ATTENTION, ec=GREY)
    page.write(96, 326, "AFIM: reads x, not f; one weight for each pixel and module", "left", weight="bold", size=8)
    layers = ("conv3\nLReLU", "ResBlock", "ResBlock", "conv1\n128 → 4", "softmax\nover four")
    page.chain(362, 40, *((96 + 92 * i, 74, text, IMAGE) for i, text in enumerate(layers)))
    page.arrows([(74, 175), (74, 362), (96, 362)], [(538, 362), (603, 362), (603, 286)])
    page.arrows([(74, 175), (74, 44), (746, 44), (746, 162)])
    page.write(612, 330, "a0 … a3", "left")

    page.title(432, "Where it stands", "six blocks of two ResBlocks and one ASPDC; all six outputs are fused", 152)
    blocks = []
    for i, x in ((1, 176), (2, 326), (6, 500)):
        blocks += [(x, 62, "2 Res-\nBlocks", LAYER), (x + 76, 58, "ASPDC", DEFORMABLE)]
        page.write(x + 67, 506, f"block {i}", color=GREY, size=8)
        page.arrows([(x + 105, 557), (x + 105, 608)])
    page.chain(537, 40, (16, 62, "blurry", IMAGE), (98, 60, "head\nsize ÷ 4", LAYER), *blocks)
    page.box(469, 537, 20, 20, "…", IMAGE, ec="none")
    joined = (176, 458, "concatenation of the outputs of blocks 1 to 6: 768 channels", LAYER)
    page.chain(628, 40, joined, (660, 124, "fusion: conv3\n768 → 128, LReLU", LAYER))
    page.box(672, 560, 100, 42, "tail\nsize × 4")
    page.circle(722, 504, "+")
    page.arrows([(722, 608), (722, 581)], [(722, 539), (722, 517)], [(735, 504), (790, 504)])
    page.arrows([(47, 517), (47, 476), (722, 476), (722, 491)])
    page.write(762, 491, "deblurred")
    return page


def draw_stages() -> Page:
    """Return what the three training stages read, compare, train and write."""
    page = Page(616)
    legend = ((16, TRAINED, "trained"), (104, FROZEN, "frozen"), (186, IMAGE, "image"), (264, LOSS, "L, the loss"))
    for x, fill, text in (*legend, (374, FILE, "file in --output_dir; dashed arrow: read at the start")):
        page.box(x, 20, 22, 16, "", fill)
        page.write(x + 29, 20, text, "left")
    networks = {"R": "reblurring\nnetwork R", "D": "deblurring\nnetwork D"}
    stages = (
        (44, 144, 138, "1  reblur", "R learns to blur the sharp image s as the blurry image b is blurred."),
        (196, 126, 284, "2  deblur", "D learns from the ground truth alone."),
        (330, 274, 436, "3  finetune", "D continues. Blurred again by R, its result should be b."),
    )
    results = [
        ("R(b, s)", "blurry b", "1e-4", "ReBlurringNet.pth"),
        ("D(b)", "sharp s", "1e-4", "DeblurringNet_NF.pth"),
    ]
    results += [("D(b)", "sharp s", "1e-5", "DeblurringNet_FT.pth")]
    for (top, height, y, name, text), (output, target, rate, file) in zip(stages, results, strict=True):
        page.box(12, top + height / 2, 776, height, "", PAPER, ec="#c3cad3")
        page.title(top + 18, name, text, 116, 26, 11)
        page.write(774, top + 19, f"learning rate {rate}", "right", color=GREY)
        inputs = [(30, 72, "blurry b", IMAGE)] * (output == "D(b)")
        page.chain(y, 36, *inputs, (170, 104, networks[output[0]], TRAINED), (320, 84, output, IMAGE))
        page.circle(474, y, "L", LOSS)
        page.box(438, y - 44, 72, 28, target, IMAGE)
        page.arrows([(404, y), (461, y)], [(474, y - 30), (474, y - 13)])
        page.box(604, y, 168, 32, file, FILE)
        page.write(688, y - 28, f"written: {output[0]}", color=GREY)
    for y, inlet, text in ((116, 130, "blurry b"), (160, 146, "sharp s")):
        page.box(30, y, 72, 32, text, IMAGE)
        page.arrows([(102, y), (136, y), (136, inlet), (170, inlet)])
    page.box(140, 377, 164, 26, "DeblurringNet_NF.pth", FILE)
    page.box(130, 577, 144, 26, "ReBlurringNet.pth", FILE)
    page.arrows([(222, 390), (222, 418)], [(274, 577), (362, 577), (362, 548)], ls="--")
    page.chain(530, 36, (310, 104, networks["R"], FROZEN), (460, 84, "R(b, D(b))", IMAGE))
    page.circle(600, 530, "L", LOSS)
    page.box(564, 578, 72, 28, "blurry b", IMAGE)
    page.arrows([(362, 454), (362, 512)], [(66, 454), (66, 530), (310, 530)])
    page.arrows([(544, 530), (587, 530)], [(600, 564), (600, 543)])
    page.write(493, 468, "× λA = 1; skipped where there is no s", "left", size=8)
    page.write(619, 530, "× λB = 0.1;\nneeds no ground truth", "left", size=8)
    return page


def released_index(height: int, width: int) -> np.ndarray:
    """Return where in the flat unpadded map the released reading looks, (TAPS, height, width), wrapped at its end."""
    return np.arange(TAPS * height * width).reshape(TAPS, height, width) % (TAPS * (height - 2) * (width - 2))


def motif() -> np.ndarray:
    """Return pictures of the taps' modulation maps, (TAPS, H', W', 3): a colour each, stripes, and the tap's number."""
    height, width = MAP
    y, x = np.mgrid[:height, :width]
    pictures = np.array([to_rgb(each) for each in TAP_COLOURS])[:, None, None] * (1 - 0.18 * (x % 20 < 3)[..., None])
    for tap, picture in enumerate(pictures):
        number = TextPath((0, 0), str(tap), size=78)
        middle = number.get_extents().get_points().mean(axis=0)
        points = np.column_stack([x.ravel() - width / 2, height / 2 - y.ravel()]) + middle
        inside = [Outline(part).contains_points(points) for part in number.to_polygons()]
        picture[np.logical_xor.reduce(inside).reshape(height, width)] *= 0.35
    return pictures


def draw_module0() -> Page:
    """Return whose modulation each pixel gets in the aligned and in the released reading of module 0."""
    page, (height, width), aligned = Page(656), MAP, motif()
    computed, index, middle = aligned[:, 1:-1, 1:-1], released_index(height, width), (width // 2, height // 2)
    released, small, large = computed.reshape(-1, 3)[index], (height - 2) * (width - 2), height * width
    subtitle = f"a value for each tap (colour) and pixel, H'×W' = {height}×{width}"
    page.title(20, "Two readings of module 0's modulation", subtitle, 368)
    texts = (
        f"The released conv3 has no padding. Its map is too small: {height - 2}×{width - 2} values a tap.",
        "What the paper means, and what is trained here: the conv3 has padding 1. Each pixel gets its own value.",
        "The operator walks through the small map with strides of the large one. A row slides by 2\xa0px from the one "
        "above, and a tap ends in the next one's values; tap 8 ends in tap 0's.",
    )
    for i, (name, pictures) in enumerate((("computed", computed), ("aligned", aligned), ("released", released))):
        page.write(16, 73 + 130 * i, name, "left", 10, weight="bold")
        page.sheet.text(16, 86 + 130 * i, "\n".join(wrap(texts[i], 29)), va="top", color=INK, linespacing=1.3)
        for x, tap in zip((304, 500, 696), SHOWN, strict=True):
            marks = [middle]
            if name == "computed":
                row, column = divmod(int(index[tap][middle[::-1]]) % small, width - 2)
                marks = [(column, row), (middle[0] - 1, middle[1] - 1)]
                page.write(x, 52, f"tap {tap}", weight="bold")
            page.panel(x, 120 + 130 * i, pictures[tap], *marks)
    page.write(212, 451, "Dot: middle pixel; top row: the value it gets as released. Ring: its own.", "left", size=8)

    page.title(490, "The same in memory", "all values in one row; a number is a tap", 196)
    scale = 568 / (TAPS * large)
    end, wrapped = 212 + TAPS * small * scale, TAPS * (large - small)
    for top, name, size in ((510, "computed", small), (552, "read as released", large)):
        page.write(16, top + 15, name, "left")
        for tap, colour in enumerate(TAP_COLOURS):
            page.sheet.add_patch(Rectangle((212 + tap * small * scale, top), small * scale, 30, fc=colour))
        page.sheet.add_patch(Rectangle((end, top), 780 - end, 30 * (size == large), fc="white", hatch="/////"))
        for tap in range(TAPS):
            left, right = (212 + each * size * scale for each in (tap, tap + 1))
            page.sheet.add_patch(Rectangle((left, top), right - left, 30, fc="none", ec=INK, lw=0.9))
            page.write((left + min(right, end)) / 2, top + 15, str(tap))
    page.arrows([(end, 504), (end, 590)], ls=":", head=False)
    page.arrows([((end + 780) / 2, 582), ((end + 780) / 2, 600), (222, 600), (222, 584)])
    share = f"{wrapped:,} of {TAPS * large:,} reads ({100 * wrapped / large / TAPS:.1f} %)"
    page.write(780, 616, f"{share} lie past the end, all of them of tap 8.", "right")
    page.write(780, 634, "Undefined in the released code; here they wrap around to the start.", "right", color=GREY)
    return page


@rc_context(STYLE)
def save(folder: Path) -> None:
    """Write all diagrams to a folder."""
    for name, draw in (("aspdc", draw_aspdc), ("stages", draw_stages), ("module0", draw_module0)):
        draw().savefig(folder / f"{name}.svg", dpi=144, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    save(Path(__file__).parent)
