"""Train ASPDC in its three stages: a reblurring network, a deblurring network, and the latter fine-tuned with both.

    python DR_training.py --stage all --trainset_dir /data/GOPRO_Large               # the paper's recipe
    python DR_training.py --stage reblur --trainset_dir gopro=/data/GOPRO_Large      # one stage after the other
    python DR_training.py --stage deblur --trainset_dir gopro=/data/GOPRO_Large
    python DR_training.py --stage finetune --trainset_dir gopro=/data/GOPRO_Large rwbi=/data/RWBI
    python DR_training.py ... --resume auto                                          # resumes a stopped run
    torchrun --nproc_per_node 4 DR_training.py ...                                   # on four GPUs

Defaults are the paper's unless the help states otherwise. Each stage writes one network file to --output_dir.
"""

import argparse
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from datasets import KINDS, BlurSettings, ImageSet
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DEFORM_OPS, MIN_SIZE, DeblurringNet, ReblurringNet, load_deblurring_net, load_reblurring_net
from models.checkpoint import STAGE_FILES
from utils.common.arguments import MOST_WORKERS, ArgumentParser, folder_name, real, settings_of, whole
from utils.common.errors import UserError
from utils.common.signals import end_signals_as_exceptions, interruption
from utils.runtime.cuda_graph import CudaGraph
from utils.runtime.device import pick_deform_op
from utils.runtime.distributed import DistributedContext, init_distributed
from utils.runtime.kernels import compile_kernels
from utils.runtime.precision import PRECISIONS, autocast, set_deterministic, set_precision
from utils.runtime.program_end import user_errors_end_the_program
from utils.training import (
    Batch,
    DataSettings,
    NonFiniteGuard,
    OptimizationSettings,
    Progress,
    SaveEvery,
    Stage,
    StageFiles,
    Step,
    StepOutput,
    StepReader,
    TrainingData,
    TrainingState,
    check_all_stages,
    check_no_overwrite,
    check_outputs_outside_inputs,
    clear_states,
    describe_run,
    find_data,
    frame_list,
    list_digest,
    open_log,
    prepare_data,
    provenance,
    resume_settings,
    run_folders,
    sets_of,
    validate,
)

