"""How a depth video is stored: the encoded picture, the exact times, and the description beside it.

Invariant: the sink and the reader take every such fact from here.
"""

import struct
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import Codes
from stream.errors import SourceError, reason_of
from stream.files import open_regular
from stream.frames import DepthMap, Intrinsics
from stream.media import av

if TYPE_CHECKING:
    from av.packet import Packet

TAG = "DEPTHSTREAM"
"""The tag of the container that holds the description as JSON."""
STREAMS = {DepthCodec.FFV1: ("ffv1", "gray16le"), DepthCodec.HEVC12: ("hevc", "gray12le")}
STREAMS[DepthCodec.FLOAT32] = STREAMS[DepthCodec.FFV1]
"""FFmpeg's names of the codec and the pixel format."""
_LONGEST_SIDECAR = 100_000  # bytes; ours have 1 000
_LEAST_HEVC_SIDE = 16  # libx265 refuses less
_TIME = struct.Struct(">qqq")
_CAMERA = struct.Struct(">4d")
_ADDITION = struct.Struct(">Q4sqqqL")
_ADDITION_NUMBER, _MARK = 1, b"dpts"
_BLOCK_ADDITIONAL = 15
"""FFmpeg's AV_PKT_DATA_MATROSKA_BLOCKADDITIONAL; its first eight bytes are the number of the addition."""


@dataclass(frozen=True)
class FrameTime:
    """The number and the exact time of a frame, in units of the video's time base, and its camera if it is known.

    Matroska rounds its own times to milliseconds, so each frame carries these in block addition 1: the four bytes
    `dpts`, then number, pts and duration as big-endian signed 64-bit integers, the CRC-32 of these, the camera and the
    packet, and, if the camera is known, its `fx`, `fy`, `cx` and `cy` as big-endian 64-bit floats.
    FFV1 has sums of its own, but FFmpeg's decoder only logs that one is wrong, and fills in pixels of the frame before.
    """

    number: int
    pts: int
    duration: int
    camera: Intrinsics | None = None

    def attach(self, packet: "Packet[Any]") -> None:
        """Store them in a packet that goes to Matroska."""
        content = _ADDITION.pack(_ADDITION_NUMBER, _MARK, self.number, self.pts, self.duration, self._checksum(packet))
        content += self._packed_camera
        make: Any = av.packet.PacketSideData  # its constructor is not typed
        data = make(_BLOCK_ADDITIONAL, len(content))
        data.update(content)
        packet.set_sidedata(data)

    @classmethod
    def of(cls, packet: "Packet[Any]") -> "FrameTime | None":
        """Those that a packet carries, None if it carries none.

        Raises:
            ValueError: the packet is not the one that they were stored with, or they are no camera.
        """
        content = bytes(packet.get_sidedata("matroska_block_additional"))
        if len(content) not in (_ADDITION.size, _ADDITION.size + _CAMERA.size):
            return None
        addition, mark, number, pts, duration, checksum = _ADDITION.unpack_from(content)
        if (addition, mark) != (_ADDITION_NUMBER, _MARK):
            return None
        camera = None
        if len(content) > _ADDITION.size:
            fx, fy, cx, cy = _CAMERA.unpack_from(content, _ADDITION.size)
            camera = Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy)
        time = cls(number, pts, duration, camera)
        if time._checksum(packet) != checksum:
            raise ValueError(f"frame {number} is damaged")
        return time

    @property
    def _packed_camera(self) -> bytes:
        return b"" if self.camera is None else _CAMERA.pack(*astuple(self.camera))

    def _checksum(self, packet: "Packet[Any]") -> int:
        return crc32(packet, crc32(_TIME.pack(self.number, self.pts, self.duration) + self._packed_camera))


def sidecar_path(path: Path) -> Path | None:
    """`X.depth.json` of `X.depth.mkv` and `X.depth.mp4`; other names have none."""
    is_depth = path.with_suffix("").suffix.lower() == ".depth"
    return path.with_suffix(".json") if is_depth else None


def picture_size(codec: DepthCodec, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the encoded picture that holds a depth map of `size`."""
    if codec is DepthCodec.FLOAT32:
        return 2 * size[0], size[1]
    if codec is DepthCodec.HEVC12:
        return max(_LEAST_HEVC_SIDE, size[0]), max(_LEAST_HEVC_SIDE, size[1])
    return size


def split_halves(values: DepthMap) -> Codes:
    """The bits of float32 H×W as uint16 2H×W, high halves over low halves."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    height = len(bits)
    halves = np.empty((2 * height, bits.shape[1]), np.uint16)
    halves[:height], halves[height:] = bits >> 16, bits & 0xFFFF
    return halves


def join_halves(halves: Codes) -> DepthMap:
    """What `split_halves` was given."""
    height = len(halves) // 2
    bits = halves[:height].astype(np.uint32) << 16
    bits |= halves[height:]
    return bits.view(np.float32)


def read_description(path: Path) -> Description:
    """Read a sidecar `NAME.depth.json` or a `depth.json`.

    Raises:
        SourceError: it cannot be read, or a field is wrong.
    """
    try:
        with open_regular(path) as file:
            content = file.read(_LONGEST_SIDECAR + 1)
        if len(content) > _LONGEST_SIDECAR:
            raise ValueError(f"has more than {_LONGEST_SIDECAR} bytes")
        return Description.from_json(content.decode())
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
    except ValueError as error:
        raise SourceError(f"is no description of depth: {error}", where=str(path)) from error
