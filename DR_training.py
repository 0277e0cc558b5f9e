"""Train ASPDC in its three stages: a reblurring network, a deblurring network, and the latter fine-tuned with both.

    python DR_training.py --stage all --trainset_dir /data/GOPRO_Large               # the paper's recipe
    python DR_training.py --stage reblur --trainset_dir gopro=/data/GOPRO_Large      # one stage after the other
    python DR_training.py --stage deblur --trainset_dir gopro=/data/GOPRO_Large
    python DR_training.py --stage finetune --trainset_dir gopro=/data/GOPRO_Large rwbi=/data/RWBI
    python DR_training.py ... --resume auto                                          # goes on where it was stopped

Every default is the paper's unless its help says otherwise. Each stage leaves one file in --output_dir.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets import FrameCache, ImageSet, TrainingPatches, find_images, parse_source, training_loader
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet
from models.aspdc import ASPDC_OPS
from models.blocks import MIN_SIZE
from utils.capture import Captured
from utils.checkpoint import STAGE_FILES, load_deblurring_net, load_reblurring_net, save_network
from utils.device import pick_deform_op, pick_device
from utils.errors import UserError, user_errors_end_the_program
from utils.files import check_writable
from utils.interruption import interruption
from utils.learner import Learner
from utils.precision import PRECISIONS, autocast, set_precision
from utils.run_log import RunLog
from utils.run_state import RunState, SaveEvery, data_digest

WARMUP_STEPS = 3  # before a step is recorded: allocations, the optimiser's state, the kernels' compilation
MAX_WIDTH = 512  # 3.8 billion parameters
STAGE_LR = {"reblur": 1e-4, "deblur": 1e-4, "finetune": 1e-5}  # the paper gives finetune's only

Batch = dict[str, Tensor]
# A stage's losses: the network and a batch give the network's output, the total loss, and its parts for the log.
StageLosses = Callable[[nn.Module, Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    # fmt: off
    add("--stage", choices=(*STAGE_FILES, "all"), default="all",
        help="which stage to train; all runs the three in turn")
    add("--trainset_dir", nargs="+", default=["data/GOPRO_Large"], metavar="[KIND=]PATH",
        help="data sets: gopro=, hide=, rwbi=, paired= or unpaired=PATH, or a bare path to be recognised; sets without "
             "ground truth take part in finetune only, through the consistency term")
    add("--blur_dir", default="blur",
        help="name of the blurry folders beside sharp/; the published numbers are for GoPro's blur, not its blur_gamma")
    add("--cache_dir", type=Path,
        help="folder for decoded frames, 2.6 MiB for each 1280×720 image (11 GiB for GoPro's training pairs): decoding "
             "them once makes the data many times faster (default: decode at every use)")
    add("--output_dir", type=Path, default=Path("final_model"), help="where each stage writes its network")
    add("--overwrite", action="store_true", help="replace networks that --output_dir already holds")
    add("--resume", default="none", metavar="auto|PATH|none",
        help="go on from the newest state in --output_dir, where there is one (auto), or from a state file or folder")
    add("--save_every", type=SaveEvery.parse, default="10min", metavar="AMOUNT",
        help="how often the state to resume from is saved, such as 10min, 2epochs or 500steps; it is at the end, on "
             "Ctrl-C and on SIGTERM, too")
    add("--keep", type=int, default=2, help="how many states are kept, each three times as large as the network")
    add("--reblurring_weights", type=Path,
        help="finetune's reblurring network (default: ReBlurringNet.pth in --output_dir)")
    add("--deblurring_weights", type=Path,
        help="where finetune starts (default: DeblurringNet_NF.pth in --output_dir)")
    add("--log_dir", type=Path, default=Path("log"),
        help="where each stage makes a folder with its arguments, text log and TensorBoard events")
    add("--device", default="auto", help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, ...")
    add("--deform_op", choices=ASPDC_OPS, default="auto",
        help="back end of the deformable convolutions; auto is fused on the CPU and on GPUs from Hopper on, elsewhere "
             "mmcv if installed, else torchvision")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and products; weights, losses and the optimiser stay fp32")
    add("--eager", action="store_true",
        help="launch each kernel by itself, where fused steps on CUDA are else recorded once and replayed")
    add("--batch_size", type=int, default=6, help="patches in a step")
    add("--patch_size", type=int, default=256, help="side of the square patches in px")
    add("--n_epochs", type=int, default=1000, help="passes over the frames, in each stage")
    add("--max_steps", type=int, help="end each stage after so many steps (default: no limit)")
    add("--lr", type=float,
        help="Adam's learning rate, for every stage that runs (default: 1e-4, 1e-4 and, in finetune, 1e-5)")
    add("--gamma", type=float, default=0.5, help="factor on the learning rate every --n_steps epochs")
    add("--n_steps", type=int, default=200, help="epochs between two changes of the learning rate")
    add("--lambda_A", type=float, default=1.0, help="finetune: weight of the loss against the sharp image")
    add("--lambda_B", type=float, default=0.1, help="finetune: weight of the reblurring consistency loss")
    add("--width", type=int, default=32,
        help="channels of a new deblurring network at full size (a new reblurring network has half as many); 32 is the "
             "paper's, less is for trials")
    add("--num_workers", type=int, default=min(8, os.cpu_count() or 1),
        help="processes that read and augment images; 0 does it in the main process")
    add("--seed", type=int, default=0, help="of the initial weights, the order of the frames and the patches")
    # fmt: on
    args = parser.parse_args(argv)
    for name in ("batch_size", "n_epochs", "max_steps", "n_steps", "keep"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} should be at least 1")
    for name in ("lr", "gamma"):
        if getattr(args, name) is not None and not 0 < getattr(args, name) < math.inf:
            parser.error(f"--{name} should be a number above 0")
    for name in ("lambda_A", "lambda_B"):
        if not 0 <= getattr(args, name) < math.inf:
            parser.error(f"--{name} should be a number from 0 up")
    if args.patch_size < MIN_SIZE:
        parser.error(f"--patch_size should be at least {MIN_SIZE}")
    if args.width not in range(2, MAX_WIDTH + 1, 2):
        parser.error(f"--width should be an even number from 2 to {MAX_WIDTH}")
    if args.num_workers < 0:
        parser.error("--num_workers should be 0 (read in the main process) or more")
    if args.seed not in range(2**32):
        parser.error("--seed should be from 0 to 4294967295")
    if args.stage == "all" and args.resume not in ("auto", "none"):
        parser.error("--resume PATH goes with one --stage; --stage all resumes with --resume auto")
    if args.stage != "finetune" and (args.reblurring_weights or args.deblurring_weights):
        parser.error("--reblurring_weights and --deblurring_weights go with --stage finetune")
    return args


def reblur_stage(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, StageLosses]:
    """L(R(blurry, sharp), blurry): a new reblurring network learns to blur the sharp image."""
    criterion = NormalizedMSELoss().to(device)

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        reblurred = network(batch["blurry"], batch["sharp"])
        loss = criterion(reblurred, batch["blurry"])
        return reblurred, loss, {"reblur": loss}

    return ReblurringNet(args.width // 2).to(device), losses


def deblur_stage(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, StageLosses]:
    """L(D(blurry), sharp): a new deblurring network learns from the ground truth alone."""
    criterion = NormalizedMSELoss().to(device)

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        deblurred = network(batch["blurry"])
        loss = criterion(deblurred, batch["sharp"])
        return deblurred, loss, {"deblur": loss}

    return DeblurringNet(args.width, deform_op=args.deform_op).to(device), losses


def finetune_stage(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, StageLosses]:
    """λA·L(D(blurry), sharp) + λB·L(R(blurry, D(blurry)), blurry) with R frozen; the first term only where paired."""
    reblurring_weights = args.reblurring_weights or args.output_dir / STAGE_FILES["reblur"]
    deblurring_weights = args.deblurring_weights or args.output_dir / STAGE_FILES["deblur"]
    criterion = NormalizedMSELoss(reduction="none").to(device)
    consistency = ReblurringConsistencyLoss(load_reblurring_net(reblurring_weights))
    consistency.to(device, memory_format=torch.channels_last)

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        deblurred = network(batch["blurry"])
        # A mean over all images, so that an image weighs the same whatever else is in its batch.
        deblur = (criterion(deblurred, batch["sharp"]) * batch["paired"]).mean()
        reblur = consistency(batch["blurry"], deblurred)
        return deblurred, args.lambda_A * deblur + args.lambda_B * reblur, {"deblur": deblur, "reblur": reblur}

    return load_deblurring_net(deblurring_weights, device, deform_op=args.deform_op), losses


STAGES = {"reblur": reblur_stage, "deblur": deblur_stage, "finetune": finetune_stage}


def train_stage(stage: str, args: argparse.Namespace, image_sets: list[ImageSet], device: torch.device) -> None:
    """Train one stage; write its network after every epoch, its state as --save_every says, and both at the end."""
    torch.manual_seed(args.seed)
    network, stage_losses = STAGES[stage](args, device)
    network.to(memory_format=torch.channels_last).train()
    base_lr = STAGE_LR[stage] if args.lr is None else args.lr
    learner = Learner(network, base_lr, device, args.precision)
    used_sets = [image_set for image_set in image_sets if image_set.paired or stage == "finetune"]
    patches = TrainingPatches(used_sets, args.patch_size, FrameCache(args.cache_dir) if args.cache_dir else None)
    on_cuda = device.type == "cuda"
    loader, order = training_loader(patches, args.batch_size, args.seed, args.num_workers, on_cuda)

    def train_on(**batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(args.precision, device):
            restored, loss, parts = stage_losses(network, batch)
        learner.step(loss)
        return restored.detach(), {name: each.detach() for name, each in ({"total": loss} | parts).items()}

    width = args.width if stage == "reblur" else network.arguments["width"]
    deform_op = pick_deform_op(args.deform_op, device, width)
    recorded = on_cuda and deform_op == "fused" and not args.eager
    run_step = Captured(train_on, WARMUP_STEPS) if recorded else train_on

    states = RunState(states_folder(args, stage), args.keep)
    fixed = {"stage": stage, "architecture": network.arguments, "data": data_digest(used_sets)}
    settings = {name: str(value) for name, value in vars(args).items() if name not in ("resume", "overwrite")}
    progress, notes = states.resume(args.resume, learner, fixed, settings)
    first_step, last_step = progress.step, progress.last_step(len(patches), args.batch_size, args.n_epochs)
    last_step = min(last_step, args.max_steps or sys.maxsize)
    output = args.output_dir / STAGE_FILES[stage]

    def save_state() -> None:
        states.save(progress, {"fixed": fixed, "settings": settings, **learner.state()})

    with RunLog(args.log_dir, stage, vars(args), last_step, first_step) as log, interruption() as stop:
        for note in notes:
            log.line(note)
        log.line(
            f"{len(patches):,} frames, {last_step:,} steps of {args.batch_size} patches of "
            f"{args.patch_size}×{args.patch_size} px, learning rate {base_lr:g}, {args.precision} on {device}, "
            f"deformable convolutions {deform_op}"
        )
        while progress.step < last_step and not stop.requested:
            before, order.epoch, order.start = progress.step, progress.epoch, progress.position
            lr = base_lr * args.gamma ** (progress.epoch // args.n_steps)
            learner.set_learning_rate(lr)
            for loaded in log.batches(loader):
                if stop.requested:
                    break
                batch = to_device(loaded, device)
                restored, losses = run_step(**batch)
                progress.advance(len(batch["blurry"]), len(patches))
                refuse_divergence(log.step(progress.step, losses, lr), progress.step, output)
                if progress.step == last_step:
                    break
                if progress.position and args.save_every.due(progress):
                    save_state()
            if progress.step > before:
                # The network before the state: a run killed in between writes it again when resumed.
                save_network(output, network, stage, progress.epoch)
                pictures = {"blurry": batch["blurry"], f"{stage} output": restored, "sharp": batch["sharp"]}
                log.epoch(progress.epoch + (progress.position > 0), progress.step, pictures)
                if args.save_every.due(progress):
                    save_state()
        if progress.step > first_step:
            save_state()
        if stop.requested:
            kept = f"; the network so far is in {output}, --resume auto goes on" if progress.step > first_step else ""
            log.line(f"interrupted after step {progress.step:,}{kept}")
            stop.end()
        log.line(f"wrote {output}; log in {log.folder}")


def states_folder(args: argparse.Namespace, stage: str) -> Path:
    """Return where a stage's states lie."""
    return args.output_dir / "states" / stage


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on the device, images in the memory layout that convolutions are fastest in."""
    return {
        name: tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        if tensor.dim() == 4
        else tensor.to(device, non_blocking=True)
        for name, tensor in batch.items()
    }


def refuse_divergence(losses: dict[str, float], step: int, output: Path) -> None:
    """End the run at the first loss that is not a number; the last epoch's network stays."""
    if not all(map(math.isfinite, losses.values())):
        raise UserError(
            f"the loss is not finite at step {step:,} ({losses}); {output} keeps what it held before this epoch. Lower "
            "--lr, or look for broken images in the data"
        )


