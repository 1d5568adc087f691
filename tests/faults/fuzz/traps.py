"""Files that are traps: what does not end, what leads elsewhere, what unpacks to more than there is memory, and odd names and images."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.faults.fuzz.files import OPERATIONS

OUTSIDE = "outside"
"""Folder of the materials with files of the user's that nothing here asks for."""


def _fresh(path: Path) -> Path:
    """The place of a file to be made: nothing stands there, and its folder does."""
    OPERATIONS["delete"](path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _fifo(path: Path) -> None:
    os.mkfifo(_fresh(path))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        _fresh(path)
        opened.bind(os.path.relpath(path))


def _link(path: Path, target: str) -> None:
    _fresh(path).symlink_to(target)


def _outside(path: Path, name: str = "") -> None:
    """A link that leads out of its folder."""
    _fresh(path).symlink_to(os.path.relpath(Path(OUTSIDE, name), path.parent))


def _moved(path: Path) -> None:
    """The file itself lies outside, and a link leads there."""
    target = Path(OUTSIDE, path.name)
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent))


def _sparse(path: Path, begin: bytes = b"") -> None:
    """A terabyte that takes no room."""
    _fresh(path).write_bytes(begin)
    os.truncate(path, 2**40)


@cache
def _packed(line: bytes, size: int) -> bytes:
    """A gzip of about `size` bytes of a line over and over, from members of 64 MB."""
    member = gzip.compress(line * (2**26 // len(line)))
    return member * (size >> 26)


def _gzip_bomb(path: Path, line: bytes) -> None:
    _fresh(path).write_bytes(_packed(line, 3 * 2**30))


@cache
def _parquet(rows: int) -> bytes:
    # A value of more than a megabyte would not be stored once, but as often as it stands there.
    values = pyarrow.array(["word " * 100_000]).dictionary_encode().take(pyarrow.array([0] * rows))
    table = pyarrow.table(dict.fromkeys(("text", "prompt", "completion", "chosen", "rejected"), values))
    written = io.BytesIO()
    pyarrow.parquet.write_table(table, written, compression="zstd")
    return written.getvalue()


def _parquet_bomb(path: Path) -> None:
    _fresh(path).write_bytes(_parquet(8000))


def _long(path: Path, size: int) -> None:
    """One line without a break."""
    _fresh(path).write_text(json.dumps({"text": "x" * size}) if path.suffix == ".jsonl" else "x" * size)


def _nested(path: Path) -> None:
    _fresh(path).write_text('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}")


def _yaml(path: Path, text: str) -> None:
    _fresh(path).write_text(text)


def _odd(path: Path, name: str) -> None:
    """A copy of the file under an odd name."""
    shutil.copy(path, path.with_name(name))


def _file(path: Path, data: bytes = b"mine") -> None:
    """A file of the user's."""
    _fresh(path).write_bytes(data)


def _folder(path: Path) -> None:
    """A folder of the user's with a file in it."""
    _fresh(path).mkdir()
    _file(path / "mine.txt")


def _copy(path: Path, other: str) -> None:
    """A copy that the user made of a file or folder of ours, where there is one."""
    if Path(other).exists():
        _fresh(path)
        (shutil.copytree if Path(other).is_dir() else shutil.copy)(other, path)


def _normalizer(path: Path) -> None:
    """A tokenizer that makes ten of every character, again and again."""
    entries = json.loads(path.read_text("utf-8"))
    many = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10}
    path.write_text(json.dumps({**entries, "normalizer": {"type": "Sequence", "normalizers": [many] * 12}}))


def _picture(path: Path, which: str) -> None:
    _fresh(path).write_bytes(_image(which))


@cache
def _image(which: str) -> bytes:
    """An image file that is unusual, or no image."""
    written = io.BytesIO()
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    colour = grey.convert("RGB")
    if which == "12000 x 12000":
        Image.new("L", (12_000, 12_000)).save(written, "PNG", compress_level=9)
    elif which == "a header of 60000 x 60000":
        grey.save(written, "PNG")
        return _png_size(written.getvalue(), 60_000, 60_000)
    elif which == "0 x 0":
        grey.save(written, "PNG")
        return _png_size(written.getvalue(), 0, 0)
    elif which == "1 x 60000":
        Image.new("L", (1, 60_000)).save(written, "PNG")
    elif which == "16 bits":
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(written, "PNG")
    elif which == "palette":
        colour.convert("P").save(written, "PNG", transparency=0)
    elif which == "alpha":
        colour.convert("RGBA").save(written, "PNG")
    elif which == "animated gif":
        colour.save(written, "GIF", save_all=True, append_images=[colour.rotate(90)] * 3)
    elif which == "gif with flipped width":
        colour.save(written, "GIF")
        return written.getvalue()[:7] + b"\xff" + written.getvalue()[8:]
    elif which == "cmyk":
        colour.convert("CMYK").save(written, "JPEG")
    elif which == "jpeg, cut":
        colour.resize((64, 64)).save(written, "JPEG")
        return written.getvalue()[:-200]
    elif which == "tiff, floats":
        Image.fromarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)).save(written, "TIFF")
    elif which == "text chunk that unpacks to 256 MB":
        grey.save(written, "PNG")
        data = written.getvalue()
        packed = zlib.compress(bytes(2**28), 9)
        return data[:33] + _chunk(b"zTXt", b"key\x00\x00" + packed) + data[33:]
    else:
        assert which == "svg", which
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><script>alert(1)</script></svg>'
    return written.getvalue()


PICTURES = (
    *(
        "12000 x 12000",
        "a header of 60000 x 60000",
        "0 x 0",
        "1 x 60000",
        "16 bits",
        "palette",
        "alpha",
        "animated gif",
    ),
    *("gif with flipped width", "cmyk", "jpeg, cut", "tiff, floats", "text chunk that unpacks to 256 MB", "svg"),
)


def _png_size(data: bytes, width: int, height: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return data[:8] + _chunk(b"IHDR", size + data[24:29]) + data[33:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


TRAPS: dict[str, Callable[..., Any]] = {
    "pipe": _fifo,
    "socket": _socket,
    "link to": _link,
    "link outside": _outside,
    "moved outside": _moved,
    "sparse": _sparse,
    "gzip bomb": _gzip_bomb,
    "parquet bomb": _parquet_bomb,
    "long": _long,
    "nested": _nested,
    "yaml": _yaml,
    "odd name": _odd,
    "file": _file,
    "folder of files": _folder,
    "copy": _copy,
    "normalizer": _normalizer,
    "picture": _picture,
}
