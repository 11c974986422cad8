"""The shapes of the demo clip's scene and their intersection with rays; numpy only.

Every shape also unrolls its surface into rectangles (charts), in which `light` stores the light that falls on it.
Invariant: lengths are metres, x right, y up, z into the room; vectors are float32 arrays of shape (3, n).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Paint = Callable[[F32, F32, F32], F32]
"""(local points, local normals, footprint in metres) to linear albedo; the footprint lets fine patterns fade out."""

_EPS = np.float32(2e-3)
_CHUNK = 1 << 15
"""Rays per step, so that the arrays stay in cache."""


def dot(a: F32, b: F32) -> F32:
    """Products of (3, n) vectors, shape (n,)."""
    return np.einsum("in,in->n", a, b)


def unit(a: F32) -> F32:
    """Vectors of length 1."""
    return a / np.sqrt(dot(a, a))


def yaw(degrees: float) -> F32:
    """A rotation about the vertical."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)


def along(axis: F32) -> F32:
    """A rotation that takes the local y axis to `axis`."""
    y = axis / np.linalg.norm(axis)
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)], axis=1).astype(np.float32)


@dataclass(eq=False, kw_only=True)
class Solid(ABC):
    """A closed surface in its own frame.

    Attributes:
        centre: position, metres.
        turn: 3×3, local to world.
        paint: its colours.
        gloss: strength of its reflection of the surroundings.
        glow: linear radiance it gives off.
        texel: size of a texel of its light map, metres.
    """

    centre: tuple[float, float, float]
    paint: Paint
    turn: F32 = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    gloss: float = 0.0
    glow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    texel: float = 0.05
    wraps = True
    """Whether the first chart is closed around the vertical axis."""

    @property
    @abstractmethod
    def extent(self) -> F32:
        """Half the local bounding box."""

    @abstractmethod
    def charts(self) -> list[tuple[float, float]]:
        """(height, width) in metres of the rectangles its surface is unrolled to."""

    @abstractmethod
    def locate(self, p: F32) -> tuple[NDArray[np.intp], F32, F32]:
        """Chart, u and v (0 to 1) of local surface points."""

    @abstractmethod
    def point(self, chart: int, u: F32, v: F32) -> tuple[F32, F32]:
        """Local points and normals of chart positions."""

    @abstractmethod
    def normal(self, p: F32) -> F32:
        """Local normals at local surface points."""

    @abstractmethod
    def enter(self, o: F32, d: F32) -> F32:
        """Distance along local rays to the first surface in front, inf where there is none."""

    def to_local(self, p: F32) -> F32:
        return self.turn.T @ (p - np.array(self.centre, np.float32)[:, None])

    def cast(self, o: F32, d: F32) -> F32:
        """`enter` for world rays."""
        return self.enter(self.to_local(o), self.turn.T @ d)


@dataclass(eq=False, kw_only=True)
class Box(Solid):
    """A box with half sides `half` and edges rounded by `round`."""

    half: tuple[float, float, float]
    round: float = 0.0
    wraps = False

    @property
    def extent(self) -> F32:
        return np.array(self.half, np.float32)

    def charts(self) -> list[tuple[float, float]]:
        x, y, z = (2 * h for h in self.half)
        return [(z, y), (z, y), (z, x), (z, x), (y, x), (y, x)]  # rows run along the later axis

    def locate(self, p: F32) -> tuple[NDArray[np.intp], F32, F32]:
        q = p / self.extent[:, None]
        axis = np.abs(q).argmax(axis=0)
        first, second = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
        n = np.arange(p.shape[1])
        return 2 * axis + (q[axis, n] > 0), q[first, n] / 2 + np.float32(0.5), q[second, n] / 2 + np.float32(0.5)

    def point(self, chart: int, u: F32, v: F32) -> tuple[F32, F32]:
        axis = chart // 2
        q = np.empty((3, u.size), np.float32)
        q[axis] = 1 if chart % 2 else -1
        q[(1, 0, 0)[axis]], q[(2, 2, 1)[axis]] = 2 * u - 1, 2 * v - 1
        p = q * self.extent[:, None]
        if not self.round:
            return p, self.normal(p)
        core = (self.extent - self.round)[:, None]
        inner = np.clip(p, -core, core)
        n = unit(p - inner)
        return inner + self.round * n, n

    def normal(self, p: F32) -> F32:
        if self.round:
            core = (self.extent - self.round)[:, None]
            return unit(p - np.clip(p, -core, core) + np.float32(1e-6) * p)
        q = p / self.extent[:, None]
        n = np.zeros_like(p)
        axis = np.abs(q).argmax(axis=0)
        columns = np.arange(p.shape[1])
        n[axis, columns] = np.sign(q[axis, columns])
        return n

    def enter(self, o: F32, d: F32) -> F32:
        inverse = 1 / np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
        middle, reach = -o * inverse, np.abs(inverse) * self.extent[:, None]
        near, far = (middle - reach).max(axis=0), (middle + reach).min(axis=0)
        t = np.where((near < far) & (near > _EPS), near, np.float32(np.inf))
        if not self.round:
            return t
        hits = np.flatnonzero(np.isfinite(t))
        t[hits] = self._march(np.broadcast_to(o, d.shape)[:, hits], d[:, hits], t[hits], far[hits])
        return t

    def _march(self, o: F32, d: F32, t: F32, far: F32) -> F32:
        core = (self.extent - self.round)[:, None]
        for _ in range(24):
            q = np.maximum(np.abs(o + t * d) - core, 0)
            t = t + np.maximum(np.sqrt(dot(q, q)) - self.round, 0)
        q = np.maximum(np.abs(o + t * d) - core, 0)
        return np.where((t < far) & (np.sqrt(dot(q, q)) < self.round + 2e-3), t, np.float32(np.inf))


