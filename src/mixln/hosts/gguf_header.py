"""The header of a GGUF file, held against the file before transformers reads it.

The reader that transformers uses takes the offset of a tensor and the lengths of lists as they come: an offset that wraps around
gives the bytes of another tensor, and a list of 2⁶⁰ entries is read for ever.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mixln.errors import CheckpointError, first_line
from mixln.hosts import configs

WHOLE_NUMBERS = ("I8", "I16", "I32", "I64")
"""Types of tensors that are no weights, which the reader would turn into floating-point numbers."""
LONGEST_LIST = 10**7
"""Entries of a list in the header: that of the tokens is the longest."""


def check(name: str, file: Path) -> tuple[int, int]:
    """Checks the numbers of the model and where its tensors lie.

    :param name: what the user called the model, for a message.
    :returns: how many numbers its tensors hold, and how many tensors there are.
    :raises CheckpointError: if the header cannot be read, a number is out of bounds, or a tensor overlaps another or leaves the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's of sums that wrap around, which are found below
            reader = _reader(file)
        configs.check({key: field.contents() for key, field in reader.fields.items()})
        room = file.stat().st_size - reader.data_offset
        end, before = 0, ""
        for offset, size, tensor in sorted((int(t.field.parts[-1][0]), int(t.n_bytes), t.name) for t in reader.tensors):
            if offset < end:
                raise ValueError(f"tensor {tensor} overlaps {before}")
            if offset + size > room:
                raise ValueError(f"tensor {tensor} ends {offset + size - room:,} bytes behind the end of the file")
            end, before = offset + size, tensor
        if whole := [tensor.name for tensor in reader.tensors if tensor.tensor_type.name in WHOLE_NUMBERS]:
            raise ValueError(f"tensor {whole[0]} holds whole numbers, and must hold weights")
        return sum(int(tensor.n_elements) for tensor in reader.tensors), len(reader.tensors)
    except Exception as error:  # the reader raises whatever it stumbles over
        raise CheckpointError(
            f"model {name}: its config cannot be read: {file.name} is damaged: {first_line(error)}; fetch it again"
        ) from error


def _reader(file: Path) -> Any:
    """The package's own reader, which stops at the end of the file."""
    from gguf import GGUFReader, GGUFValueType

    class Strict(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            found = super()._get(offset, dtype, count, override_order)
            if len(found) != int(count):
                raise ValueError("the file ends before what its header describes")
            return found

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if (
                raw_type == GGUFValueType.ARRAY
                and (length := int(self._get(orig_offs + 4, "uint64")[0])) > LONGEST_LIST
            ):
                raise ValueError(f"a list in its header has {length:,} entries, more than {LONGEST_LIST:,}")
            return super()._get_field_parts(orig_offs, raw_type)

    return Strict(file)
