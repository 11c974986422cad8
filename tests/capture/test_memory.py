"""Images that a program hands over: what is taken, what is refused, and who owns the pixels."""

import os
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stream.capture import memory
from stream.capture.memory import Images, given
from stream.capture.open import open_images
from stream.config import CaptureConfig, Config
from stream.errors import SourceError, UsageError
from stream.frames import Frame, SourceKind
from stream.jobs.source import sample
from stream.media import cv2
from tests.support import picture_files as files

SCENE = files.scene()
GREY = SCENE[..., 0]


def frames_of(source: object, **options: object) -> list[Frame]:
    images = given(source)
    assert isinstance(images, Images)
    with closing(open_images(images, options=CaptureConfig.model_validate(options))) as opened:
        return list(opened)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (SCENE, SCENE),
        (GREY, np.stack([GREY] * 3, axis=-1)),
        (GREY[..., None], np.stack([GREY] * 3, axis=-1)),
        (np.dstack([SCENE, GREY]), SCENE),
        (SCENE[:, ::-1], SCENE[:, ::-1]),
        (Image.fromarray(SCENE), SCENE),
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=-1)),
        (Image.fromarray(np.dstack([SCENE, GREY])), SCENE),
    ],
)
def test_one_image(image: object, expected: files.Pixels) -> None:
    (frame,) = frames_of(image)
    assert np.array_equal(frame.rgb, expected)
    (frame,) = frames_of([image])
    assert np.array_equal(frame.rgb, expected)
    (frame,) = frames_of(iter([image]))
    assert np.array_equal(frame.rgb, expected)


def test_a_pillow_image_is_read_as_its_file_is(tmp_path: Path) -> None:
    path = files.save(tmp_path / "a.jpg", files.stored(SCENE, 6), exif=files.exif(6), icc_profile=files.icc_profile())
    with Image.open(path) as image:
        from_file, opened = frames_of([path, image])
    assert np.array_equal(from_file.rgb, opened.rgb)
    assert (from_file.name, opened.name) == ("a.jpg", "000001")


def test_any_mixture_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~x.png").write_bytes(files.save(tmp_path / "a.png", SCENE).read_bytes())
    items = [SCENE, "a.png", tmp_path / "a.png", Image.fromarray(GREY), "~x.png", GREY]
    for source in (items, tuple(items), iter(items), (item for item in items)):
        frames = frames_of(source)
        assert [frame.index for frame in frames] == [frame.pts for frame in frames] == list(range(6))
    assert [frame.name for frame in frames] == ["", "a.png", "a.png", "", "~x.png", ""]
    assert [frame.name for frame in frames_of(items)][::3] == ["000000", "000003"]
    batch = np.stack([SCENE, SCENE[::-1]])
    assert [np.array_equal(frame.rgb, image) for frame, image in zip(frames_of(batch), batch, strict=True)] == [
        True
    ] * 2


def test_options_of_images() -> None:
    video = frames_of([SCENE] * 5, fps=25, max_frames=3, mirror=True)
    assert [(frame.pts, frame.duration, frame.time_base) for frame in video] == [
        (n, 1, Fraction(1, 25)) for n in range(3)
    ]
    assert np.array_equal(video[0].rgb, SCENE[:, ::-1])
    for name, value in (("start", 1), ("end", 1), ("hwaccel", "auto")):
        with pytest.raises(UsageError, match=f"--{name}: does not apply"):
            frames_of([SCENE], **{name: value})


def test_names_alone_are_read_like_a_list(tmp_path: Path) -> None:
    paths = [files.save(tmp_path / name, SCENE) for name in ("b.png", "a.png", "b.jpg")]
    images = given([paths[0], str(paths[1]), paths[0], paths[2]])
    assert isinstance(images, Images)
    source = open_images(images, options=CaptureConfig())
    assert (source.info.kind, source.info.names) == (SourceKind.STILLS, ("b.png", "a.png", "b.png", "b.jpg"))
    assert source.info.files == (paths[0], paths[1], paths[0], paths[2])
    assert len(list(source)) == 4, "as many as were named"


def test_samples_are_from_all_over_a_list() -> None:
    frames = sample(Config(), 2, Images([np.full((4, 6, 3), n, np.uint8) for n in range(6)]))
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [0, 3]
    assert len(sample(Config(), 9, Images([SCENE]))) == 1


def test_what_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    good = files.save(tmp_path / "good.jpg", SCENE)
    good.write_bytes(good.read_bytes()[:-100])
    with Image.open(good) as damaged:
        images = given(iter(["missing.png", SCENE, tmp_path / "broken.png", damaged, GREY]))
        assert isinstance(images, Images)
        source = open_images(images, options=CaptureConfig())
        assert [frame.index for frame in source] == [1, 4]
    assert [item.name for item in source.log.skipped] == ["missing.png", "broken.png", "000003"]
    with pytest.raises(SourceError, match="no image can be read; the first error is x"):
        frames_of(iter(["x.png"]))
    with pytest.raises(SourceError, match="no images"):
        frames_of(iter([]))


