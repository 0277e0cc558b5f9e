"""Tables of several runs: what is compared, what is marked, and that both forms hold the same numbers."""

import json
import re
from pathlib import Path

import pytest

from tests.support.commands import run_command
from tests.support.samples import ROOT

WHOLE = ROOT / "tests" / "data" / "94a4be1" / "restored" / "whole" / "summary.json"


@pytest.fixture
def run(tmp_path):
    """Return a function that writes the summary of a run on GoPro, and on more sets, as one that was really written."""

    def write(name, psnr, more=(), networks=("D",), **settings):
        content = {**json.loads(WHOLE.read_text()), **settings}
        pairs = content["sets"].pop("pairs")
        content["networks"] = {network: {} for network in networks}
        for i, network in enumerate(networks):
            output = {"psnr": psnr + i, "ssim": 0.9, "new_metric_of_others": 0.5}
            content["sets"][f"{network}/GoPro" if len(networks) > 1 else "GoPro"] = {
                **pairs, "images": 1111, "images_in_set": 1111, "output": output,
                "input": {"psnr": 25.64, "ssim": 0.8, "new_metric_of_others": 0.25}, **dict(more),
            }  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
        return str(tmp_path / name)

    return write


def table(*arguments):
    """Return the rows of the Markdown and of the LaTeX as lists of cells, the caption, and the rest."""
    ended = run_command("tools.table", list(arguments))
    assert ended.status == 0, ended.stderr
    markdown, _, rest = ended.stdout.partition("\n\n% needs")
    rows, _, caption = markdown.partition("\n\n")
    first = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]
    lines = [line.removesuffix(r" \\") for line in rest.splitlines() if line.endswith(r"\\")]
    second = [[cell.strip() for cell in line.split(" & ")] for line in lines]
    return first, second, caption, rest


def test_methods_stand_side_by_side_with_the_best_in_bold(run):
    rows, latex, caption, _ = table(run("ours", 32.0), f"NAFNet={run('x', 33.714)}", "--metrics", "psnr,ssim")
    assert rows[0][1:] == ["GoPro PSNR ↑", "GoPro SSIM ↑"]
    assert rows[2:] == [
        ["blurry input", "25.64", "0.8000"], ["ours", "32.00", "**0.9000**"], ["NAFNet", "**33.71**", "**0.9000**"]
    ]  # fmt: skip
    assert latex[0] == ["", r"\multicolumn{2}{c}{GoPro}"]
    assert latex[-1] == ["NAFNet", r"\textbf{33.71}", r"\textbf{0.9000}"]
    for text in (
        "GoPro (1,111 images; whole images, not aligned)",
        "PSNR is comparable with MPRNet",
        "Settings: blurry images of blur/.",
    ):
        assert text in caption
    assert "ssim_matlab" not in caption


def test_metrics_are_those_that_papers_print_or_any_of_the_summaries(run):
    rows, _, _, rest = table(run("a", 30.0))
    assert [head.split()[1] for head in rows[0][1:]] == ["PSNR", "SSIM"]
    assert rest.endswith("\n\nnot in the table, for --metrics: new_metric_of_others\n")
    rows, _, caption, rest = table(run("all", 30.0), "--metrics", "new_metric_of_others,psnr")
    assert [head.split()[1] for head in rows[0][1:]] == [r"new\_metric\_of\_others", "PSNR"]
    assert "others is comparable with nothing that is known." in caption
    assert "not in the table" not in rest
    ended = run_command("tools.table", [run("b", 30.0), "--metrics", "psnr,lpips"])
    assert (ended.status, "no run has the metric lpips; there are psnr, ssim, new_metric" in ended.stderr) == (2, True)


