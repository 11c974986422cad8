"""From a depth map to points in space: the pinhole camera, the unit of each kind of depth, and the cut at depth edges.

Invariant: a point lies on the ray of its pixel, and no point lies between a near surface and a far one behind it.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stream.frames import Depth, DepthKind, DepthMap, Frame, Intrinsics, Mask

NEAR, FAR = 1.0, 10.0
"""Distances given to the near and the far end of relative disparity, whose scale and shift are unknown. Comparisons
make the same choice, see `compare.agreement`."""
ENDS = (1.0, 99.0)
"""Percentiles of a map's disparity that lie at `FAR` and `NEAR`, unless the ends are given."""
MOST = 2 * FAR
"""No point of relative disparity lies farther than this."""
EDGE_JUMP, EDGE_SLOPE = 0.05, 20.0
"""A pixel lies on a depth edge if the depth of one of its four neighbours differs by more than 5 % of the nearer, or by
more than 20 / focal length in pixels, as on a surface seen at an angle of more than 87°. Networks blur an edge over
several pixels, over more of them in a larger image, and the focal length grows with it."""
_ROWS = 512


class FocalSource(StrEnum):
    """Where a focal length comes from."""

    OPTION = "--fov"
    PHOTO = "EXIF"
    MODEL = "the model"
    ASSUMED = "an assumed 60 degrees along the longer side"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PointCloud:
    """Coloured points as an OpenCV camera sees them: x to the right, y down, z forward, the camera at (0, 0, 0).

    Attributes:
        xyz: float32 N×3, in `unit`.
        rgb: uint8 N×3, of the frame.
        unit: see `unit_of`.
        camera: in pixels of the frame.
        focal_source: where its focal length comes from.
        left_out: number of pixels with an answer that lie on depth edges, or not in front of the camera.
    """

    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    unit: str
    camera: Intrinsics
    focal_source: FocalSource
    left_out: int

    def __len__(self) -> int:
        return len(self.xyz)

    def __repr__(self) -> str:
        return f"PointCloud({len(self)} points, {self.unit})"


def point_cloud(
    frame: Frame, depth: Depth, *, fov: float | None = None, ends: tuple[float, float] | None = None
) -> PointCloud:
    """The points of a depth map, one for each pixel that has an answer and lies on no depth edge.

    Args:
        fov: horizontal field of view in degrees; None: see `camera_of`.
        ends: for relative disparity, the values at the distances `FAR` and `NEAR`; None: this map's percentiles `ENDS`.
    """
    camera, source = camera_of(frame, depth, fov)
    z = distances(depth, ends)
    keep = ~edges(z, camera)
    height, width = z.shape
    x = ((np.arange(width) + 0.5 - camera.cx) / camera.fx).astype(np.float32)
    y = ((np.arange(height) + 0.5 - camera.cy) / camera.fy).astype(np.float32)
    near = z[keep]
    xyz = np.empty((len(near), 3), np.float32)
    np.multiply(np.broadcast_to(x, z.shape)[keep], near, out=xyz[:, 0])
    np.multiply(np.broadcast_to(y[:, None], z.shape)[keep], near, out=xyz[:, 1])
    xyz[:, 2] = near
    return PointCloud(
        xyz=xyz,
        rgb=frame.rgb[keep],
        unit=unit_of(depth.kind),
        camera=camera,
        focal_source=source,
        left_out=depth.answers.size - len(near),
    )


def unit_of(kind: DepthKind) -> str:
    """The unit of the points, for people."""
    match kind:
        case DepthKind.METRIC_DEPTH:
            return "metres"
        case DepthKind.RELATIVE_DEPTH:
            return "the model's own, of unknown size"
        case DepthKind.RELATIVE_DISPARITY:
            return f"unknown; near end at {NEAR:g}, far end at {FAR:g}"


def camera_of(frame: Frame, depth: Depth, fov: float | None = None) -> tuple[Intrinsics, FocalSource]:
    """The camera: with a horizontal field of view of `fov` degrees if that is given, else the one that the model
    estimated, which its depth belongs to, else the one of the photo's metadata, else one that sees `DEFAULT_FOV` along
    the longer side."""
    if fov is not None:
        return Intrinsics.seeing(fov, frame.size[1], frame.size), FocalSource.OPTION
    if depth.intrinsics is not None:
        return depth.intrinsics, FocalSource.MODEL
    if frame.intrinsics is not None:
        return frame.intrinsics, FocalSource.PHOTO
    return Intrinsics.assumed(frame.size), FocalSource.ASSUMED


def distances(depth: Depth, ends: tuple[float, float] | None = None) -> DepthMap:
    """Distances along the optical axis, float32 H×W, NaN where there is none in front of the camera.

    Metres and relative depth are as the model gives them. Relative disparity d becomes 1 / (a · d + b), where a and b
    put the ends at `FAR` and `NEAR`.

    Args:
        ends: see `point_cloud`.
    """
    if depth.kind is not DepthKind.RELATIVE_DISPARITY:
        return np.where(depth.values > 0, depth.values, np.float32(np.nan))
    low, high = ends if ends is not None else ends_of(depth)
    scale = (1 / NEAR - 1 / FAR) / (high - low) if high > low else 0.0
    shares = depth.values * np.float32(scale) + np.float32(1 / FAR - low * scale)
    np.maximum(shares, np.float32(1 / MOST), out=shares)
    np.reciprocal(shares, out=shares)
    return shares


def ends_of(depth: Depth) -> tuple[float, float]:
    """The percentiles `ENDS` of the values that are answers; 0 and 0 without any."""
    if not depth.answers.size:
        return 0.0, 0.0
    low, high = np.percentile(depth.answers, ENDS)
    return float(low), float(high)


def edges(z: DepthMap, camera: Intrinsics) -> Mask:
    """Pixels that lie on a depth edge or have no distance: bool H×W.

    Args:
        z: distances, NaN where there is none; an end of the answers is no edge.
    """
    found = np.isnan(z)
    jump = min(EDGE_JUMP, EDGE_SLOPE / camera.fx), min(EDGE_JUMP, EDGE_SLOPE / camera.fy)
    with np.errstate(invalid="ignore"):  # NaN compares as False
        for top in range(0, len(z), _ROWS):  # the arrays of a strip stay in the processor's cache
            rows, part = z[top : top + _ROWS + 1], found[top : top + _ROWS + 1]
            across = np.abs(np.diff(rows, axis=1)) > jump[0] * np.minimum(rows[:, 1:], rows[:, :-1])
            part[:, 1:] |= across
            part[:, :-1] |= across
            down = np.abs(np.diff(rows, axis=0)) > jump[1] * np.minimum(rows[1:], rows[:-1])
            part[1:] |= down
            part[:-1] |= down
    return found
