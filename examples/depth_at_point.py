"""Prints the depth at one point of every frame.

python examples/depth_at_point.py 0                         the centre of a webcam's image
python examples/depth_at_point.py pattern:testsrc2 --x 0.2 --y 0.8 --frames 10
"""

import argparse

import stream


def main() -> None:
    """Read frames until the source ends, or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="whatever depthstream takes: 0, clip.mp4, rtsp://…, pattern:testsrc2")
    parser.add_argument("--x", type=float, default=0.5, help="0 is the left edge, 1 the right one")
    parser.add_argument("--y", type=float, default=0.5, help="0 is the top edge, 1 the bottom one")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--frames", type=int, help="stop after this many")
    options = parser.parse_args()

    for frame, depth in stream.iter_depth(options.source, model=options.model, max_frames=options.frames):
        height, width = depth.size
        row, column = min(int(options.y * height), height - 1), min(int(options.x * width), width - 1)
        value = depth.values[row, column]
        larger = "nearer" if depth.kind.is_disparity else "farther"
        unit = depth.kind.unit or f"({depth.kind.quantity}: larger is {larger})"
        print(f"{frame.time_s:8.3f} s  x {column} y {row}: {value:.3f} {unit}", flush=True)


if __name__ == "__main__":
    main()
