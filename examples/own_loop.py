"""Uses depth in a loop of your own: keeps what is near, and makes the rest transparent.

python examples/own_loop.py clip.mp4 cutouts/              the nearest third of every frame, as PNG
python examples/own_loop.py 0 cutouts/ --share 0.2 --frames 50
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import stream


def main() -> None:
    """Write one PNG for each frame; leaving the loop stops the source and the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1 / 3, help="of the pixels that stay, 0 to 1")
    parser.add_argument("--frames", type=int, help="stop after this many")
    parser.add_argument("--model", default="starter")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    for frame, depth in stream.iter_depth(options.source, model=options.model):
        nearness = depth.values if depth.kind.is_disparity else -depth.values  # other kinds grow with the distance
        is_near = nearness >= np.nanquantile(nearness, 1 - options.share)  # a pixel without an answer is NaN: not near
        rgba = np.dstack([frame.rgb, np.where(is_near, 255, 0).astype(np.uint8)])
        Image.fromarray(rgba).save(options.folder / f"{frame.index:06d}.png")
        if options.frames is not None and frame.index + 1 >= options.frames:
            break


if __name__ == "__main__":
    main()