def test_a_set_without_these_metrics_is_not_in_the_caption(run, tmp_path):
    path = tmp_path / "summary.json"
    content = json.loads(Path(run("ours", 32.0), "summary.json").read_text())
    aligned = {side: {"psnr_aligned": 30.0} for side in ("input", "output")}
    content["sets"]["RealBlur_J"] = content["sets"]["GoPro"] | aligned
    path.write_text(json.dumps(content))
    rows, _, caption, _ = table(str(path), "--metrics", "psnr")
    assert rows[0][1:] == ["GoPro PSNR ↑"]
    assert "RealBlur" not in caption


@pytest.mark.parametrize(
    ("more", "settings", "note"),
    [
        ({"images": 100}, {}, "GoPro: 100 of 1,111 images, not 1,111 images"),
        ({"input": {"psnr": 25.7}}, {}, "GoPro: other images: PSNR of the input 25.7000, not 25.6400"),
        ({}, {"blur_dir": "blur_gamma"}, r"GoPro: blurry images of blur\_gamma/, not blurry images of blur/"),
        ({}, {"new_setting": 7}, r"GoPro: new\_setting 7, not no new\_setting"),
        ({}, {"crop_border": 4}, "GoPro: images without 4 px at each border, not whole images"),
    ],
)
def test_what_was_scored_otherwise_is_marked_and_not_compared(run, more, settings, note):
    psnr = 31.0 if settings else 40.0  # as the best one, or better
    runs = [run("a", 30.0), run("odd", psnr, more=more.items(), **settings), run("c", 31.0)]
    rows, latex, caption, _ = table(*runs, "--metrics", "psnr")
    assert [row[1] for row in rows[2:]] == ["25.64", "30.00", f"{psnr:.2f} [a]", "**31.00**"]
    assert latex[-2][1] == f"{psnr:.2f}$^{{a}}$"
    assert f"[a] {note}." in caption
    assert "Marked results were scored otherwise and are not compared." in caption


def test_of_two_that_differ_more_images_are_the_set(run):
    rows, *_ = table(run("part", 40.0, more={"images": 100}.items()), run("all", 30.0), "--metrics", "psnr")
    assert [row[1] for row in rows[2:]] == ["25.64", "40.00 [a]", "30.00"]


def test_what_the_method_is_does_not_mark_it(run):
    other = run("b", 31.0, precision="bf16", self_ensemble=True, device="H200", version="9", output_format="jpeg")
    rows, *_ = table(run("a", 30.0), other, "--metrics", "psnr")
    assert rows[-1] == ["b (bf16, self-ensemble)", "**31.00**"]


def test_lower_is_better_where_it_is(run):
    scores = {"output": {"lpips": 0.1}, "input": {"lpips": 0.2}}
    worse = {"output": {"lpips": 0.3}, "input": {"lpips": 0.2}}
    rows, _, _, rest = table(run("a", 0.0, more=scores.items()), run("b", 0.0, more=worse.items()))
    assert [row[1] for row in rows] == ["GoPro LPIPS ↓", "---:", "0.2000", "**0.1000**", "0.3000"]
    assert r"LPIPS $\downarrow$" in rest


def test_runs_of_one_name_share_a_row_and_networks_have_one_each(run, tmp_path):
    hide = json.loads((tmp_path / run("a", 30.0) / "summary.json").read_text())
    hide["sets"] = {"HIDE": hide["sets"]["GoPro"]}
    (tmp_path / "hide.json").write_text(json.dumps(hide))
    rows, *_ = table(f"ours={tmp_path / 'a'}", f"ours={tmp_path / 'hide.json'}", run("b", 31.0, networks=("NF", "FT")),
                     "--metrics", "psnr")  # fmt: skip
    assert rows[0][1:] == ["GoPro PSNR ↑", "HIDE PSNR ↑"]
    assert rows[3:] == [["ours", "30.00", "30.00"], ["NF", "31.00", ""], ["FT", "**32.00**", ""]]
    ended = run_command("tools.table", [f"ours={tmp_path / 'a'}", f"ours={tmp_path / 'b'}", f"FT={tmp_path / 'a'}"] * 2)
    assert (ended.status, "ours has two results on GoPro; call one of the runs NAME=" in ended.stderr) == (2, True)


