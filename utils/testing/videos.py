"""The videos of a test run, restored one after the other."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.common.errors import UserError
from utils.common.signals import Interruption
from utils.testing.results import Results
from utils.testing.saved_results import SavedResults
from utils.testing.settings import RunSettings
from utils.testing.sources import ResultSource
from utils.testing.video_restoring import restore_video


def restore_videos(
    source: ResultSource, videos: Mapping[Path, Path], settings: RunSettings, results: Results, stop: Interruption
) -> None:
    """Restore videos; one that cannot be read or written is skipped.

    Args:
        source: restores them.
        videos: each with its output path, relative to the folder of the source.
        settings: of the run.
        results: receive their summaries; videos in them are not restored again.
        stop: checked between two frames; a request ends the program.
    """

    def restore(frame: np.ndarray) -> np.ndarray:
        if stop.requested:
            print("the current video is discarded: --resume restores it from its start, and keeps finished ones")
            stop.end()
        assert not isinstance(source.restorer, SavedResults)  # only of images
        return source.restorer(frame)

    for path, relative_output in videos.items():
        output = source.folder / relative_output
        name = results.name_of(output)
        if not (settings.resume and output.exists() and name in results.sets):
            results.begin(output)
            try:
                summary = restore_video(restore, path, output, print)
            except UserError as error:
                problem = str(error) if str(path) in str(error) else f"{path}: {error}"
                results.problems.append(problem)
                print(f"skipped: {problem}")
                continue
            results.sets[name] = {"kind": "video", **summary}
            results.write()
            print(f"{path}: restored as {output}")
        results.incomplete += results.sets[name].get("problems", [])
