# The project's checks, with `just` (https://just.systems) or read as a list of commands.

python := ".venv/bin/python"

# Lint, format, types, imports between the rooms
check:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    {{python}} -m pyright
    .venv/bin/lint-imports --no-logo

# The fast tests, as in the README
test:
    {{python}} -m pytest

# All tests but the slow ones, as in CI
test-all:
    {{python}} -m pytest -m "not slow"

# The slow tests: what a plan says against what a training takes, malformed inputs, torch.compile
test-slow:
    {{python}} -m pytest -n 0 -m slow

# Every family of the installed transformers: placed, trained a step, saved, loaded, generated with; about ten minutes on two cores
families:
    {{python}} -m pytest -n 2 -m slow tests/hosts/test_all_families.py

# The fast tests with the oldest, a middle and the newest supported versions, each in a new environment
matrix *names:
    {{python}} -m tests.matrix {{names}}

# The golden numbers of tests/golden, made anew: only when a number is meant to change
golden *names:
    {{python}} -m tests.golden {{names}}

# The fuzzer: more than a thousand inputs through the real command, counted by kind and outcome; about 25 minutes on two cores
fuzz:
    {{python}} -m pytest -m slow -n 2 tests/faults/test_malformed.py

# What each benchmark prints is a ratio against a named peer from the same run; about two hours on two cores
bench:
    {{python}} -m pip install -c constraints.txt -e ".[bench]"
    {{python}} benchmarks/callbacks.py
    {{python}} benchmarks/diagnostics.py
    {{python}} benchmarks/plan_memory.py
    {{python}} benchmarks/loss.py
    {{python}} benchmarks/step_parts.py
    {{python}} benchmarks/training_step.py --json docs/performance/default.json
    {{python}} benchmarks/training_step.py --model 71m --length 256 --repeats 4 --threads 2 --only Trainer "Trainer, kept" "plain, compiled" pre "pre, compiled" "hybrid*, compiled" --json docs/performance/71m.json
    {{python}} benchmarks/training_step.py --model 71m --length 256 --batch 32 --repeats 0 --only Trainer "plain, compiled" pre "pre, compiled" --json docs/performance/71m-memory.json
    {{python}} benchmarks/training_step.py --model 130m --length 256 --repeats 3 --threads 2 --only Trainer "Trainer, kept" pre "pre, compiled" --json docs/performance/130m.json
    {{python}} benchmarks/training_step.py --precision bfloat16 --repeats 10 --only Trainer "plain, compiled" pre "pre, compiled" --json docs/performance/default-bfloat16.json
    {{python}} benchmarks/comparison.py --json docs/performance/comparison.json
    {{python}} benchmarks/scaling.py docs/performance/scaling.json
    {{python}} benchmarks/figure.py docs/performance/scaling.json docs/images/performance.png

# The documents that are written from the code: every placement, and placements × families, what became of the recipes
documents:
    {{python}} -m mixln placements document > docs/placements.new && mv docs/placements.new docs/placements.md
    {{python}} -m tests.hosts.matrix
    {{python}} -m tests.hosts.counted
    {{python}} -m mixln reproduce --document docs/papers > docs/papers.new && mv docs/papers.new docs/papers.md