def made_by(path, name, **networks):
    """Rewrite a summary as one on a set of this name, by networks of these digests; return its path."""
    content = json.loads((Path(path) / "summary.json").read_text())
    content["networks"] = {network: {"weights_sha256": digest} for network, digest in networks.items()}
    only = next(iter(content["sets"].values()))
    content["sets"] = {f"{network}/{name}" if len(networks) > 1 else name: only for network in networks}
    (Path(path) / "summary.json").write_text(json.dumps(content))
    return path


def refusal(*arguments):
    ended = run_command("tools.table", list(arguments))
    assert ended.status == 2, ended.stdout
    return ended.stderr


@pytest.mark.parametrize(("networks", "method"), [(("D",), "results"), (("NF", "FT"), "NF")])
def test_two_methods_of_one_name_are_not_one_row(run, tmp_path, networks, method):
    for folder in "abc":
        (tmp_path / folder).mkdir()
    first = made_by(run("a/results", 30.0), "GoPro", **dict.fromkeys(networks, "1"))
    same = made_by(run("b/results", 30.0), "HIDE", **dict.fromkeys(networks, "1"))
    other = made_by(run("c/results", 30.0), "HIDE", **dict.fromkeys(networks, "2"))
    assert len(table(first, same)[0]) == 3 + len(networks)
    message = f"{method} is one method in {first}/summary.json, and another one in {other}/summary.json; give both runs"
    assert message in refusal(first, other)
    assert len(table(f"x={first}", f"y={other}")[0]) == 3 + 2 * len(networks)
    assert len(table(f"x={first}", f"x={other}")[0]) == 3 + len(networks)


def test_a_name_that_was_given_is_not_that_of_a_folder(run, tmp_path):
    (tmp_path / "a").mkdir()
    network, pictures = made_by(run("x", 30.0), "HIDE", D="1"), run("a/x", 31.0, from_results="/pngs")
    for arguments in ((network, pictures), (network, f"x={pictures}"), (f"x={network}", pictures)):
        assert "x is one method in" in refusal(*arguments)


def as_sets(path, **kinds):
    """Rewrite a summary on GoPro as one on sets of these names and kinds; return its path."""
    content = json.loads((Path(path) / "summary.json").read_text())
    (only,) = content["sets"].values()
    content["sets"] = {name: only | {"kind": kind} for name, kind in kinds.items()}
    (Path(path) / "summary.json").write_text(json.dumps(content))
    return path


def test_a_data_set_is_one_column_whatever_its_folder_is_called(run):
    one, other = as_sets(run("a", 30.0), GOPRO_Large="gopro"), as_sets(run("b", 31.0), gopro="gopro", x="paired")
    rows, _, caption, _ = table(one, other, "--metrics", "psnr")
    assert rows[0][1:] == ["GoPro PSNR ↑", "x PSNR ↑"]
    assert [row[1] for row in rows[3:]] == ["30.00", "**31.00**"]
    assert "of GoPro (1,111 images; " in caption


def test_parts_of_a_data_set_keep_their_names(run):
    parts = as_sets(run("a", 30.0), GOPRO_day="gopro", GOPRO_night="gopro", BSD_1ms8ms="bsd")
    rows, *_ = table(parts, as_sets(run("b", 31.0), **{"BSD-3ms24ms": "bsd", "bsd_1ms8ms": "bsd"}), "--metrics", "psnr")
    heads = [r"GOPRO\_day", r"GOPRO\_night", "BSD 1ms-8ms", "BSD 3ms-24ms"]
    assert rows[0][1:] == [f"{head} PSNR ↑" for head in heads]


SCORES = {"psnr": 30.0, "ssim": 0.9, "psnr_aligned": 32.0, "ssim_aligned": 0.92}
ALIGNED = {"kind": "realblur_j", "output": SCORES | {"aligned": 0.984}, "input": SCORES | {"aligned": 1.0}}


