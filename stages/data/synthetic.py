"""A stand-in for CIFAR-10 that needs no network: ten classes of 32x32 colour images, drawn by code.

An image shows one object. Its outline is the class; everything else is random and independent of
it: position, size, proportions, tilt, which way the object faces, colours, stripes on it, the
background, patches behind it and one before it, noise. The distribution is its own mirror image:
a horizontal flip keeps the class, as in CIFAR-10.

A pixel's value takes only sums, products, square roots and comparisons, which IEEE 754 defines to
the last bit, so that the bytes do not depend on the processor's vector instructions.
"""

from collections.abc import Callable

import numpy as np

SIDE = 32
CHUNK = 500  # images drawn at once: bounds the memory

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def generate(
    train_size: int, test_size: int, seed: int
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """``{"train": (images, labels), "test": ...}`` and the ten class names, as `archive.read` gives them.

    Images are (N, 32, 32, 3) uint8, labels (N,) int64 in random order, class counts differing by at
    most one. Both splits have one distribution; each depends on its own size and ``seed`` only.
    """
    sizes = {"train": train_size, "test": test_size}
    splits = {
        name: _split(size, np.random.default_rng((seed, number)))
        for number, (name, size) in enumerate(sizes.items())
    }
    return splits, tuple(OUTLINES)


def _split(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.arange(size, dtype=np.int64) % len(OUTLINES))
    images = np.empty((size, SIDE, SIDE, 3), np.uint8)
    for start in range(0, size, CHUNK):
        images[start : start + CHUNK] = _draw(labels[start : start + CHUNK], rng)
    return images, labels


def _draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images (N, 32, 32, 3) uint8 of objects of the classes ``labels`` (N,)."""

    def uniform(low: float, high: float, channels: int | None = None) -> np.ndarray:
        """(N, 1, 1) float32, or (N, 1, 1, ``channels``)."""
        shape = (len(labels), 1, 1) if channels is None else (len(labels), 1, 1, channels)
        return rng.uniform(low, high, shape).astype(np.float32)

    def placed(reach: float, tilt: float) -> tuple[np.ndarray, np.ndarray]:
        """The pixels' coordinates (N, 32, 32) relative to a random centre and random axes."""
        right, down = columns - uniform(-reach, reach), rows - uniform(-reach, reach)
        angle = uniform(-tilt, tilt).astype(np.float64)
        cosine, sine = (wave(angle).astype(np.float32) for wave in (np.cos, np.sin))
        return cosine * right + sine * down, cosine * down - sine * right

    def patch() -> np.ndarray:
        """The cover (N, 32, 32, 1) of a random rectangle, in any direction, anywhere."""
        x, y = placed(SIDE / 2, np.pi)
        return _cover(_box(x, y, 0, 0, uniform(1, 6), uniform(1, 6)))

    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2  # from the centre

    grey = uniform(0, 1, 1)
    images = grey + uniform(-0.2, 0.2, 3)
    images = images + placed(0, np.pi)[0][..., None] * uniform(-0.015, 0.015, 3)
    for _ in range(4):
        images += patch() * uniform(-0.3, 0.3, 3)

    x, y = placed(4, 0.35)
    size, wider = uniform(7.5, 11), uniform(0.8, 1.2)
    facing = np.where(uniform(-1, 1) < 0, -1, 1).astype(np.float32)
    u, v = x * facing / (size * wider), y * wider / size
    distance = np.empty_like(u)
    for label, outline in enumerate(OUTLINES.values()):
        chosen = labels == label
        distance[chosen] = outline(u[chosen], v[chosen])
    # lighter or darker than the background by 0.3 to 0.7 of full scale
    colour = (grey + uniform(0.3, 0.7, 1)) % 1 + uniform(-0.2, 0.2, 3)
    phase = uniform(0, 1) + uniform(0.1, 0.3) * columns + uniform(-0.3, 0.3) * rows
    stripes = 4 * abs(phase % 1 - 0.5) - 1  # from -1 to 1
    colour = colour + stripes[..., None] * uniform(-0.12, 0.12, 3)
    images += _cover(distance * size) * (colour - images)

    images += patch() * (uniform(0, 1, 3) - images)
    images += 0.08 * (2 * rng.random(images.shape, np.float32) - 1)
    levels: np.ndarray = (images * 255).round().clip(0, 255)
    return levels.astype(np.uint8)


def _cover(distance: np.ndarray) -> np.ndarray:
    """The share (..., 1) of a pixel inside, from the distance in pixels of its centre to the edge."""
    return (0.5 - distance).clip(0, 1)[..., None]


# Signed distances to an edge, negative inside, of points (x to the right, y down). Corners are not
# rounded outside: there the distance is to the nearer side's line.


def _disc(x: np.ndarray, y: np.ndarray, across: float, down: float, radius: float) -> np.ndarray:
    return np.sqrt((x - across) ** 2 + (y - down) ** 2) - radius


def _box(
    x: np.ndarray,
    y: np.ndarray,
    across: float,
    down: float,
    half_width: float | np.ndarray,
    half_height: float | np.ndarray,
) -> np.ndarray:
    return np.maximum(abs(x - across) - half_width, abs(y - down) - half_height)


def _polygon(x: np.ndarray, y: np.ndarray, *corners: tuple[float, float]) -> np.ndarray:
    """A convex polygon; ``corners`` go clockwise as one sees them, y pointing down."""
    sides = []
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        across, down = x2 - x1, y2 - y1
        length = (across**2 + down**2) ** 0.5
        sides.append((down * (x - x1) - across * (y - y1)) / length)
    return np.asarray(np.maximum.reduce(sides))


def _union(*distances: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum.reduce(distances))


def _ring(x: np.ndarray, y: np.ndarray, across: float, down: float, outer: float, inner: float) -> np.ndarray:
    hole = _disc(x, y, across, down, inner)
    return np.asarray(np.maximum(_disc(x, y, across, down, outer), -hole))


# The objects, each within -1 to 1.


def _boat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    hull = _polygon(x, y, (-1, 0.35), (1, 0.35), (0.6, 0.85), (-0.6, 0.85))
    sail = _polygon(x, y, (0.05, -1), (0.8, 0.2), (0.05, 0.2))
    return _union(hull, sail, _box(x, y, 0, -0.2, 0.07, 0.7))


def _car(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cabin = _polygon(x, y, (-0.6, -0.5), (0.15, -0.5), (0.5, 0), (-0.8, 0))
    wheels = _union(_disc(x, y, -0.55, 0.45, 0.28), _disc(x, y, 0.55, 0.45, 0.28))
    return _union(_box(x, y, 0, 0.15, 1, 0.28), cabin, wheels)


def _chair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    back, seat = _box(x, y, -0.55, -0.05, 0.15, 0.95), _box(x, y, 0, 0.1, 0.65, 0.17)
    return _union(back, seat, _box(x, y, 0.55, 0.45, 0.12, 0.45))


def _fish(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    body = _disc(x, 1.6 * y, 0.3, 0, 0.7)
    return _union(body, _polygon(x, y, (-1, -0.6), (-0.25, 0), (-1, 0.6)))


def _flag(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _union(_box(x, y, -0.65, 0, 0.1, 1), _box(x, y, 0.1, -0.5, 0.75, 0.45))


def _house(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    roof = _polygon(x, y, (0, -0.9), (0.95, 0), (-0.95, 0))
    return _union(_box(x, y, 0, 0.4, 0.7, 0.45), roof, _box(x, y, 0.5, -0.5, 0.13, 0.35))


def _key(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    teeth = _union(_box(x, y, 0.85, 0.25, 0.12, 0.25), _box(x, y, 0.45, 0.2, 0.1, 0.2))
    return _union(_ring(x, y, -0.5, 0, 0.5, 0.22), _box(x, y, 0.45, 0, 0.55, 0.12), teeth)


def _mug(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _union(_box(x, y, -0.25, 0, 0.6, 0.75), _ring(x, y, 0.4, 0, 0.5, 0.27))


def _mushroom(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cap = np.maximum(_disc(x, y, 0, 0, 0.9), y)
    return _union(cap, _box(x, y, 0, 0.4, 0.25, 0.45))


def _tree(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    top = _polygon(x, y, (0, -1), (0.5, -0.2), (-0.5, -0.2))
    bottom = _polygon(x, y, (0, -0.6), (0.75, 0.5), (-0.75, 0.5))
    return _union(top, bottom, _box(x, y, 0, 0.75, 0.15, 0.25))


OUTLINES: dict[str, Distance] = {
    "boat": _boat,
    "car": _car,
    "chair": _chair,
    "fish": _fish,
    "flag": _flag,
    "house": _house,
    "key": _key,
    "mug": _mug,
    "mushroom": _mushroom,
    "tree": _tree,
}
