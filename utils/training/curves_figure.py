"""The figure of a training run's scalars."""

from collections.abc import Sequence

from utils.common.plotting import Axes, Figure, ticker

_Points = dict[float, float]  # from steps to values

_INPUT = "val_psnr_input"
# Of each panel: columns by the names in its legend, and whether its axis is logarithmic. Parts of the loss are added.
_PANELS: dict[str, tuple[dict[str, str], bool]] = {
    "loss": ({"loss": "total"}, True),
    "PSNR [dB]": ({"val_psnr": "output", _INPUT: "input"}, False),  # psnr_float would be the same line
    "SSIM": ({"val_ssim": "output"}, False),
    "learning rate": ({"lr": "learning rate"}, True),
}
_FEW_POINTS = 60  # up to so many each has a mark
_FEW_RATES = 6  # up to so many each is written at the axis


def curves_figure(rows: Sequence[dict[str, float]], title: str) -> Figure:
    """Return a figure of losses, validation scores and the learning rate over steps and epochs.

    Args:
        rows: of log.csv, at least one, in the order of their steps.
        title: of the figure.
    """
    parts = {name: name.removeprefix("loss_") for row in rows for name in row if name.startswith("loss_")}
    panels = _PANELS | {"loss": ({**_PANELS["loss"][0], **parts}, True)}
    shown = {label: lines for label, (names, log) in panels.items() if (lines := _lines(rows, names, log))}
    height = 1.2 + 2.0 * len(shown)
    figure = Figure(figsize=(8, height), layout="constrained")
    figure.suptitle(title, fontsize="medium", parse_math=False)
    axes = figure.subplots(max(len(shown), 1), sharex=True, squeeze=False)[:, 0]
    for axis, (label, lines) in zip(axes, shown.items(), strict=False):
        _draw_panel(axis, label, lines, logarithmic=panels[label][1])
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(left=0)
    axes[-1].xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes[-1].xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    _add_epochs(axes[0], rows)
    return figure


def _lines(rows: Sequence[dict[str, float]], names: dict[str, str], logarithmic: bool) -> dict[str, _Points]:
    """Return the lines of some columns by their labels: those that have points, each drawn once."""
    lines: dict[str, _Points] = {}
    for name, label in names.items():
        points = {row["step"]: row[name] for row in rows if name in row and (row[name] > 0 or not logarithmic)}
        if points and points not in lines.values():  # the loss of a single part is that part
            lines[label] = points
    return lines


def _draw_panel(axis: Axes, label: str, lines: dict[str, _Points], logarithmic: bool) -> None:
    for name, points in lines.items():
        (line,) = axis.plot(list(points), list(points.values()), label=name, linewidth=1.2)
        line.set_marker("." if len(points) <= _FEW_POINTS else "")
        if name == "input":
            line.set(color="grey", linestyle="--")
        elif name == "learning rate":
            line.set_drawstyle("steps-pre")  # a row has the rate of the steps up to it
    axis.set_ylabel(label)
    if logarithmic:
        values = {value for points in lines.values() for value in points.values()}
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(
            ticker.FixedLocator(sorted(values))
            if len(values) <= _FEW_RATES
            else ticker.LogLocator(subs=(1.0, 2.0, 5.0))
        )
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend(fontsize="small")


def _add_epochs(axis: Axes, rows: Sequence[dict[str, float]]) -> None:
    """Add an axis on top with the numbers of epochs at their last steps."""
    steps = {row["epoch"]: row["step"] for row in rows if "epoch" in row}
    if not steps:
        return
    chosen = [
        each for each in ticker.MaxNLocator(10, integer=True).tick_values(min(steps), max(steps)) if each in steps
    ]
    top = axis.secondary_xaxis("top")
    top.set_xticks([steps[each] for each in chosen], [f"{each:,.0f}" for each in chosen])
    top.set_xlabel("epoch")
