"""Finds the JPEG preview in a RAW photo: sensor data themselves are not developed here.

Cameras put one or several JPEGs into their RAW files, in places of their own. All are found by their markers, which
works for every maker. The first image of a RAW file is usually a thumbnail of 160 pixels and never used.
Invariant: a preview is only used if it is large enough to stand for the photo; see `is_large_enough`.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from stream.capture.stills import jpeg, tiff

SUFFIXES = frozenset(
    (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".raf", ".rw2", ".rwl", ".orf", ".pef", ".srw")
) | {".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".x3f", ".gpr"}
"""Lower-case suffixes of RAW photos."""

_CFA, _LINEAR = 32803, 34892
"""PhotometricInterpretation of sensor data: TIFF/EP (ISO 12234-2) and the DNG specification."""
_PREFIXES = (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
"""Fujifilm RAF, Sigma X3F, Minolta MRW, Canon CRW, Panasonic RW2, Olympus ORF (three)."""
_CR3_BRAND, _CR3_TAGS, _CR3_TAG_BYTES = b"crx ", b"CMT1", 1 << 16
"""Canon CR3: its brand, and the box with the first directory of its EXIF."""
_BASELINE_OR_PROGRESSIVE = frozenset((0xC0, 0xC1, 0xC2))
_MIN_SIDE = 1000
"""Some cameras embed no more than 1616×1080 of 24 megapixels. That is twice the input of the usual depth networks."""
_MIN_SHARE = 2
"""A smaller preview is used if the sensor is at most this many times as large in each direction."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """An embedded JPEG."""

    start: int
    header: jpeg.Header

    @property
    def size_hw(self) -> tuple[int, int]:
        """Stored (height, width)."""
        return self.header.size_hw


@dataclass(frozen=True, kw_only=True)
class RawPhoto:
    """What a RAW file holds.

    Attributes:
        preview: the largest JPEG, None if there is none.
        sensor_hw: size of the sensor data; (0, 0) if the file does not state it where TIFF does.
        orientation: of the sensor data, 0 if unstated.
    """

    preview: Preview | None
    sensor_hw: tuple[int, int]
    orientation: int

    @property
    def is_large_enough(self) -> bool:
        """The preview is no thumbnail: it has 1000 pixels, or half the sensor's, in its longer direction."""
        if self.preview is None:
            return False
        side = max(self.preview.size_hw)
        return side >= _MIN_SIDE or 0 < max(self.sensor_hw) <= _MIN_SHARE * side

    @property
    def turn(self) -> int:
        """The orientation to apply to a preview that states none itself; 1 if it has been turned already."""
        if self.preview is None or self.orientation < 5 or 0 in self.sensor_hw:
            return self.orientation or 1
        (height, width), (sensor_height, sensor_width) = self.preview.size_hw, self.sensor_hw
        return self.orientation if (height > width) == (sensor_height > sensor_width) else 1

    def __str__(self) -> str:
        sensor = f" of {_by(self.sensor_hw)}" if all(self.sensor_hw) else ""
        return f"{_by(self.preview.size_hw)}{sensor}" if self.preview else f"none{sensor}"


def is_raw(prefix: bytes, ifds: list[tiff.Ifd]) -> bool:
    """Return True for a RAW photo, by its first 16 bytes and its directories, if it has any."""
    if prefix.startswith(_PREFIXES) or prefix[4:12] == b"ftyp" + _CR3_BRAND:
        return True
    is_canon = prefix[:2] in (b"II", b"MM") and prefix[8:10] == b"CR"
    return is_canon or any(_is_sensor(ifd) or tiff.DNG_VERSION in ifd.tags for ifd in ifds)


def read_raw(data: bytes | mmap, ifds: list[tiff.Ifd]) -> RawPhoto:
    """Look for the previews in the content of a RAW file."""
    if not ifds and (at := data.find(_CR3_TAGS)) >= 0:
        ifds = tiff.read_ifds(io.BytesIO(data[at + len(_CR3_TAGS) : at + _CR3_TAG_BYTES]))
    sensors = [ifd for ifd in ifds if _is_sensor(ifd)]
    parts = {at for ifd in sensors for tag in (tiff.STRIP_OFFSETS, tiff.TILE_OFFSETS) for at in ifd.tags.get(tag, ())}
    sizes = [ifd.size_hw for ifd in sensors]
    previews = []
    for start in _starts(data):
        header = None if start in parts else jpeg.header_at(data, start)
        if header is None:
            continue
        if header.frame in _BASELINE_OR_PROGRESSIVE and header.bits == 8:
            previews.append(Preview(start=start, header=header))
        else:  # Canon's sensor data: lossless, with the columns of a row distributed over the components
            height, width = header.size_hw
            sizes.append((height, width * header.components))
    return RawPhoto(
        preview=max(previews, key=lambda preview: _area(preview.size_hw), default=None),
        sensor_hw=max(sizes, key=_area, default=(0, 0)),
        orientation=tiff.orientation_in(ifds),
    )


def _is_sensor(ifd: tiff.Ifd) -> bool:
    return ifd.get(tiff.PHOTOMETRIC) in (_CFA, _LINEAR)


def _starts(data: bytes | mmap) -> Iterator[int]:
    at = data.find(jpeg.SOI)
    while at >= 0:
        yield at
        at = data.find(jpeg.SOI, at + 1)


def _area(size_hw: tuple[int, int]) -> int:
    return size_hw[0] * size_hw[1]


def _by(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}×{size_hw[0]}"
