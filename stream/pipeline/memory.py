"""How much memory the frames of a run can take: bounded by its settings, whatever the length of the video.

Invariant: the ceiling follows from what the stages can hold at once; scripts/measure/memory.py measures that
it is obeyed, for 8-bit video to H.264. 10-bit and HDR decoders take twice the bytes, other encoders their own, and the
writers of png16 and exr a few pictures more; stills that are grouped wait up to `batcher.LOOKAHEAD_BYTES` besides.
"""

_RGB, _DEPTH = 3, 4
"""Bytes of a pixel: uint8 × 3, float32."""
_DECODER, _ENCODER = 30, 150
"""Bytes for each pixel of the picture that libavcodec holds: 20 decoded pictures of 1.5 bytes (16 references and what
waits), and x264's look-ahead of 25 pictures with their half-pixel planes, 6 bytes each (`veryfast`; measured: 110)."""

_SLACK = 64 * 2**20
"""Stacks of threads, and what malloc keeps of freed pictures: up to 42 MB of 640x480 in batches of 4, which glibc's
`MALLOC_MMAP_THRESHOLD_=131072` would give back, mallopt(3), at the price of touching fresh pages for each picture."""


def ceiling_bytes(
    size_hw: tuple[int, int], out_size_hw: tuple[int, int], *, batch: int, in_flight: int, queue: int
) -> int:
    """Most bytes that a run holds in frames, besides the program, the weights and the network's activations.

    RGB pictures: `queue` before the network, `batch` being gathered, `in_flight` batches in the network and one that
    comes out of it, `queue` after it, one being made and one being shown; as many again as the network's slots hold.
    Depth maps likewise from the network on; two output pictures; the decoder and the encoder.

    Args:
        size_hw, out_size_hw: of the source's and the output's pictures.
        batch: frames of a batch.
        in_flight: most batches in flight, see `Engine.in_flight`.
        queue: frames that wait before and after the network.
    """
    pictures = 2 * queue + (in_flight + 2) * batch + 2
    slots = in_flight * batch
    maps = queue + (in_flight + 1) * batch + 1
    pixels, out_pixels = size_hw[0] * size_hw[1], out_size_hw[0] * out_size_hw[1]
    in_frames = pixels * (_RGB * (pictures + slots) + _DEPTH * maps) + out_pixels * 2 * _RGB
    return in_frames + pixels * _DECODER + out_pixels * _ENCODER + _SLACK
