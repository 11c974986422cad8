"""Opens the two formats of torch.save, zip archives and the older sequence of pickles, as one mapped file.

Invariant: nothing is read beyond the limits here and in `pickled`. A tensor's pages are read from the file when it is
used, and what is written to them stays in this process; only what lies at an odd place, in the older format, is
copied.
"""

import io
import mmap
import sys
import zipfile
from typing import BinaryIO

import torch
from torch import Tensor

from stream.errors import ModelError
from stream.models.weights.lookalikes import refuse_archive
from stream.models.weights.pickled import MAX_BYTES, UnsupportedError, is_name, read_pickle

_MAX_DIRECTORY_BYTES = 8_000_000
"""The longest directory of a zip archive, some 80,000 records; those of the largest networks take 0.1 MB."""
_LOCAL_HEADER = 30
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
"""The first two values of the older format, from `torch/serialization.py`."""


def read_zip(file: BinaryIO, *, where: str) -> object:
    """The content of a zip archive that torch.save has written.

    Raises:
        ModelError: it holds something else, or its records are compressed.
        Exception: it is damaged, or see `read_pickle`.
    """
    with zipfile.ZipFile(_Bounded(file)) as archive:
        records = {info.filename: info for info in archive.infolist()}
    refuse_archive(records, where)
    packed = [info for info in records.values() if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1]
    if packed:
        hint = "torch.save compresses nothing; save it with torch.save, or unpack it"
        raise ModelError(f"its records are compressed or encrypted ({packed[0].filename[:80]})", where=where, hint=hint)
    mapped = _Mapped(file)
    name = next(name for name in records if name.endswith("data.pkl"))
    prefix = name.removesuffix("data.pkl")
    if records[name].file_size > MAX_BYTES:
        raise UnsupportedError(f"its pickle has more than {MAX_BYTES // 10**6} MB")
    order = records.get(f"{prefix}byteorder")
    is_foreign = order is not None and order.file_size < 9 and mapped.bytes_of(order) != sys.byteorder.encode()

    def map_storage(key: str, dtype: torch.dtype, size: int) -> Tensor:
        record = records[f"{prefix}data/{key}"]
        if size * dtype.itemsize > record.file_size:
            raise ValueError("a record is shorter than its storage")
        return mapped.tensor(mapped.start_of(record), dtype, size, is_foreign=is_foreign)

    return read_pickle(io.BytesIO(mapped.bytes_of(records[name])), map_storage)


def read_legacy(file: BinaryIO) -> object:
    """The content of a file in torch's older format: five pickles, then for each storage its size and its values.

    Raises:
        Exception: it is damaged, or see `read_pickle`.
    """
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_BYTES))

    def announce(key: str, dtype: torch.dtype, size: int) -> Tensor:
        announced[key] = dtype.itemsize, max(size, announced.get(key, (0, 0))[1])
        return torch.empty(size, dtype=dtype, device="meta")

    announced: dict[str, tuple[int, int]] = {}
    magic, protocol, about = (read_pickle(stream, announce) for _ in range(3))
    if not (isinstance(magic, int) and isinstance(protocol, int) and isinstance(about, dict)):
        raise ValueError("not torch's format")
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("not torch's format")
    begin = stream.tell()
    read_pickle(stream, announce)  # learns the sizes of the storages, which follow
    keys = read_pickle(stream, announce)
    # Types first: the hash of nested tuples can take for ever.
    if not isinstance(keys, list) or not all(is_name(key) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError("not a list of storages")
    mapped, places, place = _Mapped(file), dict[str, int](), stream.tell()
    for key in keys:
        item, _ = announced[key]
        size = int.from_bytes(mapped.content[place : place + 8], "little")
        places[key], place = place + 8, place + 8 + size * item
        if place > len(mapped.content):
            raise ValueError("the file ends within a storage")
    is_foreign = about.get("little_endian", True) is not (sys.byteorder == "little")

    def map_storage(key: str, dtype: torch.dtype, size: int) -> Tensor:
        return mapped.tensor(places[key], dtype, size, is_foreign=is_foreign)

    stream.seek(begin)
    return read_pickle(stream, map_storage)


class _Bounded:
    """A file that refuses to read more than a directory may have; zipfile believes whatever length is stated."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Like the file's; raises `UnsupportedError`."""
        content = self._file.read(_MAX_DIRECTORY_BYTES + 1 if size < 0 else min(size, _MAX_DIRECTORY_BYTES + 1))
        if len(content) > _MAX_DIRECTORY_BYTES:
            raise UnsupportedError(f"its directory has more than {_MAX_DIRECTORY_BYTES // 10**6} MB")
        return content


class _Mapped:
    """A file whose pages are shared with the disk until they are written to."""

    def __init__(self, file: BinaryIO) -> None:
        self.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._swapped, self._swapped_bytes = set[int](), 0
        self._copies, self._copied_bytes = dict[int, Tensor](), 0

    def start_of(self, record: zipfile.ZipInfo) -> int:
        """Where the bytes of a zip record begin: after its own header, whose length only that header states."""
        head = self.content[record.header_offset : record.header_offset + _LOCAL_HEADER]
        if record.header_offset < 0 or len(head) < _LOCAL_HEADER or head[:4] != b"PK\3\4":
            raise ValueError("a record has no header")
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        start = record.header_offset + _LOCAL_HEADER + lengths
        if start + record.file_size > len(self.content):
            raise ValueError("the file ends within a record")
        return start

    def bytes_of(self, record: zipfile.ZipInfo) -> bytes:
        """A copy of a record."""
        start = self.start_of(record)
        return self.content[start : start + record.file_size]

    def tensor(self, start: int, dtype: torch.dtype, size: int, *, is_foreign: bool) -> Tensor:
        """A flat view; in the other byte order it is a private copy of its pages, made once for each storage.

        Raises:
            ValueError: a storage in the other byte order has two sizes or types, or lies over another one.
        """
        if not size:
            return torch.empty(0, dtype=dtype)
        if start % dtype.itemsize and not is_foreign:
            return self._aligned(start, size * dtype.itemsize).view(dtype)
        flat = torch.frombuffer(self.content, dtype=dtype, count=size, offset=start)
        if is_foreign and dtype.itemsize > 1:
            if start in self._swapped:  # a second time would undo the first
                raise ValueError("a storage with two sizes or types")
            self._swapped.add(start)
            self._swapped_bytes += flat.nbytes
            if self._swapped_bytes > len(self.content):
                raise ValueError("storages lie over each other")
            flat.untyped_storage().byteswap(dtype)
        return flat

    def _aligned(self, start: int, size_bytes: int) -> Tensor:
        """A copy of a storage, uint8, made once; its pages of the file do not stay in memory beside it.

        Raises:
            ValueError: storages lie over each other.
        """
        kept = self._copies.get(start)
        if kept is None or len(kept) < size_bytes:
            self._copied_bytes += size_bytes
            if self._copied_bytes > len(self.content):
                raise ValueError("storages lie over each other")
            stored = torch.frombuffer(self.content, dtype=torch.uint8, count=size_bytes, offset=start)
            kept = self._copies[start] = stored.clone()
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
                first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
                if first < start + size_bytes:
                    self.content.madvise(mmap.MADV_DONTNEED, first, start + size_bytes - first)
        return kept[:size_bytes]
