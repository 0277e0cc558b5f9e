"""Train ASPDC in its three stages: a reblurring network, a deblurring network, and the latter fine-tuned with both.

    python DR_training.py --stage all --trainset_dir /data/GOPRO_Large               # the paper's recipe
    python DR_training.py --stage reblur --trainset_dir gopro=/data/GOPRO_Large      # one stage after the other
    python DR_training.py --stage deblur --trainset_dir gopro=/data/GOPRO_Large
    python DR_training.py --stage finetune --trainset_dir gopro=/data/GOPRO_Large rwbi=/data/RWBI
    python DR_training.py ... --resume auto                                          # goes on where it was stopped
    torchrun --nproc_per_node 4 DR_training.py ...                                   # on four GPUs

Every default is the paper's unless its help says otherwise. Each stage leaves one file in --output_dir.
"""

import argparse
import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets import BlurSettings, FrameCache, ImageSet
from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet
from models.blocks import MIN_SIZE
from models.checkpoint import STAGE_FILES, load_deblurring_net, load_reblurring_net
from models.ops.back_ends import DEFORM_OPS
from utils.common.errors import UserError
from utils.common.files import check_writable, file_digest
from utils.runtime.device import Batch, pick_deform_op
from utils.runtime.distributed import init_distributed
from utils.runtime.precision import PRECISIONS, set_deterministic, set_precision
from utils.runtime.program_end import user_errors_end_the_program
from utils.training.checkpointing import CheckpointManager, state_name, states_folder
from utils.training.datasets import check_outputs_outside_inputs, check_scorable, find_training_sets
from utils.training.progress import SaveEvery
from utils.training.provenance import frame_list
from utils.training.trainer import StageLosses, Trainer

