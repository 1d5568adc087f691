"""What is done to a file that is there: bytes, entries of JSON, rows, tensors, headers of GGUF."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file, save_file


def change(path: Path, operation: str, *how: Any) -> None:
    """Does one thing to a file."""
    from tests.faults.fuzz.traps import TRAPS

    {**OPERATIONS, **TRAPS}[operation](path, *how)


def _set(path: Path, place: int, value: Any) -> None:
    _edit(path, place, lambda holder, key: holder.__setitem__(key, value))


def _remove(path: Path, place: int) -> None:
    _edit(path, place, lambda holder, key: holder.__delitem__(key))


def _edit(path: Path, place: int, edit: Callable[[Any, Any], None]) -> None:
    """Changes one entry of a JSON file, or of the first line of a .jsonl; of a file that holds no entry, nothing."""
    text, rows = path.read_text("utf-8"), path.suffix == ".jsonl"
    first, _, rest = text.partition("\n") if rows else (text, "", "")
    value = json.loads(first)
    if places := list(_places(value)):
        edit(*places[place % len(places)])
        path.write_text(json.dumps(value) + (f"\n{rest}" if rows else ""), "utf-8")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry of nested JSON, as what holds it and its key or index."""
    if not isinstance(value, dict | list):
        return
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        yield from _places(inner)


def _entry(path: Path, name: str, value: Any) -> None:
    """Sets an entry by name."""
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), name: value}), "utf-8")


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _flip(path: Path, share: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[min(len(data) - 1, int(len(data) * share))] ^= 1 << bit
    path.write_bytes(data)


def _line(path: Path, text: str) -> None:
    path.write_text(path.read_text("utf-8") + text + "\n", "utf-8", errors="surrogatepass")


def _columns(path: Path, which: int) -> None:
    columns = [
        {},
        {"text": [1, 2]},
        {"text": [None] * 60},
        {"text": [["a"]] * 60},
        {"text": [b"\xff"] * 60},
        {"prompt": [math.nan]},
    ]
    pyarrow.parquet.write_table(pyarrow.table(columns[which]), path)


def _length(path: Path, more: int) -> None:
    """A header of safetensors that is longer than any file."""
    path.write_bytes((2**62 + more).to_bytes(8, "little") + path.read_bytes()[8:])


def _header(path: Path, entry: int, value: Any) -> None:
    """Changes one entry of the header of safetensors."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    places = list(_places(header))
    holder, key = places[entry % len(places)]
    holder[key] = value
    made = json.dumps(header).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + data[8 + size :])


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _pickle(path: Path, *_: Any) -> None:
    """In place of the weights, a pickle that runs code."""
    path.unlink()
    (path.parent / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(path.parent / "pwned")))


def _tensor(new: Callable[[torch.Tensor], torch.Tensor | None], suffix: str = "") -> Callable[[Path, int], None]:
    """Puts a changed tensor in place of one of them, or beside it under a longer name; `None` drops it."""

    def operation(path: Path, which: int) -> None:
        weights = load_file(path)
        name = sorted(weights)[which % len(weights)]
        made = new(weights[name])
        if made is None:
            del weights[name]
        else:
            weights[name + suffix] = made
        save_file(weights, path, metadata={"format": "pt"})

    return operation


def _field(path: Path, name: str, value: int) -> None:
    """Changes a number in the header of a GGUF file."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    part = reader.fields[name].parts[-1]
    part[0] = value % 2 ** (8 * part.itemsize)
    part.flush()


def _offset(path: Path, which: int, value: int) -> None:
    """Changes where a tensor of a GGUF file begins, or one of its dimensions."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    tensor = reader.tensors[which % len(reader.tensors)]
    part = tensor.field.parts[-1] if which % 2 else tensor.field.parts[3]
    part[0] = value % 2**64
    part.flush()


def _gone(path: Path) -> None:
    """Deletes a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _instead(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def operation(path: Path) -> None:
        _gone(path)
        make(path)

    return operation


def _like(path: Path, other: str) -> None:
    """Copies another file or folder to this place."""
    _gone(path)
    copy = shutil.copytree if Path(other).is_dir() else shutil.copy
    copy(other, path)


OPERATIONS: dict[str, Callable[..., None]] = {
    "set": _set,
    "remove": _remove,
    "entry": _entry,
    "cut": _cut,
    "flip": _flip,
    "bytes": lambda path, data: path.write_bytes(data),
    "line": _line,
    "columns": _columns,
    "length": _length,
    "header": _header,
    "pickle": _pickle,
    "drop": _tensor(lambda tensor: None),
    "misshape": _tensor(lambda tensor: torch.cat([tensor, tensor])),
    "retype": _tensor(lambda tensor: tensor.to(torch.int8)),
    "nan": _tensor(lambda tensor: torch.full_like(tensor, torch.nan)),
    "extra": _tensor(torch.clone, ".extra"),
    "field": _field,
    "offset": _offset,
    "delete": _gone,
    "folder": _instead(Path.mkdir),
    "link to nothing": _instead(lambda path: path.symlink_to("nowhere")),
    "link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "like": _like,
}
