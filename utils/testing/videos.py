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
    """Restore videos, each to its place; a video that cannot be read or written does not keep the others from it.

    Args:
        source: what restores them.
        videos: and their places in the method's folder.
        settings: of the run.
        results: take their summaries; what they have already is not restored again.
        stop: is heeded between two frames; then it ends the program.
    """

    def restore(frame: np.ndarray) -> np.ndarray:
        if stop.requested:
            print("the video in hand is not kept: --resume begins it anew, and leaves what is finished as it is")
            stop.end()
        assert not isinstance(source.restorer, SavedResults)  # they are of images alone
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
                print(f"left out: {problem}")
                continue
            results.sets[name] = {"kind": "video", **summary}
            results.write()
            print(f"{path}: restored as {output}")
        results.incomplete += results.sets[name].get("problems", [])
