"""A stage of training from where it stands to its last step: steps, epochs, validation, states, interruptions."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from datasets import ImageSet
from models import DeblurringNet, ReblurringNet
from models.checkpoint import STAGE_FILES, CheckpointError
from utils.common.errors import UserError
from utils.common.signals import interruption
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.device import Batch
from utils.runtime.distributed import DistributedContext
from utils.runtime.precision import autocast
from utils.training.checkpointing import CheckpointManager, states_folder
from utils.training.data import TrainingData
from utils.training.learner import Learner
from utils.training.network_files import best_file, save_network
from utils.training.nonfinite_guard import NonFiniteGuard
from utils.training.provenance import frame_list, list_digest, provenance
from utils.training.run_log import NoRunLog, RunLog, new_run_folder
from utils.training.validation import validate

# A stage's losses: the network and a batch give the network's output, the total loss, and its parts for the log.
StageLosses = Callable[[nn.Module, Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]

_WARMUP_STEPS = 3  # before a step is recorded: allocations, the optimiser's state, the kernels' compilation
_WARMUP_STEPS_DISTRIBUTED = 11  # what PyTorch asks for with DistributedDataParallel


class Trainer:
    """Trains one stage; writes its network after every epoch, its state as --save_every says, and both at the end.

    Args:
        stage: one of `STAGE_FILES`.
        args: the training script's arguments.
        network: on this rank's device; it is trained.
        losses: the stage's.
        lr: learning rate of the first epochs.
        image_sets: what it is trained on.
        validation_sets: what it is validated on, with ground truth; may be empty.
        distributed: the processes that train it.
        sources: SHA-256 of the networks that the stage began with, by name. The reblurring network is part of the
            loss, so that it must be the same where a run goes on; another deblurring network is logged.
    """

    def __init__(
        self,
        stage: str,
        args: argparse.Namespace,
        network: DeblurringNet | ReblurringNet,
        losses: StageLosses,
        lr: float,
        image_sets: Sequence[ImageSet],
        validation_sets: Sequence[ImageSet],
        distributed: DistributedContext,
        sources: dict[str, str],
    ) -> None:
        self.stage, self.args, self.distributed, self.losses, self.base_lr = stage, args, distributed, losses, lr
        self.image_sets, self.validation_sets = image_sets, validation_sets
        self.output = args.output_dir / STAGE_FILES[stage]
        # PyTorch's types lack memory_format.
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        network.train()
        self.learner = Learner(network, lr, distributed, args.precision, args.clip_grad, args.ema_decay)

        self.data = TrainingData(image_sets, args, distributed)
        on_cuda = distributed.device.type == "cuda"
        self.deform_op = network.deform_op
        self.recorded = on_cuda and self.deform_op == "fused" and not args.eager
        warmup = _WARMUP_STEPS_DISTRIBUTED if distributed.is_distributed else _WARMUP_STEPS
        self.run_step = CudaGraph(self._step, warmup) if self.recorded else self._step
        self.loss_names: list[str] = []

        self.states = CheckpointManager(states_folder(args.output_dir, stage), args.keep)
        self.must_match = {"stage": stage, "architecture": network.arguments, "data": frame_list(image_sets)}
        if stage == "finetune":
            self.must_match["reblurring_weights"] = sources["reblurring_weights"]
        self.may_change = {
            name: str(value) for name, value in vars(args).items() if name not in ("resume", "overwrite")
        }
        self.may_change |= {"processes": str(distributed.world_size)} | {
            f"{name} SHA-256": each for name, each in sources.items()
        }
        self.validated_on = f"{list_digest(validation_sets)} {bool(args.ema_decay)}"
        self.resumed = self.states.resume(args.resume, self.learner, self.must_match, self.may_change)
        self.progress = self.resumed.progress
        steps = self.progress.last_step(self.data.frames, args.batch_size, args.n_epochs)
        self.last_step = min(steps, args.max_steps or sys.maxsize)
        if len(set(distributed.gather(self.progress.step))) > 1:
            raise UserError(
                f"--resume: the nodes found different states in {self.states.folder}; --output_dir should be on a disk "
                "that all of them share"
            )
        if distributed.is_main:
            self.states.clear(from_step=-1 if args.resume == "none" else self.progress.step)
            if args.resume == "none":
                best_file(self.output).unlink(missing_ok=True)
        if self.resumed.validated_on != self.validated_on or not best_file(self.output).exists():
            self.progress.best_psnr = -math.inf  # of other images, or of a network that is not here
        self.nonfinite_guard = NonFiniteGuard(args.max_bad_steps)
        self.skipped_images: set[str] = set()
        self.stopping = False  # what all ranks know of; each hears signals by itself

    def run(self) -> None:
        """Train until the last step, or until SIGINT or SIGTERM."""
        with ExitStack() as stack:
            self.log = stack.enter_context(self._open_log())
            self.stop = stack.enter_context(interruption())
            first_step = self.progress.step
            self._announce()
            if first_step == 0:
                self._save_state()  # from now on --resume auto finds a run here, whatever ends it
            try:
                self._train()
            except (
                UserError,
                CheckpointError,
            ):  # a broken image, in training or validation: the steps before it are sound
                if not self.nonfinite_guard.consecutive:
                    self._save_state()
                    self.log.line(f"state saved after step {self.progress.step:,}; --resume auto goes on")
                raise
            trained = self.progress.step > first_step
            if trained:
                self._save_state()
            self.distributed.barrier()  # before any of them ends, and torchrun ends the others
            if self.stopping:
                kept = f"; the network so far is in {self.output}, --resume auto goes on" if trained else ""
                self.log.line(f"interrupted after step {self.progress.step:,}{kept}")
                self.stop.end()
            self._log_outputs(trained)

    def _train(self) -> None:
        while True:
            self._validate_if_due()
            self.stopping = any(self.distributed.gather(self.stopping or self.stop.requested is not None))
            if self.stopping or self.progress.step >= self.last_step:
                return
            self._epoch()

    def _log_outputs(self, trained: bool) -> None:
        if trained:
            self.log.line(f"wrote {self.output}; log in {self.log.folder}")
            return
        done = f"nothing left to train: {self.progress.step:,} steps are done, {self.last_step:,} were asked for"
        if self.distributed.is_main and not self.output.exists():
            save_network(self.output, self._network_to_keep, self.stage, self.progress.epoch)
            self.log.line(f"{done}; wrote {self.output}")
        else:
            self.log.line(f"{done}; {self.output} stays")

    def _open_log(self) -> RunLog | NoRunLog:
        if not self.distributed.is_main:
            return NoRunLog()
        folder = self.resumed.log
        if folder is None or not folder.is_dir() or folder.parent.resolve() != self.args.log_dir.resolve():
            folder = new_run_folder(self.args.log_dir, self.stage)
        record = provenance(self.args, [*self.image_sets, *self.validation_sets], self.distributed, self.deform_op)
        return RunLog(folder, self.stage, record, self.last_step, self.progress.step, self.resumed.sums)

    def _announce(self) -> None:
        for note in self.resumed.notes:
            self.log.line(note)
        args, world = self.args, self.distributed.world_size
        parts = (f", {world} processes" if world > 1 else "") + (
            f", {args.accumulate} parts" if args.accumulate > 1 else ""
        )
        self.log.line(
            f"{self.data.frames:,} frames, {self.last_step:,} steps of {args.batch_size} patches of "
            f"{args.patch_size}×{args.patch_size} px{parts}, learning rate {self.base_lr:g}, {args.precision} on "
            f"{self.distributed.device}, deformable convolutions {self.deform_op}"
        )

    def _epoch(self) -> None:
        """Train on what is left of an epoch."""
        progress = self.progress
        images: Batch = {}
        restored: Tensor | None = None
        upcoming = self.data.epoch(progress.epoch, progress.samples_seen)
        for loaded, on_device in self.log.batches(upcoming):
            if self.stop.requested is not None and not self.distributed.is_distributed:
                self.stopping = True
                break
            images = on_device
            lr = self._learning_rate()
            self.learner.set_learning_rate(lr)
            weight = torch.tensor(self.data.batches.weight(progress.samples_seen), device=self.distributed.device)
            restored, numbers = self.run_step(weight=weight, **images)
            upcoming.prepare_next()  # before the GPU is waited for
            names, problems = loaded["name"], loaded["broken"]
            assert isinstance(names, list)
            assert isinstance(problems, list)
            stop_asked, broken = self.stop.requested is not None, [text for text in problems if text]
            *values, stops, breaks = self.distributed.all_reduce_sum(numbers, stop_asked, len(broken))
            progress.advance(self.data.batches.size(progress.samples_seen), self.data.frames)
            if breaks:
                self._count_broken(broken)
            self._after_step([value / self.distributed.world_size for value in values], names, lr)
            self.stopping = stops > 0
            if self.stopping or progress.step == self.last_step:
                break
            if progress.samples_seen:
                self._save_state_if_due()
        if restored is not None:  # there was a step
            # The network before the state: a run killed in between writes it again when resumed.
            if self.distributed.is_main and not self._has_recent_nonfinite_step:
                save_network(self.output, self._network_to_keep, self.stage, progress.epoch)
            columns = {"blurry": images["blurry"], f"{self.stage} output": restored, "sharp": images["sharp"]}
            counts = {"steps skipped": self.nonfinite_guard.total, "images left out": len(self.skipped_images)}
            complete = progress.samples_seen == 0
            self.log.epoch(progress.epoch + (not complete), complete, progress.step, columns, counts)
            self._save_state_if_due()

    def _learning_rate(self) -> float:
        """Return the next step's: it falls by --gamma every --n_steps epochs, and rises in the first --warmup_steps."""
        lr = self.base_lr * self.args.gamma ** (self.progress.epoch // self.args.n_steps)
        warmup = self.args.warmup_steps
        return lr * min(1.0, (self.progress.step + 1) / warmup) if warmup else lr

    def _step(self, weight: Tensor, **batch: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step on this rank's images of a batch, in so many parts as --accumulate says.

        Args:
            weight: of each image, see `SharedBatches.weight`.
            batch: `blurry`, `sharp` and `has_sharp`.

        Returns:
            the network's output, and this rank's part in the losses, the total first, and the gradient's norm.
        """
        outputs: list[Tensor] = []
        losses: list[Tensor] = []

        def loss_of(network: nn.Module, part: Batch) -> Tensor:
            with autocast(self.args.precision, self.distributed.device):
                output, total, each = self.losses(network, part)
            named = {"total": total, **each}
            self.loss_names = list(named)
            share = weight * len(output)
            outputs.append(output.detach())
            losses.append(torch.stack([loss.detach() for loss in named.values()]) * share)
            return total * share

        count = min(self.args.accumulate, len(batch["blurry"]))
        split = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
        norm = self.learner.step([{name: split[name][i] for name in split} for i in range(count)], loss_of)
        sums = sum(losses)
        assert isinstance(sums, Tensor)  # there is a part at least
        return torch.cat(outputs), torch.cat([sums, norm[None]])

    def _after_step(self, values: list[float], names: list[str], lr: float) -> None:
        """Log a step, or count it as skipped: `values` are the losses and the gradient's norm."""
        losses, norm = dict(zip(self.loss_names, values, strict=False)), values[-1]
        if self.nonfinite_guard.is_bad(losses, norm):
            files = [name for each in self.distributed.gather(names) for name in each]
            self.log.skipped(self.nonfinite_guard.report(self.progress.step, losses, norm, files))
        else:
            self.learner.update_average()
            self.log.step(self.progress.step, losses, norm, lr)

    def _count_broken(self, broken: list[str]) -> None:
        for text in (
            text for each in self.distributed.gather(broken) for text in each if text not in self.skipped_images
        ):
            self.skipped_images.add(text)
            self.log.line(f"left out wherever it comes up: {text}")

    def _validate_if_due(self) -> None:
        """Score the network after every --val_every epochs and after the last step, each time once."""
        progress = self.progress
        ended = progress.samples_seen == 0 and progress.epoch % self.args.val_every == 0
        due = 0 < progress.step != progress.validated and (ended or progress.step >= self.last_step)
        if not self.validation_sets or not due or self.stopping:
            return
        result = validate(
            self.learner.result,
            self.validation_sets,
            self.distributed,
            self.args.precision,
            reblurs=self.stage == "reblur",
            recorded=self.recorded,
            stopping=lambda: self.stop.requested is not None,
        )
        if result is None:
            self.stopping = True
            return
        best = result.means["psnr"] > progress.best_psnr
        progress.validated, progress.best_psnr = progress.step, max(result.means["psnr"], progress.best_psnr)
        if best and self.distributed.is_main:
            save_network(best_file(self.output), self._network_to_keep, self.stage, progress.epoch)
        self.log.validation(progress.step, result.means, result.strips, best)
        self._save_state(again=True)

    @property
    def _network_to_keep(self) -> DeblurringNet | ReblurringNet:
        network = self.learner.result
        assert isinstance(network, DeblurringNet | ReblurringNet)
        return network

    @property
    def _has_recent_nonfinite_step(self) -> bool:
        """Whether weights may have diverged, so that they should not replace earlier ones yet."""
        return self.nonfinite_guard.consecutive > 0 and not self.stopping and self.progress.step < self.last_step

    def _save_state_if_due(self) -> None:
        if not self._has_recent_nonfinite_step and self.args.save_every.due(self.progress):
            self._save_state()

    def _save_state(self, again: bool = False) -> None:
        if self.distributed.is_main:
            assert self.log.folder is not None  # the main rank logs
            log = str(self.log.folder.absolute())
            content = {"fixed": self.must_match, "settings": self.may_change, "log": log, "sums": self.log.sums}
            content |= {"validated_on": self.validated_on, **self.learner.state()}
            self.states.save(self.progress, content, again)
