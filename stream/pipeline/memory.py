"""Upper bound of the memory that a run's frames take: its settings decide, not the length of the video.

Invariant: the bound follows from what the stages can hold at once. scripts/measure/memory.py measures that runs stay
below it, for 8-bit video to H.264. Not included: 10-bit and HDR decoders take twice the bytes, other encoders differ,
the writers of png16 and exr hold a few more images, and stills being grouped take up to `batcher.LOOKAHEAD_BYTES`.
"""

_RGB, _DEPTH = 3, 4
"""Bytes per pixel: uint8 × 3, and float32."""
_DECODER, _ENCODER = 30, 150
"""Bytes per pixel that libavcodec holds. Decoder: 20 images of 1.5 bytes (16 references and those waiting). Encoder:
x264's look-ahead of 25 images with their half-pixel planes, 6 bytes each (`veryfast`; measured: 110)."""

_SLACK = 64 * 2**20
"""Thread stacks, and freed images that malloc keeps: up to 42 MB at 640×480 in batches of 4. glibc's
`MALLOC_MMAP_THRESHOLD_=131072` would return them, see mallopt(3), but then every image touches fresh pages."""


def ceiling_bytes(
    size_hw: tuple[int, int], out_size_hw: tuple[int, int], *, batch: int, in_flight: int, queue: int
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
    """
    pictures = 2 * queue + (in_flight + 2) * batch + 2
    slots = in_flight * batch
    maps = queue + (in_flight + 1) * batch + 1
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    in_frames = pixels * (_RGB * (pictures + slots) + _DEPTH * maps) + out_pixels * 2 * _RGB
    return in_frames + pixels * _DECODER + out_pixels * _ENCODER + _SLACK
