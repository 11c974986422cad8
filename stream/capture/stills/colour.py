"""Converts any Pillow mode and colour profile to 8-bit sRGB.

Invariant: an image that is sRGB already, tagged or not, keeps its exact values.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

_FLAGS = ImageCms.Flags.NOCACHE | ImageCms.Flags.HIGHRESPRECALC
"""For Little CMS: threads can share a transform only if its cache is off. The finer lookup table halves the error in
dark grays (1.5 → 0.9 of 255 at gamma 1.8) at no cost per pixel."""
_SRGB_TOLERANCE = 2
"""Largest difference, of 255, at which a profile counts as sRGB: published sRGB profiles differ by rounding."""
_PROFILE_MODE = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}
_HDR_TRANSFER = {16: "PQ", 18: "HLG"}
"""ITU-T H.273, transfer characteristics."""
_STRIP_SAMPLES = 1 << 20
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339
_MIN_IS_WHITE, _UNSIGNED = 0, 1
"""TIFF 6.0."""
_WHITE, _BLACK = 255, 0
_OPAQUE, _VISIBLE = 250, 128
"""Alphas from which on a pixel counts as opaque, and as part of what is seen."""
_OPAQUE_SHARE = 0.1
"""Share of what is not clear that is opaque in a drawing or a cut-out, however soft its edges."""
_LIGHT, _DARK_SHARE = 208, 0.01
"""Where fewer than 1 % of the visible pixels are darker than 208 of 255, little would be seen on white."""


@dataclass
class Ground:
    """What the transparent parts of a file are shown on, in all its frames alike.

    Attributes:
        level: of gray; -1 to ignore transparency and to keep the colours under it, None if no frame has had any.
    """

    level: int | None = None


def to_srgb(image: Image.Image, notes: list[str], ground: Ground | None = None) -> Image.Image:
    """Convert a loaded image to mode RGB in sRGB.

    The transparent parts of a drawing or a cut-out, under which there is nothing, are shown on white as viewers do, or
    on black if the drawing is white. Otherwise alpha is dropped and the colour under it kept: see `_ground_of`.

    Args:
        image: in any mode.
        notes: notes on what was ignored or guessed are appended here.
        ground: decided by an earlier frame of the file; decided here if it is undecided.
    """
    alpha = _alpha_of(image)
    rgb = _without_alpha(image, notes)
    if alpha is None:
        return rgb
    ground = ground or Ground()
    if ground.level is None:
        ground.level = _ground_of(rgb, alpha)
    if ground.level < 0:
        notes.append("transparency is ignored, and the colours under it are used")
        return rgb
    notes.append(f"transparent parts are shown on {'white' if ground.level else 'black'}")
    rgb = rgb.copy() if rgb is image else rgb
    rgb.paste((ground.level,) * 3, mask=ImageChops.invert(alpha))
    return rgb


def _alpha_of(image: Image.Image) -> Image.Image | None:
    """The alpha of an image as mode L; None if it is opaque."""
    if "A" in (bands := image.getbands()) or "a" in bands:
        alpha = image.getchannel("A" if "A" in bands else "a")
    elif image.mode in ("1", "L", "P", "RGB") and _is_in_range(image.info.get("transparency")):
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return None
    lowest, _ = alpha.getextrema()
    return None if lowest == 255 else alpha


def _is_in_range(transparency: object) -> bool:
    """Whether Pillow can apply it; that of a PNG of 16 bits is still in 16 bits when its samples are in 8."""
    levels = transparency if isinstance(transparency, bytes | tuple) else (transparency,)
    return all(isinstance(level, int) and 0 <= level <= 255 for level in levels)


def _ground_of(rgb: Image.Image, alpha: Image.Image) -> int:
    """The `Ground.level` of an image with its alpha.

    There is nothing under the transparent parts if all of them have one colour, which a program has filled in, and if
    some of what is left is opaque, or has the same colour everywhere so that it would not be seen without its alpha.
    Other pictures go on under their alpha: the official scripts of the models use that, and a ground would add an edge
    of depth.
    """
    clear = rgb.histogram(mask=alpha.point([255] + [0] * 255))
    is_filled = all(sum(map(bool, clear[at : at + 256])) == 1 for at in (0, 256, 512))
    counts = alpha.histogram()
    is_opaque = sum(counts[_OPAQUE:]) >= _OPAQUE_SHARE * sum(counts[1:])
    has_one_colour = all(low == high for low, high in rgb.getextrema())  # type: ignore[misc]
    if not is_filled or not (is_opaque or has_one_colour):
        return -1
    levels = rgb.convert("L").histogram(mask=alpha.point([0] * _VISIBLE + [255] * (256 - _VISIBLE)))
    return _BLACK if sum(levels[:_LIGHT]) < _DARK_SHARE * sum(levels) else _WHITE


def _without_alpha(image: Image.Image, notes: list[str]) -> Image.Image:
    nclx = image.info.get("nclx_profile")
    if isinstance(nclx, dict) and (transfer := _HDR_TRANSFER.get(int(nclx.get("transfer_characteristics", 0)))):
        notes.append(f"{transfer} (HDR) image is not tone-mapped")
    profile = image.info.get("icc_profile")
    image = _to_profile_mode(image, notes)
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_transform()) or image
    if isinstance(profile, bytes) and profile:
        image = _apply_profile(profile, image, notes)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_eight_bits(samples: NDArray[np.generic], notes: list[str]) -> NDArray[np.uint8]:
    """Convert samples of any type to uint8 of the same shape.

    uint8 is kept; uint16 keeps its high byte, as in Pillow and libpng; floats in [0, 1] are scaled by 255. Nothing
    defines white for other samples, so the smallest finite value becomes 0 and the largest 255, with a note.
    """
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        return (samples.astype(np.uint16) >> 8).astype(np.uint8)
    parts = [slice(top, top + _rows(samples)) for top in range(0, len(samples), _rows(samples))]
    low, high, is_finite = np.inf, -np.inf, True
    for part in parts:
        values = _wide(samples[part])
        finite = np.isfinite(values)
        if not finite.all():
            is_finite, values = False, values[finite]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not is_finite:
        notes.append("pixels that are not finite are shown as black")
    if low > high:
        low = high = 0.0
    black = low
    if samples.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif samples.dtype.kind == "f" or low < 0 or high > 255:
        notes.append(f"{samples.dtype.name} samples are stretched from their own minimum…maximum to 0…255")
    else:
        low, high = 0.0, 255.0
    scale = 255 / (high - low) if high > low else 0.0
    eight = np.empty(samples.shape, np.uint8)
    for part in parts:
        values = _wide(samples[part])
        if not is_finite:
            values[~np.isfinite(values)] = black
        eight[part] = np.rint((values - low) * scale)
    return eight


def _rows(samples: NDArray[np.generic]) -> int:
    """How many rows are converted at once, so that the wide numbers of an image never take memory together."""
    return max(1, _STRIP_SAMPLES * len(samples) // max(1, samples.size))


def _wide(samples: NDArray[np.generic]) -> NDArray[np.floating]:
    """A copy that can hold every sample: float32 cannot represent every int32."""
    return samples.astype(np.float32 if samples.dtype == np.float32 else np.float64)


def _to_profile_mode(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert to a mode that a colour profile can refer to: L, RGB, CMYK or LAB."""
    mode = image.mode
    if mode in ("RGB", "L", "CMYK", "LAB"):
        return image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _deep_gray(image, notes)
    if "transparency" in image.info:  # keep the colour of transparent pixels
        image = image.copy()
        del image.info["transparency"]
    if mode in ("RGBa", "La"):
        image = image.convert("RGBA" if mode == "RGBa" else "LA")  # undo premultiplied alpha
    return image.convert("L" if mode in ("1", "LA", "La") else "RGB")