@dataclass(eq=False, kw_only=True)
class Ellipsoid(Solid):
    """An ellipsoid with half axes `radii`."""

    radii: tuple[float, float, float]

    @property
    def extent(self) -> F32:
        return np.array(self.radii, np.float32)

    def charts(self) -> list[tuple[float, float]]:
        return [(np.pi * max(self.radii), 2 * np.pi * max(self.radii))]

    def locate(self, p: F32) -> tuple[NDArray[np.intp], F32, F32]:
        q = p / self.extent[:, None]
        u = np.arctan2(q[0], q[2]) / np.float32(2 * np.pi) % 1
        return np.zeros(u.shape, np.intp), u, np.arccos(np.clip(q[1], -1, 1)) / np.float32(np.pi)

    def point(self, chart: int, u: F32, v: F32) -> tuple[F32, F32]:  # noqa: ARG002 - it has one chart
        a, b = 2 * np.pi * u, np.pi * v
        p = np.stack([np.sin(a) * np.sin(b), np.cos(b), np.cos(a) * np.sin(b)]).astype(np.float32)
        p *= self.extent[:, None]
        return p, self.normal(p)

    def normal(self, p: F32) -> F32:
        return unit(p / self.extent[:, None] ** 2)

    def enter(self, o: F32, d: F32) -> F32:
        o, d = o / self.extent[:, None], d / self.extent[:, None]
        a, b, c = dot(d, d), dot(o, d), dot(o, o) - 1
        root = b * b - a * c
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (t > _EPS), t, np.float32(np.inf))


@dataclass(eq=False, kw_only=True)
class Frustum(Solid):
    """An upright truncated cone: radius `low` at the bottom, `high` at the top, `tall` from one to the other."""

    low: float
    high: float
    tall: float

    @property
    def extent(self) -> F32:
        r = max(self.low, self.high)
        return np.array([r, self.tall / 2, r], np.float32)

    def charts(self) -> list[tuple[float, float]]:
        r = 2 * max(self.low, self.high)
        return [(self.tall, np.pi * r), (r, r), (r, r)]

    def _radius(self, y: F32) -> F32:
        return np.float32((self.low + self.high) / 2) + np.float32((self.high - self.low) / self.tall) * y

    def locate(self, p: F32) -> tuple[NDArray[np.intp], F32, F32]:
        cap = self._on_cap(p)
        r = np.float32(self.extent[0])
        u = np.where(cap, p[0] / r / 2 + np.float32(0.5), np.arctan2(p[0], p[2]) / np.float32(2 * np.pi) % 1)
        v = np.where(cap, p[2] / r / 2 + np.float32(0.5), p[1] / np.float32(self.tall) + np.float32(0.5))
        return np.where(cap, np.where(p[1] > 0, 1, 2), 0), u, v

    def point(self, chart: int, u: F32, v: F32) -> tuple[F32, F32]:
        if chart == 0:
            y = (v - np.float32(0.5)) * np.float32(self.tall)
            a, r = 2 * np.pi * u, self._radius(y)
            p = np.stack([np.sin(a) * r, y, np.cos(a) * r]).astype(np.float32)
            return p, self._side_normal(p)
        r = np.float32(self.extent[0])
        x, z = (2 * u - 1) * r, (2 * v - 1) * r
        rim = np.float32(0.98 * (self.high if chart == 1 else self.low)) / np.maximum(np.hypot(x, z), 1e-6)
        x, z = x * np.minimum(rim, 1), z * np.minimum(rim, 1)
        sign = np.float32(1 if chart == 1 else -1)
        p = np.stack([x, np.full_like(x, sign * self.tall / 2), z]).astype(np.float32)
        n = np.zeros_like(p)
        n[1] = sign
        return p, n

    def _on_cap(self, p: F32) -> NDArray[np.bool_]:
        """Whether surface points are nearer to a cap than to the side."""
        return self.tall / 2 - np.abs(p[1]) < np.abs(np.hypot(p[0], p[2]) - self._radius(p[1]))

    def _side_normal(self, p: F32) -> F32:
        radial = np.hypot(p[0], p[2])
        return unit(np.stack([p[0], radial * np.float32((self.low - self.high) / self.tall), p[2]]))

    def normal(self, p: F32) -> F32:
        n = self._side_normal(p)
        cap = self._on_cap(p)
        n[:, cap] = 0
        n[1, cap] = np.sign(p[1, cap])
        return n

    def enter(self, o: F32, d: F32) -> F32:
        k, half = np.float32((self.high - self.low) / self.tall), np.float32(self.tall / 2)
        r, dr = self._radius(o[1]), k * d[1]
        a = d[0] ** 2 + d[2] ** 2 - dr**2
        a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
        b, c = o[0] * d[0] + o[2] * d[2] - r * dr, o[0] ** 2 + o[2] ** 2 - r**2
        root = b * b - a * c
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        side = (root > 0) & (t > _EPS) & (np.abs(o[1] + t * d[1]) <= half)
        best = np.where(side, t, np.float32(np.inf))
        dy = np.where(np.abs(d[1]) < 1e-9, np.float32(1e-9), d[1])
        for y, radius in ((half, self.high), (-half, self.low)):
            t = (y - o[1]) / dy
            cap = (t > _EPS) & ((o[0] + t * d[0]) ** 2 + (o[2] + t * d[2]) ** 2 <= radius**2)
            best = np.where(cap & (t < best), t, best)
        return best


