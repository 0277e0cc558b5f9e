"""Copy pairs, with sharp sides that are shifted by up to some pixels at random: partners that do not fit.

python recipes/shift_partners.py PAIRS OUT [PIXELS]      # PAIRS holds blur/ and sharp/

They are for recipes/finetune_control.sh: the reblurring term should matter most there. Both sides lose PIXELS (2) at
each border.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

pairs, out, limit = Path(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], "2")[0])
generator = np.random.default_rng(0)
for blurry in sorted((pairs / "blur").iterdir()):
    shifts = generator.integers(-limit, limit + 1, size=2)
    for side, (down, right) in (("blur", (0, 0)), ("sharp", shifts)):
        image = cv2.imread(str(pairs / side / blurry.name))
        height, width = image.shape[:2]
        inner = image[limit + down : height - limit + down, limit + right : width - limit + right]
        (out / side).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(out / side / f"{blurry.stem}.png"), inner)