def check_outputs(stages: list[str], args: argparse.Namespace) -> None:
    """Refuse to start where a stage would replace another run's network or states, or could not write them."""
    for stage in stages:
        output, states = args.output_dir / STAGE_FILES[stage], RunState(states_folder(args, stage), args.keep).files()
        if args.overwrite or (args.resume != "none" and (states or args.resume != "auto")):
            continue
        if output.exists():
            raise UserError(
                f"{output} exists already; give another --output_dir, or --overwrite to train it again"
                + (", or --resume auto to go on with the run that wrote it" if states else "")
            )
        if states:
            raise UserError(
                f"{states[0]} is the state of a stopped run; --resume auto goes on with it, --overwrite starts anew"
            )
    check_writable(args.output_dir, "--output_dir")
    check_writable(args.log_dir, "--log_dir")


def main(args: argparse.Namespace) -> None:
    """Find the images, then train the stages asked for."""
    stages = list(STAGE_FILES) if args.stage == "all" else [args.stage]
    device = pick_device(args.device)
    pick_deform_op(args.deform_op, device, args.width)
    set_precision(args.precision, device)
    check_outputs(stages, args)
    image_sets = []
    for source in args.trainset_dir:
        kind, root = parse_source(source)
        if any(root.resolve() == image_set.root.resolve() for image_set in image_sets):
            raise UserError(f"--trainset_dir names {root} twice")
        image_sets.append(find_images(root, "train", kind, args.blur_dir))
        print(image_sets[-1].describe())
    if stages != ["finetune"] and not any(image_set.paired for image_set in image_sets):
        raise UserError(f"--stage {args.stage} needs sharp images, and none of the data sets has any")
    if args.cache_dir:
        used_sets = [image_set for image_set in image_sets if image_set.paired or "finetune" in stages]
        sources = [path for image_set in used_sets for path in (*image_set.blurry, *(image_set.sharp or ()))]
        FrameCache(args.cache_dir).build(sources, threads=max(args.num_workers, 1))
    for stage in stages:
        train_stage(stage, args, image_sets, device)


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
