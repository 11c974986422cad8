"""Any Pillow mode and colour profile → 8-bit sRGB.

Invariant: a picture that is sRGB already, tagged or not, keeps its values to the bit.
"""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_FLAGS = ImageCms.Flags.NOCACHE | ImageCms.Flags.HIGHRESPRECALC
"""Little CMS: a transform is safe to share between threads only without its cache; the finer table halves the error
in dark grays (1.5 → 0.9 of 255 at gamma 1.8) at no cost per pixel."""
_SAME = 2
"""Largest difference, of 255, between sRGB and a profile that means sRGB: published ones differ by rounding."""
_PROFILE_MODE = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}
_HDR_TRANSFER = {16: "PQ", 18: "HLG"}
"""ITU-T H.273, transfer characteristics."""


def to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert a loaded image to mode RGB in sRGB; alpha is dropped, the colour under it kept.

    Args:
        image: any mode.
        notes: gets a sentence for what could not be honoured.
    """
    nclx = image.info.get("nclx_profile")
    if isinstance(nclx, dict) and (transfer := _HDR_TRANSFER.get(int(nclx.get("transfer_characteristics", 0)))):
        notes.append(f"{transfer} (HDR) picture shown without tone mapping")
    profile = image.info.get("icc_profile")
    image = _plain(image, notes)
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_transform()) or image
    if isinstance(profile, bytes) and profile:
        image = _apply(profile, image, notes)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_eight_bits(samples: NDArray[np.generic], notes: list[str]) -> NDArray[np.uint8]:
    """Samples of any type → uint8 of the same shape.

    uint8 is kept; uint16 keeps its high byte, as Pillow and libpng do; float in [0, 1] is scaled by 255. For
    everything else nothing says what white is, so the smallest finite value becomes 0 and the largest 255, with a note.
    """
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        return (samples.astype(np.uint16) >> 8).astype(np.uint8)
    wide = np.float32 if samples.dtype == np.float32 else np.float64  # int32 does not fit float32
    values: NDArray[np.floating] = samples.astype(wide)
    finite = np.isfinite(values)
    if not finite.all():
        notes.append("pixels that are not finite shown black")
        values[~finite] = values[finite].min() if finite.any() else 0
    low, high = float(values.min()), float(values.max())
    if samples.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif samples.dtype.kind == "f" or low < 0 or high > 255:
        notes.append(f"{samples.dtype.name} samples stretched from their own smallest…largest value to 0…255")
    else:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return np.asarray(np.rint(scaled), np.uint8)


def _plain(image: Image.Image, notes: list[str]) -> Image.Image:
    """To one of the modes L, RGB, CMYK, LAB that a colour profile can refer to."""
    mode = image.mode
    if mode in ("RGB", "L", "CMYK", "LAB"):
        return image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(to_eight_bits(np.asarray(image), notes))
    image.info.pop("transparency", None)  # a transparent colour stays the colour it is
    if mode in ("RGBa", "La"):
        image = image.convert("RGBA" if mode == "RGBa" else "LA")  # undo the multiplication by alpha
    return image.convert("L" if mode in ("1", "LA", "La") else "RGB")


def _apply(profile: bytes, image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        mode, transform = _transform(profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("unreadable colour profile ignored, the picture taken as sRGB")
        return image
    if image.mode != mode and (image.mode, mode) != ("L", "RGB"):
        notes.append(f"a colour profile for {mode} on a {image.mode} picture ignored")
        return image
    if transform is None:
        return image
    return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform) or image


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Mode the profile refers to and the way from it to sRGB, None where it is sRGB.

    Raises:
        PyCMSError, OSError, ValueError: the profile is damaged or not for pictures.
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
    is_srgb = bool(np.abs(shown - np.asarray(probe.convert("RGB"))).max() <= _SAME)
    return mode, None if is_srgb else transform


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB", flags=_FLAGS)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