@dataclass(eq=False, kw_only=True)
class Capsule(Solid):
    """A cylinder of radius `radius` with round ends, `2 * reach` between their centres, along the local y axis."""

    radius: float
    reach: float

    @property
    def extent(self) -> F32:
        return np.array([self.radius, self.reach + self.radius, self.radius], np.float32)

    def charts(self) -> list[tuple[float, float]]:
        return [(2 * (self.reach + self.radius), 2 * np.pi * self.radius)]

    def locate(self, p: F32) -> tuple[NDArray[np.intp], F32, F32]:
        u = np.arctan2(p[0], p[2]) / np.float32(2 * np.pi) % 1
        return np.zeros(u.shape, np.intp), u, p[1] / np.float32(2 * self.extent[1]) + np.float32(0.5)

    def point(self, chart: int, u: F32, v: F32) -> tuple[F32, F32]:  # noqa: ARG002 - it has one chart
        y = (2 * v - 1) * self.extent[1]
        beyond = np.maximum(np.abs(y) - np.float32(self.reach), 0)
        a, r = 2 * np.pi * u, np.sqrt(np.maximum(self.radius**2 - beyond**2, 0))
        p = np.stack([np.sin(a) * r, y, np.cos(a) * r]).astype(np.float32)
        return p, self.normal(p)

    def normal(self, p: F32) -> F32:
        n = p.copy()
        n[1] -= np.clip(p[1], -self.reach, self.reach)
        return unit(n + np.float32(1e-7))

    def enter(self, o: F32, d: F32) -> F32:
        a = np.maximum(d[0] ** 2 + d[2] ** 2, np.float32(1e-9))
        b, c = o[0] * d[0] + o[2] * d[2], o[0] ** 2 + o[2] ** 2 - np.float32(self.radius**2)
        root = b * b - a * c
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        side = (root > 0) & (t > _EPS) & (np.abs(o[1] + t * d[1]) <= self.reach)
        best = np.where(side, t, np.float32(np.inf))
        for y in (self.reach, -self.reach):
            oy = o[1] - np.float32(y)
            b = o[0] * d[0] + oy * d[1] + o[2] * d[2]
            root = b * b - (o[0] ** 2 + oy**2 + o[2] ** 2 - np.float32(self.radius**2))
            t = -b - np.sqrt(np.maximum(root, 0))
            best = np.where((root > 0) & (t > _EPS) & (t < best), t, best)
        return best


def nearest(solids: list[Solid], o: F32, d: F32) -> tuple[F32, NDArray[np.int16]]:
    """Distance to and number of the first solid along each world ray; inf and -1 where there is none."""
    distance = np.full(d.shape[1], np.inf, np.float32)
    which = np.full(d.shape[1], -1, np.int16)
    for start in range(0, d.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        for number, solid in enumerate(solids):
            t = solid.cast(o[:, part] if o.shape[1] > 1 else o, d[:, part])
            nearer = t < distance[part]
            distance[part][nearer] = t[nearer]
            which[part][nearer] = number
    return distance, which
