"""Checks the header of a GGUF file against the file before transformers reads it.

The reader that transformers uses trusts tensor offsets and list lengths: an offset that wraps around yields the bytes of another
tensor, and a list of 2⁶⁰ entries never ends.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from mixln.errors import CheckpointError, first_line
from mixln.hosts import configs

WHOLE_NUMBERS = ("I8", "I16", "I32", "I64")
"""Integer tensor types, which cannot be weights and which the reader would convert to floating point."""
LONGEST_LIST = 10**7
"""Largest number of entries of a list in the header; the vocabulary is the longest list."""


def check(name: str, file: Path) -> tuple[int, int]:
    """Checks the numbers in the header and the positions of the tensors.

    :param name: the model's name as the user gave it, for error messages.
    :returns: (number of elements in all tensors, number of tensors).
    :raises CheckpointError: if the header cannot be read, a number is out of bounds, or a tensor overlaps another or exceeds the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about overflowing sums, which are found below
            reader = _reader(file)
        configs.check({key: field.contents() for key, field in reader.fields.items()})
        room = file.stat().st_size - reader.data_offset
        # By offset, so that an overlap shows between neighbours. Offsets count from the start of the data section.
        end, before = 0, ""
        for offset, size, tensor in sorted((int(t.field.parts[-1][0]), int(t.n_bytes), t.name) for t in reader.tensors):
            if offset < end:
                raise ValueError(f"tensor {tensor} overlaps {before}")
            if offset + size > room:
                raise ValueError(f"tensor {tensor} ends {offset + size - room:,} bytes after the end of the file")
            end, before = offset + size, tensor
        if integers := [tensor.name for tensor in reader.tensors if tensor.tensor_type.name in WHOLE_NUMBERS]:
            raise ValueError(f"tensor {integers[0]} has an integer type, which cannot hold weights")
        return sum(int(tensor.n_elements) for tensor in reader.tensors), len(reader.tensors)
    except Exception as error:  # the reader raises many types for a corrupt file
        raise CheckpointError(
            f"model {name}: its config cannot be read: {file.name} is corrupt: {first_line(error)}; download it again"
        ) from error


def _reader(file: Path) -> Any:
    """The gguf package's reader, made to stop at the end of the file."""
    from gguf import GGUFReader, GGUFValueType

    class StrictGGUFReader(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            values = super()._get(offset, dtype, count, override_order)
            # numpy shortens a slice beyond the end of the mapped file without an error.
            if len(values) != int(count):
                raise ValueError("the file ends before the data that its header describes")
            return values

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            # An array field: 4 bytes of element type, then its length in 8 bytes.
            if (
                raw_type == GGUFValueType.ARRAY
                and (length := int(self._get(orig_offs + 4, "uint64")[0])) > LONGEST_LIST
            ):
                raise ValueError(f"a list in its header has {length:,} entries, more than {LONGEST_LIST:,}")
            return super()._get_field_parts(orig_offs, raw_type)

    return StrictGGUFReader(file)
