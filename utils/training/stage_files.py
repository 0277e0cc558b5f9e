"""The files that a stage of training writes: its network, the best one, and its states."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from models import DeblurringNet, ReblurringNet, load_deblurring_net, load_reblurring_net
from models.checkpoint import STAGE_FILES, CheckpointError
from utils.common.errors import UserError, counted, some
from utils.common.files import check_writable, exists, file_digest, lock_output_dir, remove_stale
from utils.runtime.distributed import DistributedContext
from utils.runtime.program_end import end_of
from utils.training.checkpointing import BEST, STATES, CheckpointManager, Resumed, states_folder
from utils.training.network_files import best_file, save_network
from utils.training.optimization import TrainingState
from utils.training.progress import Progress
from utils.training.provenance import ResumeSettings, tensors_digest
from utils.training.run_log import Log
from utils.training.step_numbers import StepReader
from utils.training.validation import INPUT, Validation


class StageFiles:
    """Reads a stage's state on every rank, and writes its files on the main one.

    Args:
        output_dir: folder of the network.
        stage: its name.
        keep: number of states to keep.
        training: what is saved.
        validated_on: the data and weights of the best PSNR.
        distributed: the ranks.
    """

    def __init__(
        self,
        output_dir: Path,
        stage: str,
        keep: int,
        training: TrainingState,
        validated_on: str,
        distributed: DistributedContext,
    ) -> None:
        self.output, self._stage = output_dir / STAGE_FILES[stage], stage
        self._training, self._validated_on, self._distributed = training, validated_on, distributed
        self._states = CheckpointManager(states_folder(output_dir, stage), keep)
        self._compared = ResumeSettings({}, {})

    def resume(self, which: str, settings: ResumeSettings) -> Resumed:
        """Restore the training state of a stopped run, see `CheckpointManager.resume`; later states are removed.

        From a state elsewhere a run of its own begins: the states here, and a best network that the state does not
        know, are another run's, and are removed.

        Raises:
            UserError: it cannot be restored, or ranks found different states.
        """
        self._compared, best = settings, best_file(self.output)
        resumed = self._states.resume(which, self._training, settings)
        digest = self._best_digest()
        if len(set(self._distributed.gather(resumed.progress.step))) > 1:
            raise UserError(
                f"--resume: the nodes found different states in {self._states.folder}; give an --output_dir on a "
                "disk that they share"
            )
        here = resumed.state is not None and resumed.state.parent.resolve() == self._states.folder.resolve()
        of_earlier_versions = digest if here else ""  # they did not note it
        ours = digest == (of_earlier_versions if resumed.best is None else resumed.best)
        if self._distributed.is_main:
            self._states.clear(resumed.progress.step if here else -1)
            if not here and not ours:
                best.unlink(missing_ok=True)
        if not digest or not ours or resumed.validated_on != self._validated_on:
            resumed.progress.best_psnr = -math.inf  # of other images, or of another network than is there
        return resumed

    def _best_digest(self) -> str:
        """Return the SHA-256 of the best network, nothing where there is none."""
        best = best_file(self.output)
        return file_digest(best) if best.exists() else ""

    @property
    def network(self) -> DeblurringNet | ReblurringNet:
        """The network to validate and save: with averaged weights if there are any."""
        network = self._training.result
        assert isinstance(network, DeblurringNet | ReblurringNet)
        return network

    def save_network(self, epoch: int, best: bool = False, only_missing: bool = False) -> bool:
        """Write the network after an epoch, or the best one; return whether it was written."""
        path = best_file(self.output) if best else self.output
        if not self._distributed.is_main or (only_missing and path.exists()):
            return False
        save_network(path, self.network, self._stage, epoch)
        return True

    def _is_written(self) -> bool:
        """Return whether the file holds the network as it is."""
        load = load_reblurring_net if isinstance(self.network, ReblurringNet) else load_deblurring_net
        try:
            return tensors_digest(load(self.output)) == tensors_digest(self.network)
        except CheckpointError:
            return False

    def save_state(self, progress: Progress, log: Log, again: bool = False, sound: bool = True) -> None:
        """Write the state; if it was written for this step already, only with `again`.

        sound: nothing is left to find that the network has diverged. Else the states before it stay, until the next.
        """
        if self._distributed.is_main:
            assert log.folder is not None  # the main rank logs
            written = {STATES: str(self._states.folder.resolve()), BEST: self._best_digest()}
            about = {"fixed": self._compared.must_match, "settings": self._compared.may_change | written}
            about |= {"validated_on": self._validated_on, "log": str(log.folder.absolute()), "sums": log.sums}
            self._states.save(progress, {**about, **self._training.to_file()}, again, remove_oldest=sound)

    def finish(
        self, progress: Progress, first_step: int, last_step: int, stopping: bool, steps: StepReader, log: Log
    ) -> None:
        """Write the state after the last step, and a missing network; log the paths, and whether steps were skipped."""
        trained = progress.step > first_step
        if trained:
            self.save_state(progress, log)
        self._distributed.barrier()  # before any rank ends, and torchrun ends the others
        verb = "is" if progress.step == 1 else "are"
        done = f"nothing left to train: {counted(progress.step, 'step')} {verb} done, {last_step:,} were requested"
        if stopping:
            kept = f"; the network so far is {self.output}, continue with --resume auto" if trained else ""
            log.line(f"interrupted after step {progress.step:,}{kept}")
        elif trained:
            log.line(f"wrote {self.output}; log in {log.folder}")
        elif self.save_network(progress.epoch, only_missing=True):
            log.line(f"{done}; wrote {self.output}")
        elif self._is_written():
            log.line(f"{done}; {self.output} is unchanged")
        else:
            log.line(
                f"WARNING: {done}; {self.output} is unchanged, but not the network of step {progress.step:,}: to have "
                "that written, move the file away and resume again"
            )
        if progress.step > last_step:
            log.line(f"WARNING: the run stays at step {progress.step:,}, which is later than requested")
        if not steps.last_read_finite:
            log.line(
                f"WARNING: skipped {counted(log.steps_skipped, 'step')} of {progress.step:,}, the last one, too: the "
                "network may have diverged. Score it, or go back to a state before, "
                f"--resume {self._states.folder}/step-N.pth --overwrite, with a lower --lr or --clip_grad"
            )

    def keep_best(self, progress: Progress, result: Validation | None, log: Log) -> bool:
        """Log a validation, save the network if it is the best so far, and write the state; return False if None."""
        if result is None:
            return False
        progress.validated = progress.step  # also if memory did not suffice: a resumed run does not try again
        if result.too_large:
            log.line(
                f"validation, step {progress.step:,}: skipped, not enough memory for {some(result.too_large)}; "
                "free some, or give smaller images as --valset_dir"
            )
        else:
            psnr, before = result.means["psnr"], progress.best_psnr
            progress.best_psnr = max(psnr, before)
            if psnr > before:
                self.save_network(progress.epoch, best=True)
            log.validation(progress.step, result.means, result.strips, psnr > before)
            if psnr < result.means[INPUT]:
                log.line(self._worse_than_the_input(result.means[INPUT] - psnr, before > result.means[INPUT]))
        self.save_state(progress, log, again=True)
        return True

    def _worse_than_the_input(self, by: float, was_better: bool) -> str:
        """Return a warning, which a new network's first validations get, too: its words tell the two apart."""
        if was_better:
            advice = f"and was better before: {best_file(self.output)} is the best network; give a lower --lr"
        else:
            advice = "as a new network's is at first; if it stays so, lower --lr, or run `python -m tools.check_data`"
        return f"WARNING: the output is {by:.2f} dB worse than the input, {advice}"

    @contextmanager
    def saved_on_error(self, progress: Progress, log: Log, steps: StepReader) -> Iterator[None]:
        """Save the state if an error ends the block, `ENDS` allows it and the last step is finite."""
        try:
            yield
        except Exception as error:
            end = end_of(error)
            with suppress(Exception):  # report the original error, even if saving fails
                if (end is None or end.saved) and steps.read_ahead(log):
                    self.save_state(progress, log, sound=False)
                    log.line(f"state saved after step {progress.step:,}; continue with --resume auto")
            raise