MAX_WIDTH = 512  # 3.8 billion parameters
STAGE_LR = {"reblur": 1e-4, "deblur": 1e-4, "finetune": 1e-5}  # the paper gives finetune's only


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments; edit the defaults here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    # fmt: off
    add("--stage", choices=(*STAGE_FILES, "all"), default="all",
        help="which stage to train; all runs the three in turn")
    add("--trainset_dir", nargs="+", default=["data/GOPRO_Large"], metavar="[KIND=]PATH",
        help="data sets: gopro=, hide=, rwbi=, paired= or unpaired=PATH, or a bare path to be recognised; sets without "
             "ground truth take part in finetune only, through the consistency term. sharp=PATH: photographs that are "
             "blurred as they are used. 3*PATH: every frame three times an epoch")
    add("--blur", nargs="+", default=[], metavar="NAME=VALUE",
        help="settings of the blur of sharp= photographs that are to be other than in datasets/synthesis/motion.py and "
             "sensor.py, which explain them: share_still=0.2 extent=12 frames=7,13 (default: none)")
    add("--blur_dir", default="blur",
        help="name of the blurry folders beside sharp/; the published numbers are for GoPro's blur, not its blur_gamma")
    add("--valset_dir", nargs="+", default=[], metavar="[KIND=]PATH",
        help="data sets with ground truth to validate on, such as a few held-out sequences; a folder that has test/ is "
             "validated on that (default: no validation)")
    add("--val_every", type=int, default=20, help="epochs between two validations; there is one at the end, too")
    add("--skip_bad_images", action="store_true",
        help="let the next frame take the place of one that cannot be decoded, and count it, rather than end the run")
    add("--cache_dir", type=Path,
        help="folder for decoded frames, 2.6 MiB for each 1280×720 image (11 GiB for GoPro's training pairs): decoding "
             "them once makes the data many times faster (default: decode at every use)")
    add("--output_dir", type=Path, default=Path("trained"), help="where each stage writes its network")
    add("--overwrite", action="store_true", help="replace networks that --output_dir already holds")
    add("--resume", default="none", metavar="auto|PATH|none",
        help="go on from the newest state in --output_dir, where there is one (auto), or from a state file or folder")
    add("--save_every", type=SaveEvery.parse, default="10min", metavar="AMOUNT",
        help="how often the state to resume from is saved, such as 10min, 2epochs or 500steps; it is at the end, on "
             "Ctrl-C and on SIGTERM, too")
    add("--keep", type=int, default=2, help="how many states are kept, each three times as large as the network")
    add("--reblurring_weights", type=Path,
        help="finetune's reblurring network (default: ReBlurringNet.pth in --output_dir); with --stage reblur, where "
             "that starts (default: a new network)")
    add("--deblurring_weights", type=Path,
        help="where finetune starts (default: DeblurringNet_NF.pth in --output_dir), or, with --stage deblur, that "
             "stage (default: a new network)")
    add("--log_dir", type=Path, default=Path("log"),
        help="where each stage makes a folder with its arguments, text log and TensorBoard events")
    add("--device", default="auto",
        help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1, ...; with torchrun auto gives each "
             "process a GPU of its own")
    add("--deform_op", choices=DEFORM_OPS, default="auto",
        help="back end of the deformable convolutions; auto is fused on the CPU and on GPUs from Hopper on, elsewhere "
             "mmcv if installed, else torchvision")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="number format of convolutions and products; weights, losses and the optimiser stay fp32")
    add("--eager", action="store_true",
        help="launch each kernel by itself, where fused steps on CUDA are else recorded once and replayed")
    add("--batch_size", type=int, default=6, help="patches in a step, over all GPUs")
    add("--accumulate", type=int, default=1,
        help="work on each GPU's patches in so many parts, one after the other: less memory, the same step")
    add("--patch_size", type=int, default=256, help="side of the square patches in px")
    add("--n_epochs", type=int, default=1000, help="passes over the frames, in each stage")
    add("--max_steps", type=int, help="end each stage after so many steps (default: no limit)")
    add("--lr", type=float,
        help="Adam's learning rate, for every stage that runs (default: 1e-4, 1e-4 and, in finetune, 1e-5)")
    add("--warmup_steps", type=int, default=0,
        help="first steps, over which the learning rate rises linearly to --lr (default: 0, none): a new Adam makes "
             "full steps at once, which harms a network that is trained already")
    add("--gamma", type=float, default=0.5, help="factor on the learning rate every --n_steps epochs")
    add("--n_steps", type=int, default=200, help="epochs between two changes of the learning rate")
    add("--clip_grad", type=float, help="largest norm of the gradient; longer ones are shortened (default: no limit)")
    add("--max_bad_steps", type=int, default=20,
        help="steps in a row whose loss or gradient is not finite after which the run ends; each is left out")
    add("--ema_decay", type=float, default=0.0,
        help="decay of the weights' exponential moving average, such as 0.999, which then is what is validated and "
             "written; 0 is none")
    add("--lambda_A", type=float, default=1.0, help="finetune: weight of the loss against the sharp image")
    add("--lambda_B", type=float, default=0.1, help="finetune: weight of the reblurring consistency loss")
    add("--width", type=int, default=32,
        help="channels of a new deblurring network at full size (a new reblurring network has half as many); 32 is the "
             "paper's, less is for trials")
    add("--num_workers", type=int, default=min(8, os.cpu_count() or 1),
        help="processes that read and augment images, for each GPU; 0 does it in the main process")
    add("--seed", type=int, default=0, help="of the initial weights, the order of the frames and the patches")
    add("--deterministic", action="store_true",
        help="the same bits on the same GPU again: slower algorithms; on the CPU it is so anyway")
    # fmt: on
    args = parser.parse_args(argv)
    try:
        BlurSettings().changed(args.blur)
    except UserError as error:
        parser.error(f"--blur {error}")
    counts = ("batch_size", "accumulate", "n_epochs", "max_steps", "n_steps", "keep", "val_every", "max_bad_steps")
    for name in counts:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} should be at least 1")
    for name in ("lr", "gamma", "clip_grad"):
        if getattr(args, name) is not None and not 0 < getattr(args, name) < math.inf:
            parser.error(f"--{name} should be a number above 0")
    for name in ("lambda_A", "lambda_B"):
        if not 0 <= getattr(args, name) < math.inf:
            parser.error(f"--{name} should be a number from 0 up")
    if args.warmup_steps < 0:
        parser.error("--warmup_steps should be 0 (none) or more")
    if not 0 <= args.ema_decay < 1:
        parser.error("--ema_decay should be a number from 0 to below 1")
    if args.patch_size < MIN_SIZE:
        parser.error(f"--patch_size should be at least {MIN_SIZE}")
    if args.width not in range(2, MAX_WIDTH + 1, 2):
        parser.error(f"--width should be an even number from 2 to {MAX_WIDTH}")
    if args.num_workers < 0:
        parser.error("--num_workers should be 0 (read in the main process) or more")
    if args.seed not in range(2**32):
        parser.error("--seed should be from 0 to 4294967295")
    if args.resume == "auto" and args.overwrite:
        parser.error("--resume auto goes on with what is there, --overwrite replaces it: give one of the two")
    if args.stage == "all" and args.resume not in ("auto", "none"):
        parser.error("--resume PATH goes with one --stage; --stage all resumes with --resume auto")
    for name, stage in (("reblurring_weights", "reblur"), ("deblurring_weights", "deblur")):
        if getattr(args, name) and args.stage not in (stage, "finetune"):
            parser.error(f"--{name} goes with --stage {stage} or finetune")
    return args


