"""Light for the demo clip, computed once for the whole scene: sun, sky and three bounces between all surfaces.

The scene is static, so the light on each surface is stored in texels. A frame then costs one ray per sample and has no
noise, and neighbouring frames agree, which keeps the clip small.
Invariant: the same solids and settings give the same light map, bit for bit, whatever the number of processes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from solids import F32, Solid, dot, nearest, unit

from stream.media import cv2

Environment = Callable[[F32], F32]
"""Maps unit directions to the linear radiance of the surroundings."""

_BOUNCES = 3
_BLOCK = 256
"""Texels per task."""
_LIFT_M = 2e-3
"""Rays start this far above their surface."""


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Parallel light from a disc.

    Attributes:
        towards: unit direction to its middle.
        irradiance: linear RGB on a surface that faces it.
        spread: radius of the disc at distance 1; wider than the real 0.005, for softer shadows.
        samples: shadow rays a texel.
    """

    towards: tuple[float, float, float]
    irradiance: tuple[float, float, float]
    spread: float = 0.02
    samples: int = 16


class Surfaces:
    """All texels of a scene in one list: positions, normals and colours."""

    def __init__(self, solids: list[Solid], *, coarseness: float = 1.0) -> None:
        self.solids = solids
        self.shapes: list[list[tuple[int, int]]] = []
        self.firsts: list[list[int]] = []
        points, normals, albedos, glows = [], [], [], []
        first = 0
        for solid in solids:
            texel = solid.texel * coarseness
            shapes = [(max(3, round(h / texel)), max(3, round(w / texel))) for h, w in solid.charts()]
            firsts = []
            for chart, (rows, columns) in enumerate(shapes):
                v, u = np.mgrid[:rows, :columns].astype(np.float32).reshape(2, -1) + np.float32(0.5)
                p, n = solid.point(chart, u / columns, v / rows)
                points.append(solid.turn @ p + np.array(solid.centre, np.float32)[:, None])
                normals.append(solid.turn @ n)
                albedos.append(solid.paint(p, n, np.full(u.shape, texel, np.float32)))
                glows.append(np.broadcast_to(np.array(solid.glow, np.float32)[:, None], p.shape))
                firsts.append(first)
                first += rows * columns
            self.shapes.append(shapes)
            self.firsts.append(firsts)
        self.points, self.normals = np.concatenate(points, axis=1), np.concatenate(normals, axis=1)
        self.albedo, self.glow = np.concatenate(albedos, axis=1), np.concatenate(glows, axis=1)
        self.count = first

    def texel_of(self, number: int, p: F32) -> np.ndarray:
        """The texel nearest to local points of solid `number`."""
        chart, u, v = self.solids[number].locate(p)
        rows, columns = np.array(self.shapes[number]).T[:, chart]
        row = np.clip((v * rows).astype(np.intp), 0, rows - 1)
        return (
            np.array(self.firsts[number])[chart]
            + row * columns
            + np.clip((u * columns).astype(np.intp), 0, columns - 1)
        )

    def sample(self, number: int, p: F32, light: F32) -> F32:
        """Bilinear look-up of a (count, 3) light map at local points of solid `number`."""
        solid = self.solids[number]
        chart, u, v = solid.locate(p)
        rows, columns = np.array(self.shapes[number]).T[:, chart]
        first = np.array(self.firsts[number])[chart]
        x, y = u * columns - np.float32(0.5), np.clip(v * rows - np.float32(0.5), 0, rows - 1)
        wraps = (chart == 0) if solid.wraps else np.zeros(chart.shape, bool)
        x = np.where(wraps, x, np.clip(x, 0, columns - 1)).astype(np.float32)
        left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        fx, fy = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
        right, bottom = (left + 1) % columns, np.minimum(top + 1, rows - 1)
        right, left = np.where(wraps, right, np.minimum(left + 1, columns - 1)), left % columns
        upper, lower = first + top * columns, first + bottom * columns
        above = light[upper + left] * (1 - fx) + light[upper + right] * fx
        below = light[lower + left] * (1 - fx) + light[lower + right] * fx
        return (above * (1 - fy) + below * fy).T

    def smoothed(self, light: F32, sigma: float) -> F32:
        """A light map blurred within each chart by `sigma` texels."""
        result = np.empty_like(light)
        for shapes, firsts in zip(self.shapes, self.firsts, strict=True):
            for (rows, columns), first in zip(shapes, firsts, strict=True):
                part = slice(first, first + rows * columns)
                image = np.ascontiguousarray(light[part].reshape(rows, columns, 3))
                result[part] = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE).reshape(-1, 3)
        return result


