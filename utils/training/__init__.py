"""Training around the algorithm: data, states, logging, guards, validation; the algorithm itself is DR_training.py."""

from utils.training.checkpointing import CheckpointManager, states_folder
from utils.training.data import DataSettings, TrainingData
from utils.training.datasets import check_outputs_outside_inputs, check_scorable, find_training_sets
from utils.training.nonfinite_guard import NonFiniteGuard
from utils.training.optimization import TrainingState
from utils.training.progress import Progress, SaveEvery
from utils.training.provenance import frame_list, list_digest, provenance
from utils.training.run_log import open_log
from utils.training.stage_files import StageFiles, check_no_overwrite
from utils.training.step_numbers import Step, StepReader
from utils.training.validation import validate

__all__ = [
    "CheckpointManager",
    "DataSettings",
    "NonFiniteGuard",
    "Progress",
    "SaveEvery",
    "StageFiles",
    "Step",
    "StepReader",
    "TrainingData",
    "TrainingState",
    "check_no_overwrite",
    "check_outputs_outside_inputs",
    "check_scorable",
    "find_training_sets",
    "frame_list",
    "list_digest",
    "open_log",
    "provenance",
    "states_folder",
    "validate",
]
