"""A mistake of the user's is one line on standard error and exit code 2; nothing is written."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tyro import _errors

from mixln.cli import main
from tests import small
from tests.cli.test_commands import COMMAND, run

USUAL = shlex.split(
    "compare --model config.json --data text --sequence-length 16 --batch-size 4 --out out --cache cache"
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with a text, a config.json and some broken ones."""
    monkeypatch.chdir(tmp_path)
    small.write_folder(tmp_path / "text", small.documents())
    small.write_config(tmp_path / "config.json")
    small.write_config(tmp_path / "heads.json", num_attention_heads=5)
    (tmp_path / "broken.json").write_text('{"model_type":')
    (tmp_path / "short.txt").write_text("one two three")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    return tmp_path


def content(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


def mistake(capsys, *arguments: str) -> str:
    """The line that a mistaken command says, without the command's name; it exits with 2."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("mixln: ")
    assert said.endswith("\n")
    assert said.count("\n") == 1
    return said.removeprefix("mixln: ").rstrip("\n")


MISTAKES = [
    ("--placements prelude", "placement 'prelude' is not known; known: pre, post, mix(α), hybrid(variant), hybrid*"),
    ("--placements mix(1.5)", "α must lie in [0, 1], got 1.5"),
    ("--placements mix(-0.25)", "α must lie in [0, 1], got -0.25"),
    ("--placements mix(some)", "mix(some): α must be a number such as 0.25 or 1/4, or a count such as 3, got 'some'"),
    ("--placements pre pre", "placements must not repeat, got pre twice"),
    ("--placements pre --baseline post", "baseline must be one of the placements pre, got post"),
    ("--steps 0", "steps must be at least 1, got 0"),
    ("--steps -3", "steps must be at least 1, got -3"),
    ("--steps 5 --tokens 500", "steps and tokens both set the length of the training; give only one of them"),
    ("--steps five", "--steps cannot be 'five'"),
    ("--steps 1.5", "--steps cannot be '1.5'"),
    ("--steps", "--steps must be given a value; see mixln compare --help"),
    ("--learning-rates fast", "--learning-rates cannot be 'fast'"),
    ("--learning-rates 0", "learning-rates must be above 0, got 0.0"),
    ("--seeds 0.5", "--seeds cannot be '0.5'"),
    ("--batch-size 8 --micro-batch-size 3", "micro-batch-size must divide batch-size 8, got 3"),
    (
        "--precision float16",
        "--precision must be one of auto, float32, bfloat16, got 'float16'; see mixln compare --help",
    ),
    ("--held-out 0.7", "held-out must lie between 0 and 0.5 (a share of the documents), got 0.7"),
    ("--jobs 0", "jobs must be at least 1, got 0"),
    ("--init zeros", "init 'zeros' is not known; known: normal, small, megatron, scaled, deepnorm"),
    ("--epochs 3", "Unrecognized options: --epochs 3"),
    ("--model 70b", "model '70b' is not known; did you mean 7b? known: tiny, olmoe-tiny, qwen2-tiny, "),
    ("--model heads.json", "The hidden size (32) is not a multiple of the number of attention heads (5)."),
    ("--model broken.json", "model broken.json cannot be read as a transformers config: Expecting value: line 1"),
    ("--data missing.txt", "data missing.txt does not exist"),
    ("--data short.txt", "the training part has"),
    ("--data mixln-tests/no-such-set", "is not a local path and cannot be loaded from the hub"),
    ("--tokenizer no-such-tokenizer", "tokenizer 'no-such-tokenizer' cannot be loaded"),
    ("--sequence-length 65", "must hold the sequence length 65, got 64"),
    ("--out foreign", "out foreign is not empty and holds no experiment; choose another --out"),
    ("--out short.txt", "out short.txt is not empty and holds no experiment; choose another --out"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_in_compare_is_one_line_and_writes_nothing(folder, capsys, arguments, said):
    before = content(folder)
    assert said in mistake(capsys, *USUAL, *arguments.split())
    assert content(folder) == before
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "Unrecognized options: train"),
        (["compare", "sotu"], "Unrecognized options: sotu"),
        (["--verbose"], "Unrecognized options: --verbose"),
        (["placements", "show", "prelude"], "placement 'prelude' is not known; known: pre, post"),
        (["placements", "show", "mix(7)", "--layers", "3"], "must be at most the model's 3, got 7"),
        (["placements", "show", "pre", "--layers", "0"], "layers must be at least 1, got 0"),
        (["placements", "show", "pre", "--layers", "many"], "'many'"),
        (["placements", "show", "pre", "--family", "qwen22"], "family 'qwen22' is not known to transformers"),
        (["placements", "show", "pre", "--family", "mamba"], "MambaBlock does not add a branch to the residual stream"),
        (["placements", "show", "stock", "--family", "modernbert"], "layers of modernbert differ, x ← x + A(x);"),
        (["placements", "show"], "PLACEMENT must be given; see mixln placements show --help"),
        (["placements", "draw"], "Unrecognized options: draw; expected one of list, show"),
        (["rlhf"], "MODEL, --reward-model must be given; see mixln rlhf --help"),
        (
            ["rlhf", "a", "--rewardmodel", "c"],
            "must be given; Unrecognized options: --rewardmodel c; did you mean --reward-mod",
        ),
        (["rlhf", "a", "b", "--reward-model", "c"], "Unrecognized options: b; see mixln rlhf --help"),
        (["evaluate", "x", "--task", "arc_easy"], "--task arc_easy; did you mean --tasks? See mixln evaluate --help"),
        (
            ["finetune", "x", "--epoch", "3", "--batchsize", "8"],
            "did you mean --epochs, --batch-size? See mixln finetune",
        ),
        (["diagnose", "x", "--no-drops"], "did you mean --no-drop? See mixln diagnose --help"),
        (["finetune", "x", "--lora", ""], "--lora cannot be ''; see mixln finetune --help"),
        (["finetune", "x", "--seed", "it's"], '--seed cannot be "it\'s"; see mixln finetune --help'),
        (["--steps", "300"], "--steps 300; expected one of compare, pretrain"),
        (["--cache", "x", "finetune", "m"], "--cache x; options must follow the command; see mixln finetune --help"),
        (
            ["compare", "--reward.micro-batch-siz", "3"],
            "did you mean --reward.micro-batch-size? See mixln compare --help",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("columns", ["40", "90"])
def test_a_mistake_elsewhere_is_one_line(capsys, monkeypatch, columns, arguments, said):
    monkeypatch.setenv("COLUMNS", columns)
    assert said in mistake(capsys, *arguments)


def test_the_installed_command_says_one_line_and_exits_with_2(folder):
    before = content(folder)
    found = run(*USUAL, "--placements", "prelude")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("mixln: placement 'prelude' is not known; known: pre")
    assert found.stderr.count("\n") == 1
    assert content(folder) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--epochs", "3"],
            "mixln: Unrecognized options: --epochs 3; --epochs is for --task vision; "
            "did you mean --rlhf.epochs? See mixln compare --help\n",
        ),
        (["--token", "3"], "mixln: Unrecognized options: --token 3; did you mean --tokens? See mixln compare --help\n"),
        (["--steps", "five"], "mixln: --steps cannot be 'five'; see mixln compare --help for what it takes\n"),
    ],
)
def test_the_line_has_no_frame_and_no_colour(arguments, line):
    found = run("compare", *arguments)
    assert (found.returncode, found.stdout, found.stderr) == (2, "", line)


def in_a_terminal(*arguments: str) -> str:
    """What the command writes where its output is a terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen([COMMAND, *arguments], stdin=child, stdout=child, stderr=child)
    os.close(child)
    said = b""
    try:
        while data := os.read(parent, 4096):
            said += data
    except OSError:  # Linux gives this at the end of a terminal
        pass
    os.close(parent)
    assert process.wait(timeout=60) == 2
    return said.decode()


@pytest.mark.parametrize("option", ["--epochs", "--steps"])
def test_the_line_is_the_same_in_a_terminal(option):
    assert in_a_terminal("compare", option, "x").replace("\r\n", "\n") == run("compare", option, "x").stderr


def test_a_mistyped_option_is_one_short_line(capsys):
    assert len(mistake(capsys, "compare", "--step", "5")) < 120


@pytest.mark.parametrize("arguments", ["--out short.txt/out", "--cache short.txt"])
def test_a_folder_that_cannot_be_made_is_one_line(folder, capsys, arguments):
    assert "short.txt" in mistake(capsys, *USUAL, *arguments.split())


def test_options_of_images_without_the_task_say_which_task(capsys):
    assert "--epochs, --flip are for --task vision" in mistake(capsys, "compare", "--epochs", "3", "--flip", "0")


def _no_hook(monkeypatch):
    monkeypatch.delattr(_errors, "on_parse_error")


def _hook_with_another_signature(monkeypatch):
    monkeypatch.setattr(_errors, "on_parse_error", lambda: None)


def _hook_with_other_events(monkeypatch):
    known = _errors.on_parse_error
    monkeypatch.setattr(_errors, "on_parse_error", lambda hook: known(lambda event: hook(object())))


@pytest.mark.parametrize("change", [_no_hook, _hook_with_another_signature, _hook_with_other_events])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("placements show", "the command line cannot be parsed; see mixln --help and mixln COMMAND --help"),
        ("compare --steps five", "the command line cannot be parsed; see mixln --help and mixln COMMAND --help"),
        ("compare --epochs 3", "the command line cannot be parsed; see mixln --help and mixln COMMAND --help"),
        ("compare --steps 0", "steps must be at least 1, got 0"),
    ],
)
def test_another_release_of_tyro_gives_a_generic_line(capsys, monkeypatch, change, arguments, said):
    change(monkeypatch)
    assert mistake(capsys, *arguments.split()) == said