MAX_WIDTH = 512  # 3.8 billion parameters
WARMUP_STEPS = 3  # before a step is recorded: allocations, optimizer state, compilation of kernels


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    # fmt: off
    add("--stage", choices=(*STAGE_FILES, "all"), default="all", help="stage to train; all trains the three in order")
    add("--trainset_dir", nargs="+", default=["data/GOPRO_Large"], metavar="[KIND=]PATH",
        help=f"data sets: KIND=PATH, of {', '.join(KINDS)}, or a bare path, whose kind is detected; sets without "
             "ground truth are used by finetune only, in the consistency term. sharp=PATH: sharp photographs, blurred "
             "during training. 3*PATH: each frame three times per epoch")
    add("--blur", nargs="+", default=[], metavar="NAME=VALUE",
        help="changes to the settings of the synthetic blur of sharp= photographs, such as share_still=0.2 extent=12 "
             "frames=7,13; datasets/synthesis/motion.py and sensor.py explain them (default: no changes)")
    add("--blur_dir", type=folder_name, default="blur",
        help="name of the folders of blurry images; published results use GoPro's blur, not blur_gamma")
    add("--sharp_dir", type=folder_name, default="sharp",
        help="name of the folders of their sharp partners, beside those of --blur_dir")
    add("--valset_dir", nargs="+", default=[], metavar="[KIND=]PATH",
        help="data sets with ground truth to validate on, such as a few held-out sequences; of a folder with test/ "
             "only that split is used (default: no validation)")
    add("--val_every", type=whole(1), default=20, help="epochs between two validations; there is always one at the end")
    add("--skip_bad_images", action="store_true",
        help="replace a frame that cannot be decoded by the next one, and count it, instead of ending the run. Refused "
             "at the start all the same, since they suggest a wrong or incomplete data set: files whose header cannot "
             "be read, without 8 bits per channel, too small, of another size than their partner, or without partner")
    add("--cache_dir", type=Path,
        help="folder for decoded frames, 2.6 MiB per 1280×720 image (11 GiB for GoPro's training pairs): loading is "
             "many times faster if frames are decoded only once (default: decode at every use)")
    add("--output_dir", type=Path, default=Path("trained"), help="folder for networks and states")
    add("--overwrite", action="store_true", help="replace existing networks and states in --output_dir")
    add("--resume", default="none", metavar="auto|PATH|none",
        help="resume from the newest state in --output_dir, if there is one (auto), or from a state file or folder")
    add("--save_every", type=SaveEvery.parse, default="10min", metavar="AMOUNT",
        help="interval of saved states, such as 10min, 2epochs or 500steps; the end and signals save one, too")
    add("--keep", type=whole(1), default=2, help="number of states to keep, each three times as large as the network")
    add("--reblurring_weights", type=Path,
        help="reblurring network of finetune (default: ReBlurringNet.pth in --output_dir), or initial weights of "
             "--stage reblur (default: random)")
    add("--deblurring_weights", type=Path,
        help="initial weights of finetune (default: DeblurringNet_NF.pth in --output_dir) or of --stage deblur "
             "(default: random)")
    add("--log_dir", type=Path, default=Path("log"),
        help="folder in which each stage creates one with its arguments, text log and TensorBoard events")
    add("--device", default="auto",
        help="auto, cpu, cuda, cuda:1, ..., mps; with torchrun, auto assigns one GPU to each process (default: auto, "
             "which is CUDA if available, else the CPU)")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="implementation of the deformable convolutions; fused by name runs on GPUs from Ampere on, and is "
             "tested first on all but Hopper (default: auto, which is fused on the CPU and on Hopper and newer GPUs, "
             "else mmcv if installed, else torchvision)")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and matrix products; weights, losses and optimizer states stay fp32")
    add("--eager", action="store_true",
        help="disable CUDA graphs, which replay training steps of the fused implementation")
    add("--batch_size", type=whole(1), default=6, help="patches per optimizer step, over all GPUs")
    add("--accumulate", type=whole(1), default=1,
        help="micro-batches per optimizer step (gradient accumulation): less memory, the same --batch_size")
    add("--patch_size", type=whole(MIN_SIZE, limit=4096), default=256, help="side length of the square patches in px")
    add("--n_epochs", type=whole(1), default=1000, help="epochs per stage")
    add("--max_steps", type=whole(1), help="maximum number of optimizer steps per stage (default: no limit)")
    add("--lr", type=real(0, above=True),
        help="initial learning rate of Adam in every stage that runs (default: 1e-4, in finetune 1e-5)")
    add("--warmup_steps", type=whole(0), default=0,
        help="steps over which the learning rate rises linearly to --lr; useful for trained initial weights, which "
             "Adam's first steps would harm (default: 0, no warmup)")
    add("--gamma", type=real(0, above=True, limit=1), default=0.5,
        help="factor on the learning rate every --n_steps epochs")
    add("--n_steps", type=whole(1), default=200, help="epochs between two halvings (see --gamma) of the learning rate")
    add("--clip_grad", type=real(0, above=True),
        help="maximum norm of the gradient, to which larger ones are clipped (default: no clipping)")
    add("--max_bad_steps", type=whole(1), default=20,
        help="consecutive skipped steps, with a loss or gradient that is not finite, that end the run")
    add("--ema_decay", type=real(0, below=1), default=0.0,
        help="decay of the weights' exponential moving average, which is then validated and saved (default: 0, off)")
    add("--lambda_A", type=real(0), default=1.0, help="weight of the loss against the sharp image in finetune")
    add("--lambda_B", type=real(0), default=0.1, help="weight of the reblurring consistency loss in finetune")
    add("--width", type=int, default=32,
        help="channels of a new deblurring network, twice those of a new reblurring network; the paper's are 32")
    add("--num_workers", type=whole(0, limit=MOST_WORKERS), default=min(8, os.cpu_count() or 1),
        help="data loading processes per GPU, or 0 for none (default: the number of CPU cores, at most 8)")
    add("--seed", type=whole(0, 2**32 - 1), default=0, help="seed of initial weights, order of frames and patches")
    add("--deterministic", action="store_true",
        help="use deterministic, slower algorithms on the GPU, for bit-identical results; on the CPU they always are")
    # fmt: on
    args = parser.parse_args(argv)
    try:
        BlurSettings().changed(args.blur)
    except UserError as error:
        parser.error(f"--blur {error}")
    if args.width not in range(2, MAX_WIDTH + 1, 2):
        parser.error(f"--width should be an even number from 2 to {MAX_WIDTH}")
    if args.resume == "auto" and args.overwrite:
        parser.error("--resume auto continues an existing run, --overwrite replaces it: give one of the two")
    if args.stage == "all" and args.resume not in ("auto", "none"):
        parser.error("--resume PATH goes with one --stage; --stage all resumes with --resume auto")
    for name, stage in (("reblurring_weights", "reblur"), ("deblurring_weights", "deblur")):
        if getattr(args, name) and args.stage not in (stage, "finetune"):
            parser.error(f"--{name} goes with --stage {stage} or finetune")
    return args


