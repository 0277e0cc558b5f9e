"""What Triton kernels of several operations share."""

import triton
import triton.language as tl

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
def upper_digits(v):
    """fp32 values rounded to the digits that TF32 has."""
    return ((v.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def multiply3(a, b_upper, b_lower, acc):
    """acc + a @ b by three TF32 products, which leaves out that of the lower digits; b comes in two parts.

    The matrix units cut digits off a sum, so they sum up this part alone.
    """
    a_upper = upper_digits(a)
    part = tl.dot(a - a_upper, b_upper, input_precision="tf32")
    part = tl.dot(a_upper, b_lower, part, input_precision="tf32")
    return acc + tl.dot(a_upper, b_upper, part, input_precision="tf32")


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