def reblur_stage(args: argparse.Namespace, device: torch.device) -> tuple[ReblurringNet, StageLosses]:
    """L(R(blurry, sharp), blurry): a reblurring network, new unless one is given, learns to blur the sharp image."""
    criterion = NormalizedMSELoss().to(device)

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        reblurred = network(batch["blurry"], batch["sharp"])
        loss = criterion(reblurred, batch["blurry"])
        return reblurred, loss, {"reblur": loss}

    given = args.reblurring_weights
    network = load_reblurring_net(given) if given else ReblurringNet(args.width // 2)
    network.deform_op = pick_deform_op(args.deform_op, device, args.width)
    return network.to(device), losses


def deblur_stage(args: argparse.Namespace, device: torch.device) -> tuple[DeblurringNet, StageLosses]:
    """L(D(blurry), sharp): a deblurring network, new unless one is given, learns from the ground truth alone."""
    criterion = NormalizedMSELoss().to(device)

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        deblurred = network(batch["blurry"])
        loss = criterion(deblurred, batch["sharp"])
        return deblurred, loss, {"deblur": loss}

    given = args.deblurring_weights
    network = load_deblurring_net(given) if given else DeblurringNet(args.width)
    network.deform_op = pick_deform_op(args.deform_op, device, network.arguments["width"])
    return network.to(device), losses


def weight_files(stage: str, args: argparse.Namespace) -> dict[str, Path]:
    """Return the files of the networks that a stage reads."""
    given = {name: getattr(args, name) for name in ("reblurring_weights", "deblurring_weights")}
    if stage != "finetune":
        return {name: path for name, path in given.items() if path}
    return {
        "reblurring_weights": args.reblurring_weights or args.output_dir / STAGE_FILES["reblur"],
        "deblurring_weights": args.deblurring_weights or args.output_dir / STAGE_FILES["deblur"],
    }


def finetune_stage(args: argparse.Namespace, device: torch.device) -> tuple[DeblurringNet, StageLosses]:
    """λA·L(D(blurry), sharp) + λB·L(R(blurry, D(blurry)), blurry) with R frozen; the first term only where paired."""
    reblurring_weights, deblurring_weights = weight_files("finetune", args).values()
    criterion = NormalizedMSELoss(reduction="none").to(device)
    network = load_deblurring_net(deblurring_weights)
    network.deform_op = pick_deform_op(args.deform_op, device, network.arguments["width"])
    consistency = ReblurringConsistencyLoss(load_reblurring_net(reblurring_weights, deform_op=network.deform_op))
    # PyTorch's types lack memory_format.
    consistency.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        deblurred = network(batch["blurry"])
        # A mean over all images, so that an image weighs the same whatever else is in its batch.
        deblur = (criterion(deblurred, batch["sharp"]) * batch["has_sharp"]).mean()
        reblur = consistency(batch["blurry"], deblurred)
        return deblurred, args.lambda_A * deblur + args.lambda_B * reblur, {"deblur": deblur, "reblur": reblur}

    return network.to(device), losses


STAGES = {"reblur": reblur_stage, "deblur": deblur_stage, "finetune": finetune_stage}


def sets_of(stage: str, image_sets: list[ImageSet]) -> list[ImageSet]:
    """Return the sets that a stage trains on: those without ground truth take part in finetune only."""
    return [image_set for image_set in image_sets if image_set.paired or stage == "finetune"]


def check_outputs(stages: list[str], args: argparse.Namespace) -> None:
    """Refuse to start where a stage would replace another run's network or states, or could not write them."""
    for stage in stages:
        output = args.output_dir / STAGE_FILES[stage]
        states = CheckpointManager(states_folder(args.output_dir, stage), args.keep).files()
        newest = {str(each.resolve()) for each in states[:1] for each in (each, each.parent)}
        resumes = states and (args.resume == "auto" or str(Path(args.resume).resolve()) in newest)
        begun = [path for path in states if path.name != state_name(0)]  # with a step that would be lost
        if args.overwrite or resumes or not (output.exists() or begun):
            continue
        what = f"{output} exists already" if output.exists() else f"{states[0]} is the state of a stopped run"
        how = ["--resume auto to go on with it"] if states else []
        raise UserError(f"{what}; give {', '.join([*how, '--overwrite to replace it', 'or another --output_dir'])}")
    check_writable(args.output_dir, "--output_dir")
    check_writable(args.log_dir, "--log_dir")


def main(args: argparse.Namespace) -> None:
    """Find the images, then train the stages asked for; torchrun calls this once for each GPU."""
    with init_distributed(args.device) as distributed:
        stages = list(STAGE_FILES) if args.stage == "all" else [args.stage]
        pick_deform_op(args.deform_op, distributed.device, args.width)
        set_precision(args.precision, distributed.device)
        set_deterministic(args.deterministic)
        if distributed.is_main:
            check_outputs(stages, args)
        image_sets = find_training_sets(args.trainset_dir, "train", args, "--trainset_dir")
        validation_sets = find_training_sets(args.valset_dir, "test", args, "--valset_dir")
        if args.blur and not any(image_set.synthetic for image_set in image_sets):
            raise UserError("--blur is of photographs, and no sharp=PATH is among --trainset_dir")
        if stages != ["finetune"] and not any(image_set.paired for image_set in image_sets):
            raise UserError(f"--stage {args.stage} needs sharp images, and none of the data sets has any")
        for image_set in validation_sets:
            check_scorable(image_set)
        check_outputs_outside_inputs(image_sets, args)
        if args.cache_dir and distributed.local_rank == 0:
            used_sets = [image_set for image_set in image_sets if image_set.paired or "finetune" in stages]
            sources = [path for image_set in used_sets for path in (*image_set.blurry, *(image_set.sharp or ()))]
            FrameCache(args.cache_dir).build(sources, max(args.num_workers, 1), args.skip_bad_images)
        distributed.barrier()
        if args.stage == "all" and args.resume == "auto":
            for stage in stages:
                frames = frame_list(sets_of(stage, image_sets))
                CheckpointManager(states_folder(args.output_dir, stage), args.keep).check_same_data(frames)
        for stage in stages:
            torch.manual_seed(args.seed)
            network, losses = STAGES[stage](args, distributed.device)
            used_sets = sets_of(stage, image_sets)
            lr = STAGE_LR[stage] if args.lr is None else args.lr
            digests = {name: file_digest(path) for name, path in weight_files(stage, args).items()}
            Trainer(stage, args, network, losses, lr, used_sets, validation_sets, distributed, digests).run()


if __name__ == "__main__":
    with user_errors_end_the_program():
        main(parse_args())