class Reblur(Stage):
    """L(R(blurry, sharp), blurry): a reblurring network, new unless one is given, learns to blur the sharp image."""

    name, parts = "reblur", ("reblur",)

    def __init__(self, network: ReblurringNet) -> None:
        super().__init__()
        self.network, self.criterion = network, NormalizedMSELoss()

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch, see `Stage`."""
        reblurred = self.network(batch["blurry"], batch["sharp"])
        loss = self.criterion(reblurred, batch["blurry"])
        return StepOutput(loss, {"reblur": loss}, reblurred)


class Deblur(Stage):
    """L(D(blurry), sharp): a deblurring network, new unless one is given, learns from the ground truth alone."""

    name, parts = "deblur", ("deblur",)

    def __init__(self, network: DeblurringNet) -> None:
        super().__init__()
        self.network, self.criterion = network, NormalizedMSELoss()

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch, see `Stage`."""
        deblurred = self.network(batch["blurry"])
        loss = self.criterion(deblurred, batch["sharp"])
        return StepOutput(loss, {"deblur": loss}, deblurred)


class Finetune(Stage):
    """λA·L(D(blurry), sharp) + λB·L(R(blurry, D(blurry)), blurry) with R frozen; the first term only where paired."""

    name, parts, lr = "finetune", ("deblur", "reblur"), 1e-5

    def __init__(self, network: DeblurringNet, reblurring: ReblurringNet, lambda_a: float, lambda_b: float) -> None:
        super().__init__()
        self.network, self.criterion = network, NormalizedMSELoss(reduction="none")
        self.consistency, self.lambda_a, self.lambda_b = ReblurringConsistencyLoss(reblurring), lambda_a, lambda_b

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch, see `Stage`."""
        deblurred = self.network(batch["blurry"])
        # The mean over all images, so that an image's weight does not depend on the others in its batch.
        deblur = (self.criterion(deblurred, batch["sharp"]) * batch["has_sharp"]).mean()
        reblur = self.consistency(batch["blurry"], deblurred)
        loss = self.lambda_a * deblur + self.lambda_b * reblur
        return StepOutput(loss, {"deblur": deblur, "reblur": reblur}, deblurred)


def make_stage(name: str, args: argparse.Namespace, device: torch.device) -> Stage:
    """Return a stage on its device, with the networks that it starts from."""
    files = weight_files(name, args)
    blurs, sharpens = files.get("reblurring_weights"), files.get("deblurring_weights")
    stage: Stage
    if name == "reblur":
        stage = Reblur(load_reblurring_net(blurs) if blurs else ReblurringNet(args.width // 2))
    elif name == "deblur":
        stage = Deblur(load_deblurring_net(sharpens) if sharpens else DeblurringNet(args.width))
    else:
        reblurring = load_reblurring_net(files["reblurring_weights"])
        stage = Finetune(load_deblurring_net(files["deblurring_weights"]), reblurring, args.lambda_A, args.lambda_B)
    width = stage.network.arguments["width"] * (2 if name == "reblur" else 1)
    if width != args.width:
        print(f"--width {args.width} is for new networks: those that were given have a width of {width}")
    for each in (each for each in stage.modules() if isinstance(each, DeblurringNet | ReblurringNet)):
        each.deform_op = pick_deform_op(args.deform_op, device, width, args.precision, training=True)
    # PyTorch's types lack memory_format.
    stage.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    stage.network.train()
    return stage


def weight_files(stage: str, args: argparse.Namespace) -> dict[str, Path]:
    """Return the files of the networks that a stage reads."""
    given = {name: path for name in ("reblurring_weights", "deblurring_weights") if (path := getattr(args, name))}
    of_stages = {"reblurring_weights": STAGE_FILES["reblur"], "deblurring_weights": STAGE_FILES["deblur"]}
    return {name: args.output_dir / file for name, file in of_stages.items() if stage == "finetune"} | given


def training_step(
    stage: Stage, training: TrainingState, *, weight: Tensor, notes: Tensor, **batch: Tensor
) -> tuple[Tensor, Tensor]:
    """Take a step on this rank's images of a batch; if it is not finite, the weights stay unchanged.

    Args:
        stage: whose loss is minimised.
        training: the network and its optimizer.
        weight: weight of each image, see `SharedBatches.weight`.
        notes: numbers that ranks tell each other, see `StepReader.notes`.
        batch: see `Stage.forward`.

    Returns:
        the network's output; and the losses, the total first, and the notes, means over all ranks, then the
        gradient's norm.
    """
    settings = training.settings
    training.zero_grad()
    count = min(settings.accumulate, len(batch["blurry"]))
    split = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
    images, numbers = [], torch.cat([notes.new_zeros(1 + len(stage.parts)), notes])
    for i in range(count):
        with autocast(settings.precision, weight.device):
            output: StepOutput = stage({name: parts[i] for name, parts in split.items()})
        share = weight * len(output.image)
        loss = output.loss * share
        # An infinite loss can have a finite gradient.
        finite = torch.where(loss.detach().isfinite(), 1.0, torch.nan)
        losses = torch.stack([each.detach() for each in (output.loss, *output.parts.values())])
        numbers[: len(losses)] += losses * share
        training.backward(loss * finite, numbers if i == count - 1 else None)
        images.append(output.image.detach())
    training.scaler.unscale_(training.optimizer)
    norm = training.clip_gradient()
    training.scaler.step(training.optimizer)
    training.scaler.update(None if training.scales_loss else 1.0)
    if training.average is not None:
        training.average.update(norm.isfinite())
    return torch.cat(images), torch.cat([numbers, norm[None]])


def learning_rate(base: float, progress: Progress, args: argparse.Namespace) -> float:
    """Return the next step's: it falls by --gamma every --n_steps epochs, and rises in the first --warmup_steps."""
    lr = base * args.gamma ** (progress.epoch // args.n_steps)
    return lr * min(1.0, (progress.step + 1) / args.warmup_steps) if args.warmup_steps else lr


def train_stage(
    stage: Stage,
    args: argparse.Namespace,
    image_sets: Sequence[ImageSet],
    validation_sets: Sequence[ImageSet],
    distributed: DistributedContext,
) -> None:
    """Train a stage from its first step, or that of the state it resumes, to the last, or until a signal."""
    data = TrainingData(image_sets, settings_of(DataSettings, vars(args)), distributed)
    base_lr, settings = stage.lr if args.lr is None else args.lr, settings_of(OptimizationSettings, vars(args))
    training = TrainingState(stage.network, base_lr, settings, distributed.gradient_mean)
    validated_on = f"{list_digest(validation_sets)} {bool(args.ema_decay)}"
    files = StageFiles(args.output_dir, stage.name, args.keep, training, validated_on, distributed)
    weights = weight_files(stage.name, args)
    compared = resume_settings(stage, vars(args), vars(parse_args([])), weights, image_sets, distributed)
    resumed = files.resume(args.resume, compared)
    progress, first_step = resumed.progress, resumed.progress.step
    last_step = progress.last_step(data.frames, args.batch_size, args.n_epochs, args.max_steps)

    step = partial(training_step, stage, training)
    recorded = distributed.device.type == "cuda" and stage.network.deform_op == "fused" and not args.eager
    steps = StepReader(("total", *stage.parts), NonFiniteGuard(args.max_bad_steps), distributed)
    record = provenance(vars(args), [*image_sets, *validation_sets], distributed, stage.network.deform_op)
    stopping = False
    with (
        interruption() as stop,
        stage.frozen_weights_cached(),
        # A recorded graph is released before the process group.
        CudaGraph(step, WARMUP_STEPS) if recorded else nullcontext(step) as run_step,
        open_log(args.log_dir, stage.name, record, last_step, resumed, distributed.is_main) as log,
        files.saved_on_error(progress, log, steps),
    ):
        for line in describe_run(vars(args), data.frames, last_step, base_lr, distributed, stage.network.deform_op):
            log.line(line)
        if recorded:
            data.start(progress.epoch, progress.samples_seen)  # while kernels are compiled
            share = math.ceil(args.batch_size / distributed.world_size / args.accumulate)
            compile_kernels(partial(stage.dry_run, share, args.patch_size, args.precision), distributed, log.line)
        if resumed.log is None:  # the run begins
            files.save_state(progress, log)  # --resume auto finds it from now on, however it ends
        while True:
            if validation_sets and not stopping and progress.validation_due(args.val_every, last_step):
                scores = validate(files.network, validation_sets, distributed, args.precision,
                                  recorded=recorded, stop=stop, log=log.line)  # fmt: skip
                stopping = not files.keep_best(progress, scores, log)
            stopping = distributed.any(stopping or bool(stop.requested))
            if stopping or progress.step >= last_step:
                break
            images, restored = {}, None
            upcoming = data.epoch(progress.epoch, progress.samples_seen)
            for batch in log.batches(upcoming):
                if stop.requested and not distributed.is_distributed:
                    stopping = True
                    break
                lr = learning_rate(base_lr, progress, args)
                training.set_learning_rate(lr)
                weight = torch.full((), data.batches.weight(progress.samples_seen), device=distributed.device)
                images = batch.images
                notes = steps.notes(bool(stop.requested), batch.broken)
                restored, numbers = run_step(weight=weight, notes=notes, **images)
                upcoming.prepare_next()  # while the GPU computes
                progress.advance(data.batches.size(progress.samples_seen), data.frames)
                launched = Step(progress.step, lr, batch.names, batch.broken)
                stopping = steps.add(launched, numbers, log)
                if stopping or progress.step == last_step:
                    break
                due = progress.samples_seen and steps.last_read_finite and args.save_every.due(progress)
                if due and steps.read_ahead(log):  # other ranks may find that it is not due
                    files.save_state(progress, log)
            if restored is not None:  # there was a step
                stopping |= steps.read_all(log)
                keep = steps.last_read_finite or stopping or progress.step == last_step
                if keep:  # before the state: a run killed in between writes it again when resumed
                    files.save_network(progress.epoch)
                log.epoch(progress, images["blurry"], restored, images["sharp"], steps.images_left_out)
                if keep and args.save_every.due(progress):
                    validated_next = validation_sets and progress.validation_due(args.val_every, last_step)
                    files.save_state(progress, log, sound=stopping or not validated_next)
        files.finish(progress, first_step, last_step, stopping, steps, log)
    if distributed.any(stopping or bool(stop.requested)):  # a signal may have come since the last step
        stop.end()


def main(args: argparse.Namespace) -> None:
    """Find the images, then train the requested stages; torchrun calls this once per GPU."""
    with init_distributed(args.device) as distributed, ExitStack() as until_the_end:
        stages = list(STAGE_FILES) if args.stage == "all" else [args.stage]
        set_deterministic(args.deterministic)  # before anything is computed
        # An error before data are read.
        pick_deform_op(args.deform_op, distributed.device, args.width, args.precision, training=True)
        set_precision(args.precision, distributed.device)
        if distributed.is_main:
            until_the_end.enter_context(run_folders(args.output_dir, args.log_dir))
            check_no_overwrite(args.output_dir, stages, args.resume, args.overwrite)
        sides = args.blur_dir, args.sharp_dir
        image_sets, validation_sets = find_data(args.trainset_dir, args.valset_dir, sides, args.blur, stages)
        check_outputs_outside_inputs(image_sets, args.output_dir, args.log_dir, args.cache_dir)
        prepare_data(sets_of(stages[-1], image_sets), settings_of(DataSettings, vars(args)), distributed)
        if args.stage == "all" and args.resume == "auto":
            frames = {name: frame_list(sets_of(name, image_sets)) for name in stages}
            check_all_stages(args.output_dir, frames, args.batch_size, args.n_epochs, args.max_steps)
        for name in stages:
            torch.manual_seed(args.seed)
            stage = make_stage(name, args, distributed.device)
            if name == stages[0] and args.resume == "none" and distributed.is_main:
                clear_states(args.output_dir, stages[1:])
            train_stage(stage, args, sets_of(name, image_sets), validation_sets, distributed)


if __name__ == "__main__":
    with user_errors_end_the_program(), end_signals_as_exceptions():
        main(parse_args())