@contextmanager
def run_folders(output_dir: Path, log_dir: Path) -> Iterator[None]:
    """Create the folders of a run's files, and lock that of its networks; delete what killed runs left half-written.

    At the end, a folder that was not there before and is empty is removed.

    Raises:
        UserError: one cannot be created or written in, or another run writes into `output_dir`.
    """
    made = not exists(log_dir)
    with lock_output_dir(output_dir, "--output_dir"):
        try:
            check_writable(log_dir, "--log_dir")
            states = [states_folder(output_dir, stage) for stage in STAGE_FILES]
            remove_stale((output_dir, *log_dir.glob("*")), locked=states)  # other runs may write logs
            yield
        finally:
            if made:
                with suppress(OSError):
                    log_dir.rmdir()


def clear_states(output_dir: Path, stages: Sequence[str]) -> None:
    """Remove states of the later stages of a new run: stopped in its first one, it would resume these from them."""
    for stage in stages:
        CheckpointManager(states_folder(output_dir, stage), 1).clear(-1)


def check_no_overwrite(output_dir: Path, stages: Sequence[str], resume: str, overwrite: bool) -> None:
    """Refuse to start if a stage would replace a network or states of another run.

    Args:
        output_dir: folder of the networks.
        stages: their names.
        resume: see `CheckpointManager.resume`.
        overwrite: whether they may be replaced.

    Raises:
        UserError: one would be replaced.
    """
    for stage in stages:
        output, manager = output_dir / STAGE_FILES[stage], CheckpointManager(states_folder(output_dir, stage), 1)
        states, begun = manager.files(), manager.begun()  # the latter with a step that would be lost
        networks = [path for path in (output, best_file(output)) if path.exists()]
        newest = {str(each.resolve()) for each in states[:1] for each in (each, each.parent)}
        resumes = states and (resume == "auto" or str(Path(resume).resolve()) in newest)
        if overwrite or resumes or not (networks or begun):
            continue
        what = f"{networks[0]} exists already" if networks else f"{states[0]} is the state of a stopped run"
        if resume == "auto":  # which does not go with --overwrite
            raise UserError(f"{what}, and has no states to continue from; move it away, or give another --output_dir")
        how = ["--resume auto to continue it"] if begun else []
        raise UserError(f"{what}; give {', '.join([*how, '--overwrite to replace it', 'or another --output_dir'])}")
