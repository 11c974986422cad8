"""Exporters and quantisers log their progress, and change the logging of the program that they run in.

Invariant: afterwards the program's logging is as it was.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Keeps the logger `name` to errors meanwhile."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Undoes what is done to the root logger meanwhile: a conversion that fails in OpenVINO leaves it muted."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers
