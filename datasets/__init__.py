"""Image sets on disk.

The training patches made from them are in `datasets.patches`, apart: their augmentation brings albumentations, which
takes a second to import, and testing has no use for it.
"""

from datasets.discovery.kinds import KINDS
from datasets.discovery.layout_table import SIDES, SPLITS, Sides
from datasets.discovery.layouts import ImageSet, find_images, parse_source, pictures, scan_dataset
from datasets.discovery.listing import DatasetError, list_files
from datasets.discovery.named_sets import find_named_sets
from datasets.discovery.pixel_checks import quick_check
from datasets.frame_cache import FrameCache
from datasets.synthesis.blur import BlurSettings, BlurSynthesis

__all__ = [
    "KINDS",
    "SIDES",
    "SPLITS",
    "BlurSettings",
    "BlurSynthesis",
    "DatasetError",
    "FrameCache",
    "ImageSet",
    "Sides",
    "find_images",
    "find_named_sets",
    "list_files",
    "parse_source",
    "pictures",
    "quick_check",
    "scan_dataset",
]
