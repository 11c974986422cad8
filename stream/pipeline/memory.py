"""Upper bounds of the memory that a run's frames take: its settings decide, not the length of the video.

Invariant: a bound follows from what the stages can hold at once. scripts/measure/memory.py measures that runs stay
below it, for 8-bit video to H.264, and tests/pipeline/test_memory.py for stills. Not included: 10-bit and HDR decoders
take twice the bytes, other encoders differ, and the writers of png16 and exr hold a few more images.
"""

from stream.machine import encoder_threads

_RGB, _DEPTH = 3, 4
"""Bytes per pixel: uint8 × 3, and float32."""
_DECODER, _ENCODER = 30, 150
"""Bytes per pixel that libavcodec holds. Decoder: 20 images of 1.5 bytes (16 references and those waiting). Encoder:
x264's look-ahead of 25 images with their half-pixel planes, 6 bytes each (`veryfast`; measured at 1080p: 97 with two
threads, 131 with six, the most)."""

_MEASURED_ENCODER, _ENCODER_THREAD = 83, 8.5
"""The same without a margin, and what each of the encoder's threads adds: what a video cannot do without. At 7680×4320,
decoded from H.264 and encoded with x264 and two threads, the whole run peaks at 5.4 GB where 8 GB are free: 147 bytes
per pixel beside the program."""
_STAGED = _RGB + _RGB + _DEPTH
"""Bytes per pixel of a frame on its way to the output: the image, its copy in the network's slot, and its depth."""
_FEWEST = 4
"""Frames on their way if no stage runs ahead: in the source, the network, the renderer and the encoder."""
_DECODING, _RENDERING = 12, 20
"""Bytes per pixel of a still that is being decoded (WebP takes 17), and of one that is rendered and encoded (measured:
22 with its decoded image and depth)."""
_STILLS_SHARE = 0.3
"""Share of the memory for stills on their way; most of it is for decoding them, see `stream.capture.limits`."""
_SLACK = 64 * 2**20
"""Thread stacks, and freed images that malloc keeps: up to 42 MB at 640×480 in batches of 4. glibc's
`MALLOC_MMAP_THRESHOLD_=131072` would return them, see mallopt(3), but then every image touches fresh pages."""


def ceiling_bytes(
    size_hw: tuple[int, int],
    out_size_hw: tuple[int, int],
    *,
    batch: int,
    in_flight: int,
    queue: int,
    holds: int = 0,
    kept: int = 0,
) -> int:
    """Most bytes that a run holds in frames, besides the program, the weights and the network's activations.

    RGB images: `queue` before the network, a batch being gathered, `in_flight` batches in the network and one leaving
    it, `queue` after it, one being rendered and one being shown; and the copies in the network's slots. Depth maps
    likewise from the network on. Then two output images, the decoder and the encoder.

    Args:
        size_hw, out_size_hw: size of the source's frames and of the output images.
        batch: frames per batch.
        in_flight: most batches in flight, see `Engine.in_flight`.
        queue: frames that wait before and after the network.
        holds: frames of a window, see `Inference.holds`; while it is computed, as many more are read at most.
        kept: see `Inference.kept_bytes`.
    """
    pictures = 2 * queue + (in_flight + 2) * batch + 2 + 2 * holds
    slots = in_flight * batch
    maps = queue + (in_flight + 1) * batch + 1
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    in_frames = pixels * (_RGB * (pictures + slots) + _DEPTH * maps) + out_pixels * 2 * _RGB
    return in_frames + pixels * _DECODER + out_pixels * _ENCODER + _SLACK + kept


def stills_ceiling_bytes(
    size_hw: tuple[int, int],
    out_size_hw: tuple[int, int],
    *,
    count: int,
    grouped: int,
    batch: int,
    in_flight: int,
    queue: int,
    holds: int = 0,
    kept: int = 0,
) -> int:
    """Most bytes that a run holds in stills of one size, besides the program, the weights and the activations.

    Two images being decoded and four that wait; then, up to the output, as many as for a video and those that are
    grouped by shape; and one that is rendered and encoded.

    Args:
        size_hw, out_size_hw: size of the images and of the output.
        count: how many images there are.
        grouped: images among which those of one shape are looked for.
        batch, in_flight, queue, holds, kept: see `ceiling_bytes`.
    """
    staged = min(count, 2 * queue + grouped + (in_flight + 1) * batch + 2 + 2 * holds)
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    in_source = pixels * (min(count, 2) * _DECODING + min(count, 4) * _RGB)
    return in_source + pixels * staged * _STAGED + out_pixels * _RENDERING + _SLACK + kept


def least_bytes(
    size_hw: tuple[int, int], out_size_hw: tuple[int, int], *, encodes: bool, holds: int = 0, kept: int = 0
) -> int:
    """Bytes that a run of a video takes at least, with as few frames on their way as possible.

    Args:
        size_hw, out_size_hw: see `ceiling_bytes`.
        encodes: a video is written.
        holds, kept: see `ceiling_bytes`.
    """
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    in_frames = pixels * (_DECODER + _FEWEST * _STAGED + holds * _RGB) + out_pixels * 2 * _RGB + kept
    encoder = round(out_pixels * (_MEASURED_ENCODER + _ENCODER_THREAD * encoder_threads())) if encodes else 0
    return in_frames + encoder + _SLACK


def staged_bytes(
    room: int,
    size_hw: tuple[int, int],
    out_size_hw: tuple[int, int],
    *,
    encodes: bool,
    holds: int = 0,
    kept: int = 0,
) -> int:
    """Most bytes of RGB images that may be on their way from the source to the output, so that a run fits into `room`.

    Args:
        room: bytes for all images of the run.
        size_hw, out_size_hw, encodes, holds, kept: see `least_bytes`; stills are (0, 0), as their sizes differ.
    """
    if size_hw == (0, 0):
        share = int(max(room - kept, 0) * _STILLS_SHARE)
        return share if holds else share * _RGB // _STAGED  # what a window holds has no depth yet
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    held = pixels * _RGB * holds
    others = pixels * _DECODER + out_pixels * (2 * _RGB + (_ENCODER if encodes else 0)) + _SLACK + held + kept
    return held + max(pixels * _RGB * _FEWEST, (room - others) * _RGB // _STAGED)
