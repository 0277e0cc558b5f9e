"""The rows and the summary of a set, of which several processes may restore a part each."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from datasets import ImageSet
from utils.common.signals import Interruption
from utils.images.codecs import UnreadableError
from utils.metrics.scorer import Scorer
from utils.report.rows import Row
from utils.runtime.distributed import Ranks
from utils.testing.dataset_run import SetRun
from utils.testing.result_files import name_in
from utils.testing.results import Results
from utils.testing.sources import Method
from utils.testing.summaries import summarise


def run_set(
    method: Method,
    image_set: ImageSet,
    place: Path,
    scorer: Scorer,
    args: argparse.Namespace,
    results: Results,
    ranks: Ranks,
    stop: Interruption,
) -> list[str]:
    """Restore, save and score this process's share of a set's images; return what was wrong with those left out.

    Args:
        method: what restores them.
        image_set: the set.
        place: its folder where there is one method alone.
        scorer: of the images.
        args: of D_testing.py.
        results: take the rows.
        ranks: the processes that share the set.
        stop: is heeded after each image, when the rows are written; then it ends the program.

    Raises:
        UserError: something cannot be written, or memory does not suffice for the network.
    """
    if not len(image_set):  # videos alone
        return []
    name = method.set_name(place.name)
    count = min(len(image_set), args.limit or len(image_set))
    outputs = method.outputs(image_set, place, args.save_dir, count)
    done = set(ranks.gather(list(results.of(name)))[0])
    own = [i for i in range(count) if image_set.names[i] not in done][ranks.rank :: ranks.world]
    run = SetRun(method.restorer, image_set, outputs, scorer, args.num_workers, results.begin, stop)
    problems: list[str] = []
    stopped = False
    try:
        for i, row in tqdm(run(own), name, len(own), unit="image", dynamic_ncols=True, disable=not ranks.main):
            if isinstance(row, UnreadableError):
                problems.append(str(row))
                tqdm.write(f"left out: {row}")
                continue
            where = name_in(args.save_dir, outputs[i])
            named: Row = {"set": name, "image": image_set.names[i], "saved_as": where}
            results.add(named | ({"weights": method.name} if method.name else {}) | row)
        stopped = bool(stop.requested)
    finally:  # neither an error nor a signal loses the scores before it
        if not ranks.together:
            _finish_set(name, image_set, count, [results.of(name)], problems, run.notes, results)
        else:
            results.write()
    if ranks.together:
        shares = ranks.gather((results.of(name), problems, run.notes, stopped))
        problems = [problem for _, found, _, _ in shares for problem in found]
        notes = [note for _, _, found, _ in shares for note in found]
        stopped = any(each for *_, each in shares)
        if ranks.main:
            _finish_set(name, image_set, count, [rows for rows, *_ in shares], problems, notes, results)
        ranks.wait()
        if not ranks.main:
            results.hand_over()
    if stopped:
        print(f"{name}: {len(results.of(name)):,} of {count:,} images are done; --resume goes on")
        stop.end()
    return problems


def _finish_set(
    name: str,
    image_set: ImageSet,
    count: int,
    shares: Sequence[dict[str, Row]],
    problems: Sequence[str],
    notes: Sequence[str],
    results: Results,
) -> None:
    """Put a set's rows into the order of its images, and write them with their summary."""
    by_image = {image: row for rows in shares for image, row in rows.items()}
    rows = [by_image[image] for image in image_set.names if image in by_image]
    for note in notes:
        print(note)
    if rows:
        complete = all(image in by_image for image in image_set.names[:count])
        before = results.sets.get(name, {}).get("notes", ())  # on images that need no second look
        results.replace(name, rows)
        results.sets[name] = summarise(image_set, rows, complete, problems, dict.fromkeys((*before, *notes)))
    results.write()
