"""What the scripts import, all at once: the process that is forked for each of them has it already."""

import matplotlib.backends.backend_agg  # noqa: F401

import D_testing  # noqa: F401
import DR_training  # noqa: F401