def test_realblur_is_shown_aligned_with_the_share_in_the_caption(run):
    how = "whole images; psnr_aligned, ssim_aligned: aligned to the sharp ones as by RealBlur's authors"
    one = run("a", 30.0, more=(ALIGNED | {"protocol": how}).items())
    other = run("b", 30.0, more=(ALIGNED | {"protocol": how, "output": SCORES | {"aligned": 1.0}}).items())
    rows, _, caption, _ = table(one, other)
    assert rows[0][1:] == ["RealBlur-J PSNR-aligned ↑", "RealBlur-J SSIM-aligned ↑"]
    assert "Of RealBlur-J could be aligned: a 98.40%; the rest is scored unaligned." in caption
    assert "whole images; PSNR-aligned, SSIM-aligned: aligned to" in caption
    assert " aligned is comparable" not in caption
    assert "could be aligned" not in table(one, other, "--metrics", "psnr")[2]
    rows, *_ = table(one, other, "--metrics", "aligned")
    assert [row[1] for row in rows[2:]] == ["1.0000", "0.9840", "1.0000"]  # no score, so none is the best


@pytest.mark.parametrize("metric", ["psnr_float", "ssim_released"])
def test_floats_are_not_compared_with_images_read_from_files(run, metric):
    def scores(value):
        return {"output": {metric: value, "psnr": 30.0}, "input": {metric: 0.5, "psnr": 20.0}}.items()

    runs = [run(name, 0.0, more=scores(value)) for name, value in (("a", 0.6), ("b", 0.7))]
    runs += [run("files", 0.0, more=scores(0.8), from_results="/pngs")]
    rows, _, caption, _ = table(*runs, "--metrics", f"psnr,{metric}")
    values = [re.sub(r"(0\.\d)0+", r"\1", row[2]) for row in rows[2:]]
    assert values == ["0.5", "0.6", "**0.7**", "0.8 [a]"]
    assert [row[1] for row in rows[3:]] == ["**30.00**"] * 3
    assert re.search(r"\[a\] GoPro: (PSNR|SSIM)-\w+ of images that were read from files, rounded to 8 bits\.", caption)
    _, _, caption, _ = table(f"x={runs[2]}", f"y={runs[2]}", "--metrics", metric)
    assert "rounded" not in caption  # both are


def test_infinite_means_and_what_has_no_scores(run, tmp_path):
    equal = json.loads((tmp_path / run("a", 30.0) / "summary.json").read_text())
    equal["sets"]["GoPro"]["output"]["psnr"] = None
    equal["sets"]["photos"] = {"images": 1, "images_in_set": 1}
    (tmp_path / "equal.json").write_text(json.dumps(equal))
    rows, latex, _, rest = table(str(tmp_path / "a"), f"100%={tmp_path / 'equal.json'}", "--metrics", "psnr")
    assert (rows[-1], latex[-1]) == (["100%", "**∞**"], [r"100\%", r"\textbf{$\infty$}"])
    assert rest.endswith("\n\nnot in the table, without scores: 100%: photos\n")


def test_every_row_of_latex_has_every_column(run):
    _, latex, _, rest = table(run("a_b", 30.0))
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l.*)\}", rest)
    assert {len(row) for row in latex[1:]} == {len(columns)} == {3}
    assert latex[-1][0] == r"a\_b"
    assert rest.count("{") == rest.count("}")


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"sets": {"a": {"output": {}}}, "comparable_with": {}}'])
def test_what_is_no_summary_is_named(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    ended = run_command("tools.table", [str(tmp_path)])
    assert ended.status == 2
    assert re.search(r"error: .*/summary\.json is no summary of a run .*; expected the --save_dir", ended.stderr)


def test_runs_of_before_are_read():
    rows, *_ = table(f"before={WHOLE}", "--metrics", "psnr")
    assert rows[-1] == ["before", "19.11"]
