"""Writes the raw depth of every frame of a video as OpenEXR, for compositing.

    python examples/video_to_exr.py clip.mp4 depth/             depth/clip.000000.exr, depth/clip.000001.exr, …
    python examples/video_to_exr.py clip.mp4 depth/ --start 0:10 --end 0:12 --model dav2-metric-indoor-small

The files hold float32 at the size of the video, in one channel `Z`: metres from a metric model, disparity from others.
"""

import argparse
import sys

import stream


def main() -> int:
    """Write the files; returns the exit code, as `depthstream` would."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("folder")
    parser.add_argument("--start", help="seconds or [HH:]MM:SS")
    parser.add_argument("--end")
    parser.add_argument("--model", default="starter")
    options = parser.parse_args()
    try:
        report = stream.run(
            options.video, output=options.folder, picture="none", save=("exr",),
            start=options.start, end=options.end, model=options.model,
        )  # fmt: skip
    except stream.StreamError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{report.written} frames in {options.folder}, {report.fps or 0:.1f} a second")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
