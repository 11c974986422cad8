"""Tells by its first bytes what an image file is, and which suffixes images have.

Invariant: the content decides; a suffix only where a format has no signature (TGA, PCX).
"""

from pathlib import Path

from stream.capture.stills import jpeg, png, raw
from stream.files import open_regular

SUFFIXES = (
    frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib"))
    | {".gif", ".avif", ".heic", ".heif", ".hif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jxl"}
    | {".psd", ".tga", ".qoi", ".dds", ".ico", ".pcx", ".exr", ".hdr", ".pfm", ".dpx"}
    | raw.SUFFIXES
)
"""Lower-case suffixes of images. Most are read; the others are recognised, to say what to do."""
FORMATS = (
    "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, PPM, JPEG 2000, PSD, TGA, DDS, ICO, PCX, QOI, EXR, HDR, DPX, PFM"
)
_PILLOW_FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "PPM", "JPEG2000", "PSD", "DDS", "ICO")
_BY_SUFFIX = {".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA", ".pcx": "PCX"}
"""Formats without a signature: Pillow would take any damaged file for one."""
PREFIX_BYTES = 64

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF in both byte orders."""
_PSD = b"8BPS"
_MAGIC = (jpeg.SOI, png.SIGNATURE[:6], b"BM", b"GIF8", *TIFF_MAGIC, _PSD, b"DDS ")
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_BY_FFMPEG = {
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "EXR",
    b"#?RADIANCE": "HDR",
    b"#?RGBE": "HDR",
    b"PF\n": "PFM",
    b"Pf\n": "PFM",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
}
_UNSUPPORTED = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"%PDF-": "PDF",
    b"%!PS": "PostScript",
    b"gimp xcf": "GIMP's XCF",
    b"II\xbc": "JPEG XR",
}
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def is_picture(path: Path) -> bool:
    """Return True if the file starts like an image; see `holds_picture`.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return holds_picture(stream.read(PREFIX_BYTES), path.suffix)


def may_be_animated(path: Path) -> bool:
    """Return True if the file starts like one of a format of animations.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as stream:
        prefix = stream.read(PREFIX_BYTES)
    return prefix.startswith((b"GIF8", png.SIGNATURE)) or prefix[8:12] == b"WEBP" or b"avis" in brands(prefix)


def holds_picture(prefix: bytes, suffix: str = "") -> bool:
    """Return True if a file that starts with `prefix` is an image, of a format that is read or not.

    Args:
        prefix: at least the first `PREFIX_BYTES`.
        suffix: of its name; decides for formats without a long enough signature.
    """
    return (
        prefix.startswith((*_MAGIC, *_JPEG_2000, *_BY_FFMPEG, *_UNSUPPORTED))
        or prefix[8:12] == b"WEBP"
        or is_icon(prefix)
        or bool(brands(prefix[:PREFIX_BYTES]) & (_HEIF_BRANDS | _AVIF_BRANDS))
        or raw.is_raw(prefix, [])
        or suffix.lower() in _BY_SUFFIX
        or (prefix[:1] == b"P" and prefix[1:2] in b"123456" and prefix[2:3].isspace())
    )


def is_icon(prefix: bytes) -> bool:
    """Return True for an ICO of up to 255 images; its first bytes alone are also a start code of MPEG-4 video."""
    is_reserved = prefix[9:10] in (b"\0", b"\xff")  # 255 is what .NET writes
    return prefix.startswith(b"\0\0\1\0") and is_reserved and 0 < int.from_bytes(prefix[4:6], "little") < 256


def pillow_formats(suffix: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats that a file with this suffix may have."""
    named = _BY_SUFFIX.get(suffix.lower())
    return (*_PILLOW_FORMATS, named) if named else _PILLOW_FORMATS


def is_heif(prefix: bytes) -> bool:
    """Return True for HEIC and its relatives, but not for AVIF."""
    found = brands(prefix)
    return bool(found & _HEIF_BRANDS) and not found & _AVIF_BRANDS


def is_jpeg_2000(prefix: bytes) -> bool:
    """Return True for a JPEG 2000 file or a bare codestream."""
    return prefix.startswith(_JPEG_2000)


def read_by_ffmpeg(prefix: bytes) -> str:
    """Return the name of the format if it is one that FFmpeg reads here; "" for others."""
    return next((name for magic, name in _BY_FFMPEG.items() if prefix.startswith(magic)), "")


def brands(prefix: bytes) -> set[bytes]:
    """Return major and compatible brands of an ISO media file (ISO/IEC 14496-12, `ftyp`); none for other files."""
    if prefix[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    return {prefix[8:12], *(prefix[at : at + 4] for at in range(16, end - 3, 4))}


def why_not_an_image(prefix: bytes) -> tuple[str, str]:
    """Return what is wrong with a file that starts with `prefix`, and a hint."""
    if not prefix:
        return "the file is empty", ""
    for magic, name in _UNSUPPORTED.items():
        if prefix.startswith(magic):
            return f"{name} is not supported; convert it to PNG or JPEG first", ""
    if prefix.startswith(_PSD):
        return "this PSD is damaged, or has other than 8 bits", "save it with 8 bits per channel"
    if brands(prefix) & (_AVIF_BRANDS | _HEIF_BRANDS):
        return "the image is damaged or cut off", ""
    if prefix[4:8] == b"ftyp" or prefix[8:12] == b"AVI " or prefix.startswith(b"\x1aE\xdf\xa3"):
        return "this is a video, not an image", "correct its suffix"
    if prefix.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the image itself", "run git lfs pull"
    return "this is not an image in a supported format", ""
