"""Measures how well two models agree about the order of depth, on the same images.

    python examples/compare_models.py photos/ starter dav2-small
    python examples/compare_models.py photo.jpg starter midas-small=my_weights.pt

`depthstream compare` does much more: sheets, fitted colours, several measures.
"""

import argparse
from collections.abc import Iterator

import numpy as np

import stream


def disparities(source: str, model: str) -> Iterator[tuple[stream.Frame, stream.Depth]]:
    """The frames of a source with their depth; `model` is NAME or NAME=FILE with its weights."""
    name, _, weights = model.partition("=")
    return stream.iter_depth(source, model=name, weights=weights or None)


def main() -> None:
    """Print one rank correlation (Spearman) for each image: 1 is the same order, 0 none, -1 the reverse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("first", help="NAME or NAME=FILE")
    parser.add_argument("second", help="NAME or NAME=FILE")
    options = parser.parse_args()
    both = zip(disparities(options.source, options.first), disparities(options.source, options.second), strict=True)
    for (frame, first), (_, second) in both:
        signs = [1 if depth.kind.is_disparity else -1 for depth in (first, second)]  # larger is nearer, or farther
        near = np.stack([(s * depth.values[::4, ::4]).ravel() for s, depth in zip(signs, (first, second), strict=True)])
        ranks = np.argsort(np.argsort(near[:, ~np.isnan(near).any(axis=0)]))  # NaN: a model has no answer there
        print(f"{frame.name or frame.index}: {np.corrcoef(ranks)[0, 1]:.3f}")


if __name__ == "__main__":
    main()
