"""The boundary around the libraries that decode images: whatever they raise comes out as a `SourceError`.

Invariant: Pillow's size limit is that of the host program again as soon as no image is being read here.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from stream.errors import SourceError, reason_of


@contextmanager
def readable_errors(path: Path | str) -> Iterator[None]:
    """Run Pillow's code without its size limit, and turn every error into `SourceError`.

    On damaged data decoders raise anything from `OSError` to `IndexError`, so this boundary catches `Exception`.
    """
    try:
        with _pillow_limit_lifted():
            yield
    except SourceError:
        raise
    except Exception as error:
        reason = "not enough memory" if isinstance(error, MemoryError) else reason_of(error)
        raise SourceError(f"cannot be decoded: {reason}", where=str(path)) from error


_limit_lock = threading.Lock()
_limit_users = 0
_limit_saved: int | None = None


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    """Suspend Pillow's global size limit while any thread here decodes, and restore it afterwards.

    Pillow warns from 89 megapixels and refuses from 179, and the limit cannot be set per call; `max_pixels` is checked
    against the header instead.
    """
    global _limit_users, _limit_saved
    with _limit_lock:
        if _limit_users == 0:
            _limit_saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Image.MAX_IMAGE_PIXELS = _limit_saved
