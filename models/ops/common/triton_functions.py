"""What Triton kernels of several operations share."""

import triton
import triton.language as tl  # noqa: F401 Triton's interpreter looks for it

# Sizes and strides stay plain numbers: Triton would turn a 1 among them into a constant of another type.
PLAIN = [a + str(i) for i in range(4) for a in "ncyx"] + [
    "an",
    "ac",
    "ay",
    "ax",
    "H",
    "W",
    "P",
    "E",
    "tiles_x",
    "tiles_y",
]


@triton.jit
def pick(i, v0, v1, v2, v3):
    """v_i: one kernel serves the four modules, each with its own predictor map."""
    r = v0
    if i == 1:
        r = v1
    if i == 2:
        r = v2
    if i == 3:
        r = v3
    return r
