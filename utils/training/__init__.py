"""Training around the algorithm: data, states, logging, guards, validation; the algorithm itself is DR_training.py."""

from utils.training.checkpointing import check_all_stages
from utils.training.data import DataSettings, TrainingData, prepare_data
from utils.training.image_sets import check_outputs_outside_inputs, find_data, sets_of
from utils.training.nonfinite_guard import NonFiniteGuard
from utils.training.optimization import OptimizationSettings, TrainingState
from utils.training.progress import Progress, SaveEvery
from utils.training.provenance import describe_run, frame_list, list_digest, provenance, resume_settings
from utils.training.run_log import open_log
from utils.training.stage import Batch, Stage, StepOutput
from utils.training.stage_files import StageFiles, check_no_overwrite, clear_states, run_folders
from utils.training.step_numbers import Step, StepReader
from utils.training.validation import validate

__all__ = [
    "Batch",
    "DataSettings",
    "NonFiniteGuard",
    "OptimizationSettings",
    "Progress",
    "SaveEvery",
    "Stage",
    "StageFiles",
    "Step",
    "StepOutput",
    "StepReader",
    "TrainingData",
    "TrainingState",
    "check_all_stages",
    "check_no_overwrite",
    "check_outputs_outside_inputs",
    "clear_states",
    "describe_run",
    "find_data",
    "frame_list",
    "list_digest",
    "open_log",
    "prepare_data",
    "provenance",
    "resume_settings",
    "run_folders",
    "sets_of",
    "validate",
]
