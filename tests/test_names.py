"""Names of the package: a class is found by its name alone."""

from __future__ import annotations

import ast
from pathlib import Path

import mixln

PACKAGE = Path(mixln.__file__).parent


def test_a_class_name_exists_once():
    seen: dict[str, Path] = {}
    twice = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                if node.name in seen:
                    twice.append(
                        f"{node.name} in {seen[node.name].relative_to(PACKAGE)} and {path.relative_to(PACKAGE)}"
                    )
                seen[node.name] = path
    assert seen
    assert not twice, "; ".join(twice)
