"""A table of scores as Markdown and as LaTeX, and settings in words."""

import re
from dataclasses import dataclass, field
from itertools import groupby
from string import ascii_lowercase
from typing import Any

_SETTINGS = {  # one that is not given, and one that is; others stand as they are
    "blur_dir": ("blurry images of blur/", "blurry images of {}/"),
    "sharp_dir": ("sharp images of sharp/", "sharp images of {}/"),
    "crop_border": ("whole images", "images without {} px at each border"),
}


@dataclass(frozen=True)
class Cell:
    """A score.

    Attributes:
        text: with its digits; "inf" where it is infinite.
        best: of those that are compared.
        mark: a letter that refers to a note, or nothing.
    """

    text: str
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """The scores of one set by one metric, by method."""

    set_name: str
    metric: str
    lower_is_better: bool
    cells: dict[str, Cell]


@dataclass
class Table:
    """Scores with what has to be said of them.

    Attributes:
        methods: the rows.
        columns: those of one set follow each other.
        notes: by the marks in cells.
        caption: sentences, some of them empty.
        omitted: metrics that no column is of.
    """

    methods: list[str]
    columns: list[Column] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    caption: list[str] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)

    def mark(self, note: str) -> str:
        """Add a note; return its mark."""
        number, letter = divmod(len(self.notes), len(ascii_lowercase))
        mark = ascii_lowercase[letter] * (number + 1)
        self.notes[mark] = note
        return mark


def in_words(setting: str, value: Any) -> str:
    """Return a setting that scores depend on as people say it; None is one that was not given."""
    without, given = _SETTINGS.get(setting, (f"no {setting}", f"{setting} {{}}"))
    return without if value is None else given.format(value)


def markdown(table: Table) -> str:
    """Return the table as Markdown, the caption and notes below it."""

    def form(cell: Cell | None) -> str:
        if cell is None:
            return ""
        text = cell.text.replace("inf", "∞")
        return (f"**{text}**" if cell.best else text) + (f" [{cell.mark}]" if cell.mark else "")

    def line(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    arrows = {False: "↑", True: "↓"}
    heads = [f"{each.set_name} {each.metric} {arrows[each.lower_is_better]}" for each in table.columns]
    rows = [line(_plain(method), *(form(each.cells.get(method)) for each in table.columns)) for method in table.methods]
    notes = [f"[{mark}] {note}." for mark, note in table.notes.items()]
    below = [" ".join(_plain(each) for each in (*table.caption, *notes) if each)]
    return "\n".join([line("", *map(_plain, heads)), line("---", *["---:"] * len(heads)), *rows, "", *below])


def _plain(text: str) -> str:
    """Return a text without what Markdown would read as its own."""
    return re.sub(r"([\\|*_`<])", r"\\\1", text)


def latex(table: Table) -> str:
    """Return the table as LaTeX, the notes in its caption."""

    def form(cell: Cell | None) -> str:
        if cell is None:
            return "--"
        text = cell.text.replace("inf", r"$\infty$")
        return (rf"\textbf{{{text}}}" if cell.best else text) + (rf"$^{{{cell.mark}}}$" if cell.mark else "")

    def line(*cells: str) -> str:
        return rf"{' & '.join(cells)} \\"

    sets, rules, first = [], [], 2
    for set_name, columns in groupby(table.columns, lambda each: each.set_name):
        count = len(list(columns))
        sets.append(rf"\multicolumn{{{count}}}{{c}}{{{_escaped(set_name)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
        first += count
    arrows = {False: r" $\uparrow$", True: r" $\downarrow$"}
    heads = [_escaped(each.metric) + arrows[each.lower_is_better] for each in table.columns]
    notes = [rf"$^{{{mark}}}$ {_escaped(note)}." for mark, note in table.notes.items()]
    caption = " ".join([*(_escaped(each) for each in table.caption if each), *notes])
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            line("", *sets),
            " ".join(rules),
            line("", *heads),
            r"\midrule",
            *(
                line(_escaped(method), *(form(each.cells.get(method)) for each in table.columns))
                for method in table.methods
            ),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _escaped(text: str) -> str:
    """Return a text in which LaTeX reads no character as its own."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda found: special.get(found[0], f"\\{found[0]}"), text)
