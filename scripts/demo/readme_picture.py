"""Makes the README's image: one frame of the demo clip beside its depth.

    python scripts/demo/readme_picture.py

Invariant: what the README shows is what `depthstream demo` computes.
"""

import tempfile
from pathlib import Path

from stream import run
from stream.media import av

ROOT = Path(__file__).resolve().parents[2]
FRAME = 24


def main() -> None:
    """Run the demo and save one frame as `.github/demo.jpg`."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "demo.mp4"
        run(str(ROOT / "stream" / "data" / "demo.mp4"), output=result, layout="side", max_frames=FRAME + 1, crf=12)
        with av.open(str(result)) as container:
            *_, last = container.decode(video=0)
    target = ROOT / ".github" / "demo.jpg"
    target.parent.mkdir(exist_ok=True)
    last.to_image().save(target, quality=88)
    print(target)


if __name__ == "__main__":
    main()