def test_help_needs_no_hook(capsys, monkeypatch):
    _no_hook(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "--placements" in capsys.readouterr().out


EARLY = [
    ("compare --placements prelude", "placement 'prelude' is not known"),
    ("compare --placements dytt+pre", "placement modifier 'dytt' is not known"),
    ("compare --baseline prelude --extend", "placement 'prelude' is not known"),
    ("compare --model nano", "model 'nano' is not known"),
    ("compare --init nrml", "init 'nrml' is not known"),
    ("compare --data ./none.txt", "data ./none.txt does not exist"),
    ("compare --task vision --model nano", "model 'nano' is not known"),
    ("pretrain --placement prelude", "placement 'prelude' is not known"),
    ("pretrain --from ./none", "model './none' does not exist"),
    ("plan --model nano", "model 'nano' is not known"),
    ("stress --inits nrml", "init 'nrml' is not known"),
    ("tune --data ./none.txt", "data ./none.txt does not exist"),
    ("diagnose ./none", "model './none' does not exist"),
    ("evaluate none.gguf", "model 'none.gguf' does not exist"),
    ("prune ./none --layers 1 --out o", "model './none' does not exist"),
    ("rlhf ./none --reward-model ./none", "model './none' does not exist"),
]


def test_an_unknown_name_is_refused_before_torch_is_imported(tmp_path):
    program = (
        "import sys, shlex\nfrom mixln.cli import main\n"
        f"for line in {[line for line, _ in EARLY]!r}:\n    print(main(shlex.split(line)), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(EARLY)
    for said, (_, message) in zip(done.stderr.splitlines(), EARLY, strict=True):
        assert said.startswith(f"mixln: {message}")
    assert not any(tmp_path.iterdir())


def test_a_command_says_that_it_loads_libraries(capsys):
    assert main(["plan", "--model", "tiny"]) == 0
    assert capsys.readouterr().out.startswith("loading libraries\n")
