"""Points in space as PLY files, which MeshLab, CloudCompare, Blender and Open3D read.

Invariant: the header states what the numbers mean: unit, kind, model, axes, and the camera with its origin.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stream.depthdata.points import FocalSource, PointCloud, camera_of, ends_of, point_cloud
from stream.files import WriteContent
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.sinks.per_frame import PerFrameSink
from stream.version import __version__

SUFFIX = ".ply"
_VERTEX = np.dtype([("xyz", "<f4", (3,)), ("rgb", "u1", (3,))])
VERTEX_BYTES = _VERTEX.itemsize


class PointCloudSink(PerFrameSink):
    """Writes the points of each frame as binary little-endian PLY; see `point_cloud`.

    Args:
        path: a single file if it ends in `.ply`, otherwise a folder, in which the image `a.jpg` gives `a.ply`, and
            frame 12 of a video `000012.ply`.
        fov: see `point_cloud`.
        ends: see `point_cloud`.
        overwrite, names, beside, stride: see `PerFrameSink`.
    """

    needs_image = False

    def __init__(
        self,
        path: Path,
        *,
        fov: float | None = None,
        ends: tuple[float, float] | None = None,
        overwrite: bool = False,
        names: Collection[str] = (),
        beside: Collection[str] = (),
        stride: int = 1,
    ) -> None:
        self._fov, self._ends = fov, ends
        self._is_video, self._assumed = False, 0
        self._said: set[str] = set()
        super().__init__(
            path,
            suffix=SUFFIX,
            is_single=path.suffix.lower() == SUFFIX,
            overwrite=overwrite,
            names=names,
            beside=beside,
            stride=stride,
        )

    @property
    def counters(self) -> Mapping[str, int]:
        """See `PerFrameSink`; and clouds whose camera is unknown."""
        return {**super().counters, **({"assumed_cameras": self._assumed} if self._assumed else {})}

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """See `PerFrameSink`."""
        self._is_video = info.kind is not SourceKind.STILLS
        super().open(info, size)

    def _content(self, frame: Frame, depth: Depth, image: RgbImage) -> tuple[WriteContent, int]:  # noqa: ARG002
        ends = self._ends
        if depth.kind is DepthKind.RELATIVE_DISPARITY and ends is None:
            ends = ends_of(depth)
            if self._is_video:
                self._say(scale_note("--save ply"))
        if camera_of(frame, depth, self._fov)[1] is FocalSource.ASSUMED:
            self._assumed += 1
            self._say(assumed_note("--save ply"))

        def write(file: BinaryIO) -> None:
            cloud = point_cloud(frame, depth, fov=self._fov, ends=ends)
            file.write(_header(cloud, depth, ends))
            vertices = np.empty(len(cloud), _VERTEX)
            vertices["xyz"], vertices["rgb"] = cloud.xyz, cloud.rgb
            file.write(vertices.view(np.uint8).data)

        return write, frame.rgb.nbytes + depth.values.nbytes + depth.values.size * 2 * VERTEX_BYTES

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.notes.append(text)


def scale_note(what: str) -> str:
    """The note for a video with a range of its own for each frame."""
    return f"{what}: disparity has no scale, so each frame's points get their own; --range clip or LO:HI fixes it"


def assumed_note(what: str) -> str:
    """The note for images whose camera is unknown."""
    return (
        f"{what}: neither --fov nor the image nor the model states how wide the camera sees; 60° along the longer side "
        "is assumed"
    )


def _header(cloud: PointCloud, depth: Depth, ends: tuple[float, float] | None) -> bytes:
    camera, (height, width) = cloud.camera, depth.size
    kind = depth.kind.value
    if depth.kind is DepthKind.RELATIVE_DISPARITY and ends is not None:
        kind += f"; disparity {ends[0]!r} lies at the far end, {ends[1]!r} at the near end"
    comments = (
        f"depthstream {__version__}",
        f"unit: {cloud.unit}",
        f"kind: {kind}",
        f"model: {depth.model or 'unknown'}",
        "axes: x right, y down, z forward; the camera is at 0 0 0 (OpenCV)",
        f"image: {width} x {height} pixels",
        f"focal: {camera.fx!r} {camera.fy!r} pixels, from {cloud.focal_source.value}",
        f"centre: {camera.cx!r} {camera.cy!r} pixels",
        f"left out: {cloud.left_out} pixels at depth edges",
    )
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {' '.join(text.split())}" for text in comments]
    lines += [f"element vertex {len(cloud)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")
