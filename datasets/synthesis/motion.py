"""Random motion over an exposure, of the camera and of objects before it, as one homography for each sub-frame.

The camera turns about its three axes and moves along them, each a sum of sinusoids up to the frequencies of the hand's
tremor, with amplitudes that fall as 1/f: the integral of white noise of limited band. Such are the smooth, slightly
curved paths recorded by Levin et al. (CVPR 2009) and Köhler et al. (ECCV 2012) and modelled at random by Boracchi and
Foi (IEEE TIP 2012). A plane at distance d with normal n moves in the image by K (R - t nᵀ/d) K⁻¹ (Hartley and
Zisserman, eq. 13.2). All is still in the middle of the exposure: there every homography is the identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CHANNELS = 6  # rotation about x, y and z, translation along x, y and z
_SINUSOIDS = 6  # of each channel
_MOMENTS = 33  # at which the speed is measured
_SAFETY = 1.1  # the speed between the moments, and of motions that are not quite proportional to their amplitude
REGIONS = 3  # at most, of an image
HARMONICS = 4  # of a region's outline
# Beyond these a picture is one colour, or no longer a number.
_LIMITS = {
    **{"exposure": (1e-4, 100.0), "highest_frequency": (0.01, 1e4), "frame": (1, 1e5), "focal_length": (0.01, 1e3)},
    **{
        "extent": (0.0, 1e4),
        "still_extent": (0.0, 1e4),
        "spread": (0.0, 5.0),
        "sub_frames": (3, 999),
        "step": (0.1, 1e3),
    },
    **{"roll": (0.0, 100.0), "translation": (0.0, 100.0), "tilt": (0.0, 10.0), "frames": (3, 999)},
    **{"region_radius": (1e-3, 10.0), "region_edge": (0.0, 1e3), "region_extent": (0.0, 1e4)},
    **{"region_turn": (0.0, 360.0), "region_growth": (0.0, 5.0)},
}
_CAMERA, _OBJECTS, _KIND = 0, 1, 3  # streams of random numbers


@dataclass(frozen=True)
class MotionSettings:
    """What motions are drawn; pairs are (lowest, highest).

    Attributes:
        exposure: s, log-uniform.
        highest_frequency: Hz, of the camera's motion.
        extent: px, median of the path's length during the exposure (mean over the image), log-normal.
        spread: standard deviation of the extent's natural logarithm.
        share_still: of images over which the camera hardly moves; regions that move by themselves stay.
        still_extent: px, the most that it moves then; uniform from 0.
        share_frames: of images that are the mean of a few frames of a video, as GoPro's are, however far apart.
        frames: fewest and most of them; both odd.
        frame: height and width in px of the camera's whole frame; a smaller image is a part anywhere of it.
        focal_length: of the frame's width.
        roll: turn about the optical axis and motion along it, as image motion in the frame's corner over that by
            pitch and yaw.
        translation: image motion by sideways translation over that by pitch and yaw.
        tilt: standard deviation of the two slopes of the scene's plane.
        share_with_regions: of images with 1 to 3 regions that move by themselves.
        region_radius: of the image's shorter side, log-uniform.
        region_edge: px, half the width of the soft edge.
        region_extent: px, median length of a region's own path, log-normal with the same `spread`.
        region_turn: degrees, standard deviation over the exposure.
        region_growth: standard deviation of the logarithm of the scale over the exposure.
        share_pasted: of regions with the mirrored image's content; the others keep the content.
        step: px, the farthest that anything may move between two sub-frames; below 2, where the ghosts of an edge
            would lie within the picture's band, none is seen.
        sub_frames: fewest and most; both odd. Motions too fast for the most are slowed down to it.
    """

    exposure: tuple[float, float] = (0.03, 0.1)
    highest_frequency: float = 12.0
    extent: float = 18.0
    spread: float = 0.4
    share_still: float = 0.0
    still_extent: float = 4.0
    share_frames: float = 0.0
    frames: tuple[int, int] = (7, 13)
    frame: tuple[int, int] = (720, 1280)
    focal_length: tuple[float, float] = (0.6, 1.2)
    roll: float = 0.5
    translation: float = 0.4
    tilt: float = 0.3
    share_with_regions: float = 0.4
    region_radius: tuple[float, float] = (0.1, 0.4)
    region_edge: tuple[float, float] = (0.7, 3.0)
    region_extent: float = 8.0
    region_turn: float = 2.0
    region_growth: float = 0.02
    share_pasted: float = 0.5
    step: float = 1.5
    sub_frames: tuple[int, int] = (7, 97)

    def __post_init__(self) -> None:
        for name in ("frames", "sub_frames"):
            low, high = getattr(self, name)
            if not (3 <= low <= high and low % 2 == high % 2 == 1):
                raise ValueError(f"{name} should be two odd numbers from 3 up, the lower one first, not {low},{high}")
        for name, limits in _LIMITS.items():
            check_limits(name, getattr(self, name), *limits)


def check_limits(name: str, value: float | Sequence[float], low: float, high: float) -> None:
    """Raise `ValueError` for a setting, a number or a pair, that is not between its limits."""
    if np.min(value) < low or np.max(value) > high:
        least = f"above 0, from {low:g}" if low > 0 else f"at least {low:g},"
        raise ValueError(f"{name} should be {least} to {high:g}, not {value}")


@dataclass(frozen=True)
class Regions:
    """The P regions of a batch that move by themselves; of those of an image the later ones are in front.

    Attributes:
        images: (P,) int64, which image of the batch each is a region of.
        pasted: (P,) bool, whether with content of the mirrored image.
        maps: (P, T, 3, 3), as those of the camera.
        outlines: (P, 6 + 2 * HARMONICS): centre x and y, radius and edge in px, ratio of the axes, their angle in
            radians, then amplitudes and phases of the radius' harmonics 2, 3, ... in the angle.
    """

    images: np.ndarray
    pasted: np.ndarray
    maps: np.ndarray
    outlines: np.ndarray


@dataclass(frozen=True)
class Motion:
    """The motion of a batch of N images of up to T sub-frames.

    Attributes:
        counts: (N,) int64, odd: sub-frames of each image; the middle one is at rest. Later ones are ignored.
        camera: (N, T, 3, 3) float64: where in the image a sub-frame's pixel (x, y, 1) comes from, in px, homogeneous.
        regions: of all images.
    """

    counts: np.ndarray
    camera: np.ndarray
    regions: Regions


def draw(seeds: Sequence[int], stream: int, uniforms: int, normals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, uniforms) numbers in [0, 1) and (N, normals) normal ones, each row from its seed and the stream."""
    keys = [np.array([seed % 2**64, stream], np.uint64) for seed in seeds]
    generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
    rows = [(each.random(uniforms), each.standard_normal(normals)) for each in generators]
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def between(limits: tuple[float, float], numbers: np.ndarray, logarithmic: bool = False) -> np.ndarray:
    """Map numbers in [0, 1) to the limits."""
    low, high = limits
    return low * (high / low) ** numbers if logarithmic else low + (high - low) * numbers


