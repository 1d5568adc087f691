"""Runs the fast tests with the oldest, a middle and the newest supported versions: `just matrix`, or one: `just matrix oldest`.

Each environment is made anew in a folder of its own. Packages come from where pip takes them on this machine; for CPU builds of torch
set PIP_EXTRA_INDEX_URL to PyTorch's CPU index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
MIDDLE = ("transformers==5.17.0",)
"""The newest that unsloth and llmcompressor allow in autumn 2026."""
SHOWN = ("torch", "transformers", "huggingface_hub", "tokenizers", "numpy")


def lowest() -> list[str]:
    """The lower bound of every requirement of mixln and its extras, without `bench` and `dev`, as exact versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name in extras if name not in ("bench", "dev") for line in extras[name]),
    ]
    return [line.partition(",")[0].replace(">=", "==") for line in wanted if not line.startswith("mixln[")]


ENVIRONMENTS = {"oldest": lowest, "5.17": lambda: [*MIDDLE], "newest": lambda: []}
"""Name → the constraints with which its packages are installed; without constraints pip takes the newest that are allowed."""


def run(name: str, folder: Path) -> bool:
    """Makes an environment in a folder and runs the fast tests in it; returns whether they passed."""
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in ENVIRONMENTS[name]()))
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, "-e", f"{ROOT}[test]"], check=True)
    print(f"{name}:", *(f"{package} {version_in(python, package)}" for package in SHOWN), flush=True)
    return subprocess.run([python, "-m", "pytest"], cwd=ROOT).returncode == 0


def version_in(python: str, package: str) -> str:
    """The version of a package in the environment of an interpreter."""
    program = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return subprocess.run([python, "-c", program, package], check=True, capture_output=True, text=True).stdout.strip()


def main(names: list[str]) -> int:
    if unknown := set(names) - ENVIRONMENTS.keys():
        print(f"no environment is called {', '.join(sorted(unknown))}; choose from: {', '.join(ENVIRONMENTS)}")
        return 2
    passed = {}
    for name in names or ENVIRONMENTS:
        with tempfile.TemporaryDirectory(prefix="mixln-matrix-") as folder:
            passed[name] = run(name, Path(folder))
    for name, good in passed.items():
        print(f"{name}: {'passed' if good else 'failed'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
