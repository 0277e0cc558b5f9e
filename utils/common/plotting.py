"""What figures are drawn with, from matplotlib, whatever `MPLBACKEND` says: they are files, and need no backend.

Jupyter and Colab hand that variable down to the programs that they start, and matplotlib cannot be imported where it
names a backend that is not installed. So nothing else of ours imports matplotlib.
"""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)):
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = _backend
    with suppress(ValueError):  # it is not installed; in a notebook it is, and is kept
        mpl.rcParams["backend"] = _backend

from matplotlib import patheffects, rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.quiver import Quiver

__all__ = ["Axes", "AxesImage", "Figure", "Quiver", "Rectangle", "patheffects", "rc_context", "ticker"]
