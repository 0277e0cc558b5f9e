"""What figures are drawn of in tests, and the texts on them."""

import numpy as np
from matplotlib.text import Text

from tests.support.samples import SAMPLES, load


def real_pair():
    """Return a real blurry image and its sharp partner, 320×192 px."""
    files = (SAMPLES / "test" / "GOPR0881_11_01" / side / "000203.png" for side in ("blur", "sharp"))
    return tuple(np.ascontiguousarray(load(file)[180:372, 230:550]) for file in files)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]
