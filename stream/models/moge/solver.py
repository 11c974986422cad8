"""Recovers the focal length and the shift of z from points whose z is known up to a shift.

With the shift s, a point (x, y, z) appears at (u, v) = f · (x, y) / (z + s). For each s the best f has a closed form,
so one unknown is left. The official code leaves it to SciPy's `least_squares(method="lm", x0=0, ftol=1e-3)`, which
stops before the optimum; where the problem is ill-conditioned that decides the result. So the steps here are those of
MINPACK's `lmder` for one unknown (Moré 1978, "The Levenberg-Marquardt algorithm").
Invariant: double precision on the host; no result is NaN.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_FTOL, _XTOL, _GTOL = 1e-3, 1e-8, 1e-8
_FIRST_RADIUS = 100.0
_DIFFERENCE = math.sqrt(np.finfo(np.float64).eps)
_MOST_EVALUATIONS = 100
_ACCEPTED, _POOR, _GOOD = 1e-4, 0.25, 0.75

Array = NDArray[np.float64]


def recovered(xyz: NDArray[np.float32], uv: NDArray[np.float64], focal: float | None = None) -> tuple[float, float]:
    """The focal length, in half diagonals of the picture, and what has to be added to z.

    Args:
        xyz: N×3; with fewer than 2 points the shift is 0 and the focal length 1 unless it is given.
        uv: N×2, where the points appear, in half diagonals from the centre.
        focal: the focal length if it is known.
    """
    if len(xyz) < 2:
        return 1.0 if focal is None else focal, 0.0
    xy, z = xyz[:, :2].astype(np.float64), xyz[:, 2].astype(np.float64)

    def residuals(shift: float) -> Array:
        seen = xy / (z + shift)[:, None]
        return np.asarray((_focal(seen, uv) if focal is None else focal) * seen - uv).ravel()

    with np.errstate(all="ignore"):  # a step may put a point into the plane of the camera; it is refused
        shift = float(np.float32(_minimum(residuals)))
        found = _focal(xy / (z + shift)[:, None], uv) if focal is None else focal
    return (found, shift) if math.isfinite(found) else (1.0, 0.0)


def _focal(seen: Array, uv: Array) -> float:
    """The factor that brings `seen` closest to `uv`."""
    return float((seen * uv).sum() / np.square(seen).sum())


def _minimum(residuals: Callable[[float], Array]) -> float:
    """Where the sum of the squared residuals is least, as `lmder` finds it from 0."""
    x, r, evaluations = 0.0, residuals(0.0), 1
    norm, scale, radius, damping = _norm(r), 0.0, 0.0, 0.0
    has_moved = False
    while math.isfinite(norm) and norm > 0:
        h = math.copysign(_DIFFERENCE * max(1.0, abs(x)), x if x else 1.0)
        slope = (residuals(x + h) - r) / ((x + h) - x)
        steepness, towards = _norm(slope), float(slope @ r)
        if not abs(towards) > _GTOL * steepness * norm:
            break
        scale = max(scale, steepness)
        if not has_moved:
            radius = _FIRST_RADIUS * scale * abs(x) or _FIRST_RADIUS
        ratio = 0.0
        while ratio < _ACCEPTED:
            damping = _damping(towards, steepness, scale, radius, damping)
            step = towards / (steepness**2 + damping * scale**2)
            length = scale * abs(step)
            if not has_moved:
                radius = min(radius, length)
            tried = residuals(x - step)
            evaluations += 1
            new_norm = _norm(tried)
            is_usable = 0.1 * new_norm < norm  # False for NaN
            actual = 1 - (new_norm / norm) ** 2 if is_usable else -1.0
            linear, damped = (steepness * step / norm) ** 2, damping * (length / norm) ** 2
            predicted = linear + 2 * damped
            ratio = actual / predicted if predicted else 0.0
            if ratio <= _POOR:
                falling = -(linear + damped)
                share = 0.5 if actual >= 0 else 0.5 * falling / (falling + 0.5 * actual)
                share = max(share, 0.1) if is_usable else 0.1
                radius = share * min(radius, 10 * length)
                damping /= share
            elif damping == 0 or ratio >= _GOOD:
                radius, damping = 2 * length, damping / 2
            if ratio >= _ACCEPTED:
                x, r, norm, has_moved = x - step, tried, new_norm, True
            is_flat = abs(actual) <= _FTOL and predicted <= _FTOL and ratio <= 2
            if is_flat or radius <= _XTOL * scale * abs(x) or evaluations >= _MOST_EVALUATIONS:
                return x
    return x


def _norm(r: Array) -> float:
    return float(np.sqrt(r @ r))


def _damping(towards: float, steepness: float, scale: float, radius: float, before: float) -> float:
    """The Levenberg parameter that shortens a step to the radius; the last one if that does it to a tenth."""
    length = scale * abs(towards) / steepness**2
    if length <= 1.1 * radius:
        return 0.0
    least, most = (length / radius - 1) * (steepness / scale) ** 2, abs(towards) / (scale * radius)
    kept = min(before, most)
    if kept > least and abs(scale * abs(towards) / (steepness**2 + kept * scale**2) - radius) <= 0.1 * radius:
        return kept
    return least
