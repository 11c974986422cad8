"""Uses a torch module of one's own as the model: here the dark channel of a hazy picture, which is brighter far away.

python examples/own_module.py photo.jpg hazy_depth.png
python examples/own_module.py clip.mp4 hazy_depth.mp4
"""

import argparse

import torch
from torch.nn import functional as F

import stream


class DarkChannel(torch.nn.Module):
    """The darkest value around each pixel: haze leaves none dark (He, Sun and Tang, CVPR 2009)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 N×3×H×W in 0…1 → N×1×H×W, larger is farther."""
        return -F.max_pool2d(-x.amin(1, keepdim=True), 15, stride=1, padding=7)


def main() -> None:
    """Run the module on a source, as any model of the catalog."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("output")
    options = parser.parse_args()

    with stream.Model.from_module(  # bilinear, because bicubic overshoots below 0
        DarkChannel(), output="depth", size=384, multiple_of=1, mean=(0, 0, 0), std=(1, 1, 1), resample="bilinear"
    ) as model:
        report = stream.run(options.source, output=options.output, model=model)
    print(f"{report.written} frames → {', '.join(report.outputs)}")


if __name__ == "__main__":
    main()