def draw_motion(seeds: Sequence[int], height: int, width: int, margin: int, settings: MotionSettings) -> Motion:
    """Draw the motion of images from their seeds.

    Args:
        seeds: of the N images.
        height: px, of every image.
        width: px.
        margin: px at each border that will not be seen.
        settings: what is drawn.
    """
    kind, _ = draw(seeds, _KIND, 4, 0)
    camera = _Camera(seeds, height, width, settings)
    extent = np.where(kind[:, 0] < settings.share_still, settings.still_extent * kind[:, 1], camera.extent)
    # The corners, which move most, then the middles of sixteen equal parts.
    positions = np.concatenate([_grid(np.array([0.0, 1.0])), _grid((np.arange(4) + 0.5) / 4)])
    points = margin + positions * (np.array([width, height]) - 1 - 2 * margin)
    moments = np.broadcast_to(np.linspace(-0.5, 0.5, _MOMENTS), (len(seeds), _MOMENTS))
    moved = apply(camera.maps(moments, np.ones(len(seeds))), points)  # N, moments, points, 2
    steps = np.linalg.norm(np.diff(moved, axis=1), axis=-1)
    scale = extent / steps.sum(axis=1)[:, 4:].mean(axis=-1)
    objects = _Objects(seeds, height, width, margin, settings)
    speed = scale * steps.max(axis=(1, 2)) * (_MOMENTS - 1) + objects.speed.max(axis=1)
    fewest, most = settings.sub_frames
    slowing = np.minimum(1.0, (most - 1) * settings.step / (_SAFETY * np.maximum(speed, 1e-9)))  # 0: nothing moves
    halves = np.ceil(_SAFETY * slowing * speed / settings.step / 2 - 1e-9).astype(np.int64)
    counts = 2 * np.maximum(halves, (fewest - 1) // 2) + 1
    low, high = settings.frames
    frames = low + 2 * np.floor(kind[:, 3] * ((high - low) // 2 + 1)).astype(np.int64)
    counts = np.where(kind[:, 2] < settings.share_frames, frames, counts)
    times = np.arange(counts.max()) / (counts[:, None] - 1) - 0.5
    times[times > 0.5 + 1e-9] = 0.0
    maps = camera.maps(times, scale * slowing)
    return Motion(counts, maps, objects.regions(times, slowing, maps))


def apply(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the (..., P, 2) images of P×2 points under homographies (..., 3, 3)."""
    mapped = points @ np.swapaxes(maps[..., :2], -1, -2) + maps[..., None, :, 2]
    return mapped[..., :2] / mapped[..., 2:]


def _grid(positions: np.ndarray) -> np.ndarray:
    """Return the (P², 2) points whose coordinates are both among P places."""
    return np.stack(np.meshgrid(positions, positions), axis=-1).reshape(-1, 2)


class _Camera:
    """The cameras of a batch: where they look from, and how they shake at unit amplitude."""

    def __init__(self, seeds: Sequence[int], height: int, width: int, settings: MotionSettings) -> None:
        waves = _CHANNELS * _SINUSOIDS
        uniform, normal = draw(seeds, _CAMERA, 4 + 2 * waves, 3 + _CHANNELS + waves)
        self.extent = settings.extent * np.exp(settings.spread * normal[:, 0])
        exposure = between(settings.exposure, uniform[:, 0], logarithmic=True)
        focal = between(settings.focal_length, uniform[:, 1]) * settings.frame[1]
        sizes, frame = np.array([(width, height)]), np.array([settings.frame[::-1]])
        self._intrinsic = np.tile(np.eye(3), (len(focal), 1, 1, 1))
        self._intrinsic[:, 0, (0, 1), (0, 1)] = focal[:, None]
        self._intrinsic[:, 0, :2, 2] = (sizes - 1) / 2 + np.maximum(frame - sizes, 0) * (uniform[:, 2:4] - 0.5)
        self._normal = np.concatenate([settings.tilt * normal[:, 1:3], np.ones((len(normal), 1))], axis=1)
        phases, octaves = uniform[:, 4:].reshape(-1, 2, _CHANNELS, _SINUSOIDS).swapaxes(0, 1)
        frequencies = between((settings.highest_frequency / 16, settings.highest_frequency), octaves, logarithmic=True)
        self._turns = frequencies * exposure[:, None, None]
        self._phases = 2 * np.pi * phases
        corner = np.hypot(*settings.frame) / 2
        sideways, outwards = 1 / focal, np.full_like(focal, settings.roll / corner)
        size = np.stack([sideways, sideways, outwards, sideways, sideways, outwards], axis=1)
        size[:, 3:] *= settings.translation
        size *= np.abs(normal[:, 3 : 3 + _CHANNELS])
        self._sizes = size[..., None] * normal[:, 3 + _CHANNELS :].reshape(frequencies.shape) / frequencies

    def maps(self, times: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the (N, T, 3, 3) maps from sub-frames to images at (N, T) times in [-0.5, 0.5]."""
        angles = 2 * np.pi * self._turns[:, None] * times[..., None, None] + self._phases[:, None]
        waves = self._sizes[:, None] * (np.sin(angles) - np.sin(self._phases)[:, None])
        rotation, translation = np.split(waves.sum(axis=-1) * scale[:, None, None], 2, axis=-1)
        plane = _rotations(rotation) - translation[..., None] * self._normal[:, None, None]
        return self._intrinsic @ plane @ np.linalg.inv(self._intrinsic)


class _Objects:
    """The regions of a batch that move by themselves: (N, REGIONS) of each property."""

    def __init__(self, seeds: Sequence[int], height: int, width: int, margin: int, settings: MotionSettings) -> None:
        uniform, normal = draw(seeds, _OBJECTS, 2 + REGIONS * (8 + HARMONICS), REGIONS * (4 + HARMONICS))
        wanted = np.where(uniform[:, 0] < settings.share_with_regions, 1 + np.floor(REGIONS * uniform[:, 1]), 0)
        self._there = np.arange(REGIONS) < wanted[:, None]
        uniform = uniform[:, 2:].reshape(-1, REGIONS, 8 + HARMONICS)
        normal = normal.reshape(-1, REGIONS, 4 + HARMONICS)
        seen = np.array([width, height]) - 2 * margin
        self._centre = margin + seen * uniform[..., :2]
        radius = between(settings.region_radius, uniform[..., 2], logarithmic=True) * seen.min()
        edge = between(settings.region_edge, uniform[..., 3])
        axes, angle = between((0.5, 2.0), uniform[..., 4], logarithmic=True), np.pi * uniform[..., 5]
        bumps = 0.25 * normal[..., 4:] / np.arange(2, 2 + HARMONICS)
        phases = 2 * np.pi * uniform[..., 8:]
        form = np.stack([radius, edge, axes, angle], axis=-1)
        self._outlines = np.concatenate([self._centre, form, bumps, phases], axis=-1)
        self._pasted = uniform[..., 6] < settings.share_pasted
        extent = self._there * settings.region_extent * np.exp(settings.spread * normal[..., 0])
        direction = 2 * np.pi * uniform[..., 7]
        self._way = extent[..., None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
        self._bend = 0.2 * normal[..., 1]
        self._turn = np.radians(settings.region_turn) * normal[..., 2]
        self._growth = settings.region_growth * normal[..., 3]
        rim = self._there * radius * (np.abs(self._turn) + np.abs(self._growth))
        self.speed = extent * (1 + np.abs(self._bend)) + rim

    def regions(self, times: np.ndarray, scale: np.ndarray, camera: np.ndarray) -> Regions:
        """Return the regions before cameras of (N, T, 3, 3) maps, at (N, T) times, motions scaled by (N,)."""
        moments = times[:, None]  # N, regions, T
        amount = moments * scale[:, None, None] * self._there[..., None]
        way, bend = self._way[:, :, None], self._bend[..., None]
        across = np.stack([-way[..., 1], way[..., 0]], axis=-1)
        shift = amount[..., None] * (way + across * (bend * moments)[..., None])
        turn, size = -amount * self._turn[..., None], np.exp(-amount * self._growth[..., None])
        maps = np.tile(np.eye(3), (*amount.shape, 1, 1))
        maps[..., 0, 0] = maps[..., 1, 1] = size * np.cos(turn)
        maps[..., 1, 0] = size * np.sin(turn)
        maps[..., 0, 1] = -maps[..., 1, 0]
        centre = self._centre[:, :, None]
        maps[..., :2, 2] = centre - (maps[..., :2, :2] @ (centre + shift)[..., None])[..., 0]
        maps = maps @ camera[:, None]
        there = np.nonzero(self._there)
        return Regions(there[0], self._pasted[there], maps[there], self._outlines[there])


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Return the rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), by Rodrigues' formula."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    # sinc(a/π) = sin(a)/a, also at 0; (1 - cos a)/a² = sinc²(a/2π)/2
    return np.eye(3) + np.sinc(angle / np.pi) * cross + np.sinc(angle / (2 * np.pi)) ** 2 / 2 * (cross @ cross)