def test_a_pillow_image_with_damaged_exif_is_read_and_that_is_said() -> None:
    image = Image.fromarray(SCENE)
    image.info["exif"] = b"damaged"
    images = given(image)
    assert isinstance(images, Images)
    source = open_images(images, options=CaptureConfig())
    (frame,) = source
    assert np.array_equal(frame.rgb, SCENE)
    assert any("EXIF data are damaged" in note for note in (*source.info.notes, *source.log.notes))


def test_a_sequence_is_not_copied_and_stays_writable() -> None:
    mine = SCENE.copy()
    (frame,) = frames_of(mine)
    assert np.shares_memory(frame.rgb, mine)
    assert not frame.rgb.flags.writeable
    mine[0, 0] = 7
    with pytest.raises(ValueError, match="read-only"):
        frame.rgb[0, 0] = 7


def test_an_iterator_may_refill_its_buffer_and_is_not_run_ahead() -> None:
    taken: list[int] = []

    def film() -> Iterator[files.Pixels]:
        buffer = np.zeros((4, 6, 3), np.uint8)
        for number in range(5):
            buffer[:] = number
            taken.append(number)
            yield buffer

    images = given(film())
    assert isinstance(images, Images)
    source = open_images(images, options=CaptureConfig())
    frames = []
    for frame in source:
        frames.append(frame)
        assert taken == list(range(len(frames)))
        if len(frames) == 3:
            source.interrupt()
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [0, 1, 2]
    fixed = SCENE.view()
    fixed.flags.writeable = False
    assert np.shares_memory(frames_of(iter([fixed]))[0].rgb, SCENE), "nobody can refill it"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (True, "True is not a camera's number"),
        (-1, "-1 is not a camera's number"),
        (10**30, "source: the number is not a camera's (allowed: 0 to 999999)"),
        (-(10**5000), "source: the number is not a camera's"),
        (1.5, "a float is no image (allowed: text, a path, a camera's number, an array"),
        ([], "the source is empty"),
        (b"clip.mp4", "a bytes is no image"),
        ({"a": SCENE}, "a dict is no image"),
        ({1}, "a set is no image"),
        (object(), "an object is no image"),
        (SCENE / 255, "an array of float64 40×64×3 is no image (allowed: uint8 H×W×3 in RGB order"),
        (SCENE.astype(np.uint16), "convert it with .astype(numpy.uint8)"),
        (SCENE.transpose(2, 0, 1), "image 0: an array of uint8 3×40×64 is no image"),
        (SCENE[:0], "an array of uint8 0×64×3 is no image"),
        (np.array(3, np.uint8), "an array of uint8 no shape is no image"),
        ([SCENE, 3], "image 1: an int is no image (allowed: an array, a Pillow image, or the name of a file)"),
        (torch.zeros(3, 4, 6), "a Tensor is no image"),
        ([torch.zeros(3, 4, 6)], "pass tensor.permute(1, 2, 0).cpu().numpy()"),
        (cv2.VideoCapture(), "pass the camera's number or the name of the file"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_source(source: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        given(source)
    assert said in str(caught.value)


def test_an_iterator_is_checked_as_it_goes() -> None:
    with pytest.raises(UsageError, match="image 1: an int is no image"):
        frames_of(iter([SCENE, 3]))
    with pytest.raises(ZeroDivisionError):
        frames_of(1 // 0 for _ in range(1))


def test_what_is_no_image() -> None:
    assert given("clip.mp4") == given(Path("clip.mp4")) == "clip.mp4"
    assert given(np.int64(3)) == given(3) == "cam:3"
    assert given(None) is None
    assert given(Path("2024")) == os.path.join(".", "2024"), "a path is no camera"
    assert given(Path("rtsp:x")) == os.path.join(".", "rtsp:x")
    assert given(Path("/a/rtsp:x")) == "/a/rtsp:x"
    assert os.fsencode(str(given(Path(os.fsdecode(b"caf\xe9"))))) == b"caf\xe9"
    assert memory.ARRAYS.startswith("uint8")


def test_a_pillow_image_is_decoded_like_its_file(tmp_path: Path) -> None:
    deep = (np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 4 + 20_000).astype(">u2")
    (tmp_path / "deep.pgm").write_bytes(b"P5\n64 48\n65535\n" + deep.tobytes())
    Image.fromarray(deep.astype("<u2")).save(tmp_path / "white.tif", tiffinfo={262: 0})
    files.save(tmp_path / "turned.jpg", Image.fromarray(SCENE), exif=files.exif(6))
    Image.fromarray(SCENE).quantize(8).save(tmp_path / "clear.png", transparency=0)
    for path in sorted(tmp_path.iterdir()):
        (of_file,) = frames_of([path])
        with Image.open(path) as image:
            (of_image,) = frames_of([image])
            assert ("transparency" in image.info) == (path.name == "clear.png"), "the caller's image is not changed"
        assert np.array_equal(of_image.rgb, of_file.rgb), path.name
