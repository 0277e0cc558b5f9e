"""Copy pairs, with sharp sides that are shifted by up to some pixels at random: partners that do not fit.

python recipes/shift_partners.py PAIRS OUT [PIXELS]      # PAIRS holds blur/ and sharp/

They are for recipes/finetune_control.sh: the reblurring term should matter most there. Both sides lose PIXELS (2) at
each border.
"""

import sys
from pathlib import Path

import cv2
import numpy as np


def main(pairs: Path, out: Path, limit: int) -> None:
    """Write the shifted pairs of a folder into another; the same ones at each call."""
    generator = np.random.default_rng(0)
    for blurry in sorted((pairs / "blur").iterdir()):
        shifts = generator.integers(-limit, limit + 1, size=2)
        for side, (down, right) in (("blur", (0, 0)), ("sharp", shifts)):
            image = cv2.imread(str(pairs / side / blurry.name))
            if image is None:
                sys.exit(f"error: {pairs / side / blurry.name} is no image that can be read")
            height, width = image.shape[:2]
            inner = image[limit + down : height - limit + down, limit + right : width - limit + right]
            (out / side).mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(out / side / f"{blurry.stem}.png"), inner):
                sys.exit(f"error: {out / side / blurry.stem}.png cannot be written")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python recipes/shift_partners.py PAIRS OUT [PIXELS]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 2)