def _deep_gray(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert gray of more than 8 bits, where Pillow's pixels are not always what the file means."""
    samples, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.format == "PPM":
        samples = samples.astype(np.uint16)  # any maximum is scaled to 65535
    elif (
        image.mode == "I"
        and image.format == "TIFF"
        and tags.get(_SAMPLE_FORMAT, _UNSIGNED) in (_UNSIGNED, (_UNSIGNED,))
    ):
        samples = samples.view(np.uint32)
    gray = to_eight_bits(samples, notes)
    return Image.fromarray(255 - gray if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE else gray)


def _apply_profile(profile: bytes, image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        mode, transform = _srgb_transform(profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("the colour profile is unreadable; the image is assumed to be sRGB")
        return image
    if image.mode != mode and (image.mode, mode) != ("L", "RGB"):
        notes.append(f"the colour profile is for {mode} but the image is {image.mode}; the profile is ignored")
        return image
    if transform is None:
        return image
    return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform) or image


@lru_cache(maxsize=8)
def _srgb_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the image mode of a profile and the transform from it to sRGB, which is None if the profile is sRGB.

    Raises:
        PyCMSError, OSError, ValueError: the profile is damaged or not for images.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in _PROFILE_MODE:
        raise ValueError(f"colour space {space}")
    mode = _PROFILE_MODE[space]
    transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", flags=_FLAGS)
    if mode not in ("RGB", "L"):
        return mode, transform
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(cube if mode == "RGB" else cube[..., 0])
    shown = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    is_srgb = bool(np.abs(shown - np.asarray(probe.convert("RGB"))).max() <= _SRGB_TOLERANCE)
    return mode, None if is_srgb else transform


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB", flags=_FLAGS)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
