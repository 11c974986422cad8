"""Converts any Pillow mode and colour profile to 8-bit sRGB.

Invariant: an image that is sRGB already, tagged or not, keeps its exact values.
"""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_FLAGS = ImageCms.Flags.NOCACHE | ImageCms.Flags.HIGHRESPRECALC
"""For Little CMS: threads can share a transform only if its cache is off. The finer lookup table halves the error in
dark grays (1.5 → 0.9 of 255 at gamma 1.8) at no cost per pixel."""
_SRGB_TOLERANCE = 2
"""Largest difference, of 255, at which a profile counts as sRGB: published sRGB profiles differ by rounding."""
_PROFILE_MODE = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}
_HDR_TRANSFER = {16: "PQ", 18: "HLG"}
"""ITU-T H.273, transfer characteristics."""


def to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert a loaded image to mode RGB in sRGB; alpha is dropped, the colour under it kept.

    Args:
        image: in any mode.
        notes: notes on what was ignored or guessed are appended here.
    """
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
    wide = np.float32 if samples.dtype == np.float32 else np.float64  # float32 cannot represent every int32
    values: NDArray[np.floating] = samples.astype(wide)
    finite = np.isfinite(values)
    if not finite.all():
        notes.append("pixels that are not finite are shown as black")
        values[~finite] = values[finite].min() if finite.any() else 0
    low, high = float(values.min()), float(values.max())
    if samples.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif samples.dtype.kind == "f" or low < 0 or high > 255:
        notes.append(f"{samples.dtype.name} samples are stretched from their own minimum…maximum to 0…255")
    else:
        low, high = 0.0, 255.0
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return np.asarray(np.rint(scaled), np.uint8)


def _to_profile_mode(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert to a mode that a colour profile can refer to: L, RGB, CMYK or LAB."""
    mode = image.mode
    if mode in ("RGB", "L", "CMYK", "LAB"):
        return image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(to_eight_bits(np.asarray(image), notes))
    image.info.pop("transparency", None)  # keep the colour of transparent pixels
    if mode in ("RGBa", "La"):
        image = image.convert("RGBA" if mode == "RGBa" else "LA")  # undo premultiplied alpha
    return image.convert("L" if mode in ("1", "LA", "La") else "RGB")


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
