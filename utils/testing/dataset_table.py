"""The rows and the summary of a set, of which several processes may restore a part each."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from datasets import ImageSet
from utils.common.signals import Interruption
from utils.images.codecs import UnreadableError
from utils.metrics.scorer import Scorer
from utils.report.rows import Row
from utils.runtime.distributed import DistributedContext
from utils.testing.dataset_run import SetRun
from utils.testing.result_files import name_in
from utils.testing.results import Results
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource
from utils.testing.summaries import summarise


def run_set(
    source: ResultSource,
    image_set: ImageSet,
    output_dir: Path,
    scorer: Scorer,
    settings: RunSettings,
    results: Results,
    distributed: DistributedContext,
    stop: Interruption,
) -> list[str]:
    """Restore, save and score this process's share of a set's images; return what was wrong with those left out.

    Args:
        source: what restores them.
        image_set: the set.
        output_dir: its folder where there is one method alone.
        scorer: of the images.
        settings: of the run.
        results: take the rows.
        distributed: the processes that share the set.
        stop: is heeded after each image, when the rows are written; then it ends the program.

    Raises:
        UserError: something cannot be written, or memory does not suffice for the network.
    """
    if not len(image_set):  # videos alone
        return []
    name = source.set_name(output_dir.name)
    count = min(len(image_set), settings.limit or len(image_set))
    outputs = source.outputs(image_set, output_dir, settings.save_dir, count)
    done = set(distributed.gather(list(results.of(name)))[0])
    own = [i for i in range(count) if image_set.names[i] not in done][distributed.rank :: distributed.world_size]
    run = SetRun(source.restorer, image_set, outputs, scorer, settings.num_workers, results.begin, stop)
    problems: list[str] = []
    stopped = False
    try:
        for i, row in tqdm(run(own), name, len(own), unit="image", dynamic_ncols=True, disable=not distributed.is_main):
            if isinstance(row, UnreadableError):
                problems.append(str(row))
                tqdm.write(f"left out: {row}")
                continue
            where = name_in(settings.save_dir, outputs[i])
            named: Row = {"set": name, "image": image_set.names[i], "saved_as": where}
            results.add(named | ({"weights": source.name} if source.name else {}) | row)
        stopped = bool(stop.requested)
    finally:  # neither an error nor a signal loses the scores before it
        if not distributed.is_distributed:
            _finish_set(name, image_set, count, [results.of(name)], problems, run.notes, results)
        else:
            results.write()
    if distributed.is_distributed:
        shares = distributed.gather((results.of(name), problems, run.notes, stopped))
        problems = [problem for _, found, _, _ in shares for problem in found]
        notes = [note for _, _, found, _ in shares for note in found]
        stopped = any(each for *_, each in shares)
        if distributed.is_main:
            _finish_set(name, image_set, count, [rows for rows, *_ in shares], problems, notes, results)
        distributed.barrier()
        if not distributed.is_main:
            results.merge_into()
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