def blocks(surfaces: Surfaces) -> list[int]:
    """First texels of the tasks for `gather`."""
    return list(range(0, surfaces.count, _BLOCK))


def gather(
    surfaces: Surfaces, environment: Environment, sun: Sun, first: int, rays: int
) -> tuple[F32, F32, np.ndarray]:
    """Trace rays from one block of texels.

    Returns:
        Irradiance (n, 3) from the sun, from outside, and the texel (n, rays) that each ray meets, -1 for outside.
    """
    rng = np.random.default_rng(first)
    part = slice(first, first + _BLOCK)
    p, n = surfaces.points[:, part], surfaces.normals[:, part]
    p = p + np.float32(_LIFT_M) * n
    count = p.shape[1]

    towards = np.array(sun.towards, np.float32)[:, None]
    lit = np.flatnonzero(dot(n, np.broadcast_to(towards, n.shape)) > 0)
    direct = np.zeros((count, 3), np.float32)
    if lit.size:
        angle = rng.random((lit.size, sun.samples), np.float32) * np.float32(2 * np.pi)
        radius = np.sqrt((np.arange(sun.samples, dtype=np.float32) + np.float32(0.5)) / sun.samples) * sun.spread
        a = unit(np.cross(towards[:, 0], [0, 1, 0])[:, None].astype(np.float32))
        b = np.cross(towards[:, 0], a[:, 0])[:, None].astype(np.float32)
        rim = a[..., None] * (np.cos(angle) * radius) + b[..., None] * (np.sin(angle) * radius)
        d = unit((towards[..., None] + rim).reshape(3, -1).astype(np.float32))
        distance, _ = nearest(surfaces.solids, np.repeat(p[:, lit], sun.samples, axis=1), d)
        free = np.isinf(distance).reshape(lit.size, -1).mean(axis=1, dtype=np.float32)
        cosine = (n[:, lit] * towards).sum(axis=0)
        direct[lit] = (free * cosine)[:, None] * np.array(sun.irradiance, np.float32)

    d = _hemisphere(n, rays, rng)
    origin = np.repeat(p, rays, axis=1)
    distance, which = nearest(surfaces.solids, origin, d)
    outside = which < 0
    radiance = np.zeros((3, d.shape[1]), np.float32)
    radiance[:, outside] = environment(d[:, outside])
    sky = np.float32(np.pi) * radiance.reshape(3, count, rays).mean(axis=2).T
    texels = np.full(d.shape[1], -1, np.int32)
    for number, solid in enumerate(surfaces.solids):
        seen = np.flatnonzero(which == number)
        if seen.size:
            hit = origin[:, seen] + distance[seen] * d[:, seen]
            texels[seen] = surfaces.texel_of(number, solid.to_local(hit))
    return direct, sky, texels.reshape(count, rays)


def _hemisphere(n: F32, rays: int, rng: np.random.Generator) -> F32:
    """`rays` cosine-weighted directions (3, n·rays) around each normal: a golden-ratio lattice, turned at random."""
    k = np.arange(rays, dtype=np.float32)
    shift = rng.random((2, n.shape[1], 1), np.float32)
    radius = np.sqrt((k + shift[0]) / rays)
    angle = np.float32(2 * np.pi) * ((k * np.float32(0.61803399) + shift[1]) % 1)
    helper = np.where(np.abs(n[1]) < 0.9, np.array([[0], [1], [0]], np.float32), np.array([[1], [0], [0]], np.float32))
    a = unit(np.cross(helper, n, axis=0))
    b = np.cross(n, a, axis=0)
    x, y, z = radius * np.cos(angle), radius * np.sin(angle), np.sqrt(np.maximum(1 - radius**2, 1e-4))
    d = a[..., None] * x + b[..., None] * y + n[..., None] * z
    return unit(d.reshape(3, -1).astype(np.float32))


def light_map(surfaces: Surfaces, parts: list[tuple[F32, F32, np.ndarray]]) -> F32:
    """Irradiance (count, 3) from the gathered blocks, bounced between the surfaces."""
    sun, sky = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    albedo, glow = surfaces.albedo.T, surfaces.glow.T
    soft = sky
    for _ in range(_BOUNCES):
        leaving = np.concatenate([glow + albedo * (sun + soft) / np.float32(np.pi), np.zeros((1, 3), np.float32)])
        rows = [np.float32(np.pi) * leaving[texels].mean(axis=1) for _, _, texels in parts]  # -1 is the black last row
        soft = sky + np.concatenate(rows)
    return sun + surfaces.smoothed(soft, 1.2)
