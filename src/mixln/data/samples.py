"""The data that a model was measured on, as records; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """Windows of a text.

    :param description: of the text.
    :param tokens: in the windows, padding excluded; `asked` is how many were asked for.
    :param windows: of `length` tokens each.
    :param held_out: held-out documents that were read, of `held_out_documents`; `others` beside them.
    :param from_beginning: whether a text of one document was read from its beginning.
    """

    description: str
    tokens: int
    asked: int
    windows: int
    length: int
    held_out: int
    held_out_documents: int
    others: int = 0
    from_beginning: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """Images.

    :param description: of the data set.
    :param held_out: whether a comparison held them out.
    """

    description: str
    images: int
    labelled: bool
    held_out: bool
