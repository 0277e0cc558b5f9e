"""Saved states of a training run, from which it resumes as if it had never stopped."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.checkpoint import CheckpointError, check_finite
from utils.common.errors import UserError, blame_system, some
from utils.common.files import atomic_write, file_digest, save_tensors
from utils.common.memory import out_of_memory
from utils.common.version import __version__
from utils.training.optimization import TrainingState
from utils.training.progress import Progress
from utils.training.provenance import ResumeSettings, describe_changes, known_by_tensors
from utils.training.state_file import checksum_file, load_state, remove_state

_NAME = re.compile(r"step-(\d{9})\.pth")

# Among a state's settings, which may have others than flags: where it was written, and the best network's SHA-256.
STATES, BEST = "states", "best_sha256"


@dataclass
class Resumed:
    """Where a run resumes.

    Attributes:
        progress: steps and epochs done.
        notes: lines for the log.
        state: the file, None for a new run.
        log: its log's folder, None where the states were written elsewhere: the folder is a copy, or another run's,
            which may go on.
        sums: of the current epoch's losses, see `utils.training.run_log.RunLog.sums`.
        validated_on: the data and weights of its best PSNR.
        best: SHA-256 of the network that has it, None in states of earlier versions.
    """

    progress: Progress = field(default_factory=Progress)
    notes: list[str] = field(default_factory=list)
    state: Path | None = None
    log: Path | None = None
    sums: dict[str, float] = field(default_factory=dict)
    validated_on: str = ""
    best: str | None = None


class CheckpointManager:
    """A folder of numbered states of one stage, the newest `keep` of them, each with a file of its SHA-256.

    Args:
        folder: of the states.
        keep: number of states.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._saved: Path | None = None

    def save(
        self, progress: Progress, content: dict[str, Any], again: bool = False, remove_oldest: bool = True
    ) -> Path:
        """Write a state, then remove the oldest ones; one that was written already is replaced only with `again`.

        Raises:
            UserError: it cannot be written; the older ones are kept.
            CheckpointError: weights are not finite; the older ones are kept.
        """
        path = self.folder / state_name(progress.step)
        if path == self._saved and not again:
            return path
        check_finite(path, content["network"])
        with atomic_write(path, "make room or lower --keep", "The previous state is intact") as temporary:
            save_tensors({"version": __version__, "progress": progress.to_file(), **content}, temporary)
            digest = file_digest(temporary)
            checksum_file(path).unlink(missing_ok=True)  # a run killed here leaves a complete state without one
        with atomic_write(checksum_file(path)) as checksum:
            checksum.write_text(f"{digest}  {path.name}\n")
        for old in self.files()[self.keep :] if remove_oldest else []:
            remove_state(old)
        self._saved = path
        return path

    def clear(self, from_step: int) -> None:
        """Remove the states after a step: another run replaces them."""
        for old in self.files():
            if (match := _NAME.fullmatch(old.name)) and int(match[1]) > from_step:
                remove_state(old)

    def files(self) -> list[Path]:
        """Return the states, newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def begun(self) -> list[Path]:
        """Return the states that hold a step, newest first: that of step 0 says only that a run was started."""
        return [path for path in self.files() if path.name != state_name(0)]

    def resume(self, which: str, training: TrainingState, settings: ResumeSettings) -> "Resumed":
        """Restore the training state of a stopped run.

        Args:
            which: "none" for a new run; "auto" for the newest valid state of this folder, if any holds a step (else
                the run begins anew, with today's networks and flags); else the path of a state or a folder of states.
            training: into which the state is loaded.
            settings: what is compared with the stopped run.

        Raises:
            UserError: something that must match differs, or there is no valid state at the given path.
            CheckpointError: the given state is damaged.
        """
        if which == "none":
            return Resumed()

        def restore(path: Path, state: dict[str, Any]) -> None:
            _check_must_match(path, known_by_tensors(state["fixed"], settings), settings.must_match)
            try:
                training.restore(state)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise CheckpointError(f"{path} does not fit the network ({type(error).__name__}: {reason})") from error

        path = Path(which)
        if which != "auto" and not path.exists():
            raise UserError(f"--resume {which!r}: expected auto, none, or a state step-*.pth or its folder")
        if which != "auto" and not path.is_dir():
            found = path, load_state(path), []
            restore(*found[:2])
        elif which != "auto":
            found = CheckpointManager(path, self.keep).newest(restore)
        else:
            found = self.newest(restore) if self.begun() else None
        if found is None and which != "auto":
            states = states_folder(path, self.folder.name)
            advice = "expected a folder with some, such as OUTPUT_DIR/states/STAGE"
            if CheckpointManager(states, self.keep).files():
                advice = f"look in {states}, or use --resume auto --output_dir {path}"
            raise UserError(f"--resume {path}: no state step-*.pth there; {advice}")
        if found is None:
            return Resumed(notes=[f"no state with a step in {self.folder}: starting a new run"])
        path, state, problems = found
        progress = Progress.from_file(state["progress"])
        notes = [
            *problems,
            f"resumed from {path}: step {progress.step:,}, epoch {progress.epoch + 1}",
            *describe_changes(state["settings"], settings),
        ]
        about = state["settings"]
        written_in = about.get(STATES, str(path.parent.resolve()))  # earlier versions did not note it
        log = Path(state["log"]) if written_in == str(self.folder.resolve()) else None
        return Resumed(progress, notes, path, log, state["sums"], state["validated_on"], about.get(BEST))

    def newest(
        self, use: Callable[[Path, dict[str, Any]], None] = lambda path, state: None
    ) -> tuple[Path, dict[str, Any], list[str]] | None:
        """Return the newest valid state, its content, and what is wrong with newer ones; None without states.

        Args:
            use: gets the state; if that raises `CheckpointError`, too, the one before is taken.

        Raises:
            UserError: there are states, all of them damaged; or one cannot be read for a reason that may pass. Then
                the one before is not taken: a run that continues from it deletes the newer ones.
        """
        problems: list[str] = []
        for path in self.files():
            try:
                state = load_state(path)
                use(path, state)
                return path, state, problems
            except CheckpointError as error:
                if isinstance(error.__cause__, OSError):
                    blame_system(error.__cause__, path)
                if isinstance(error.__cause__, PermissionError) or out_of_memory(error):
                    raise
                problems.append(str(error))
        if problems:
            raise UserError(f"no state of the run can be read: {'; '.join(problems)}; --resume none starts a new run")
        return None


def check_all_stages(
    output_dir: Path, frames: Mapping[str, list[str]], batch_size: int, epochs: int, max_steps: int | None
) -> None:
    """Refuse to resume all stages if a later one's state does not fit, before earlier ones are trained.

    Args:
        output_dir: the folder of networks and states.
        frames: the frames of each stage, in the order of training.
        batch_size: frames of a step.
        epochs: of each stage.
        max_steps: of each stage, or None.

    Raises:
        UserError: the frames of a stage differ, or finetune has begun and an earlier stage has steps left to train.
    """
    unfinished: list[str] = []
    for stage, wanted in frames.items():
        progress, problems = Progress(), []
        states = CheckpointManager(states_folder(output_dir, stage), keep=1)
        if states.begun() and (found := states.newest()):
            path, state, problems = found
            _check_must_match(path, state["fixed"], {"data": wanted})
            progress = Progress.from_file(state["progress"])
            if stage == "finetune" and progress.step and unfinished:
                raise UserError(
                    f"{path}: finetune has begun, from networks that {' and '.join(unfinished)} would now train on. "
                    "Give each --stage by itself: those with --resume auto, then finetune with --overwrite, which "
                    "begins it again; or finetune alone, with --resume auto"
                )
        if progress.step < progress.last_step(len(wanted), batch_size, epochs, max_steps):
            unfinished.append(f"{stage} ({'; '.join(problems)})" if problems else stage)


def states_folder(output_dir: Path, stage: str) -> Path:
    """Return the folder of a stage's states."""
    return output_dir / "states" / stage


def state_name(step: int) -> str:
    """Return the name of the state after a step."""
    return f"step-{step:09}.pth"


def _check_must_match(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    changed = [name for name, value in wanted.items() if found.get(name) != value]
    if "stage" in changed:  # other differences follow from it
        changed = ["stage"]
    different = [
        _frames_changed(found[name], wanted[name])
        if name == "data"
        else f"{name} was {found.get(name)}, is {wanted[name]}"
        for name in changed
    ]
    if different:
        raise UserError(
            f"{path} cannot be resumed with these arguments: {'; '.join(different)}. Give those that the run was "
            "started with, or another --output_dir for a new run"
        )


def _frames_changed(before: list[str], now: list[str]) -> str:
    parts = [
        f"{len(names):,} {what} ({some(sorted(names), 3)})"
        for names, what in ((set(before) - set(now), "are missing"), (set(now) - set(before), "are new"))
        if names
    ]
    return f"data was {len(before):,} frames, is {len(now):,}: {'; '.join(parts) or 'in another order'}"
