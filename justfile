# The project's checks, with `just` (https://just.systems) or read as a list of commands.

python := ".venv/bin/python"

# Lint, format, types
check:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m pyright

# The fast tests, as in the README
test:
    {{python}} -m pytest

# The slow tests: worker processes killed and resumed, torch.compile
test-slow:
    {{python}} -m pytest -m slow

# What each benchmark prints is a ratio against a named peer from the same run
bench:
    {{python}} benchmarks/callbacks.py
    {{python}} benchmarks/diagnostics.py
    {{python}} benchmarks/plan_memory.py
    {{python}} benchmarks/loss.py
    {{python}} benchmarks/step_parts.py
    {{python}} benchmarks/training_step.py

# The documents that are written from the code: every placement, and placements × families
documents:
    {{python}} -c "from mixln.cli import main; main(['placements', 'document'])" > docs/placements.md
    {{python}} -m tests.hosts.matrix
