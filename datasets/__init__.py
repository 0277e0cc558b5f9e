"""Image sets on disk, and the training patches made from them."""

from datasets.augmentation import PairAugmentation
from datasets.contents import quick_check
from datasets.frame_cache import FrameCache
from datasets.layouts import KINDS, ImageSet, find_images, parse_source, pictures, survey
from datasets.pairing import SPLITS, DatasetError, list_files, list_images
from datasets.patches import SharedBatches, TrainingPatches, batches_of, training_loader
from datasets.synthesis import BlurSynthesis

__all__ = [
    "KINDS",
    "SPLITS",
    "BlurSynthesis",
    "DatasetError",
    "FrameCache",
    "ImageSet",
    "PairAugmentation",
    "SharedBatches",
    "TrainingPatches",
    "batches_of",
    "find_images",
    "list_files",
    "list_images",
    "parse_source",
    "pictures",
    "quick_check",
    "survey",
    "training_loader",
]
