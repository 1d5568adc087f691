import dataclasses
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from mixln.compare.results import Summary
from mixln.report.tables import comparison as tables
from mixln.report.wording import tables as words
from mixln.report.wording.phrases import at_rate
from tests.report import samples

EVERY = (samples.usual, samples.one_seed, samples.several_rates, samples.eight, samples.bare, samples.hostile)


def terminal(summary: Summary, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(tables.terminal_table(summary))
    return capture.get()


def cells(line: str) -> list[str]:
    """The cells of a line of Markdown, split as GitHub does: a bar after a backslash belongs to the text."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return re.split(r"(?<!\\)\|", line[1:-1])


def test_markdown_with_one_learning_rate() -> None:
    assert tables.markdown_table(samples.usual()) == (
        "| placement | init | learning rate | perplexity | difference from Pre-LN | bits per byte | ended | tokens/s |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: |\n"
        "| Pre-LN `pre` | normal | 0.001 | 204.4 | — (baseline) | 1.968 | 2 of 2 | 21,346 |\n"
        "| Post-LN `post` | normal | 0.001 | 1,176 | +475.5% [+405.3, +555.4] | 2.616 | 2 stalled | 21,346 |\n"
        "| Mix-LN `mix(0.25)` | normal | 0.001 | 184.9 | −9.5% [−12.5, −6.4] | 1.931 | 2 of 2 | 21,346 |\n"
        "| HybridNorm\\* `hybrid*` | megatron | 0.001 | 152.6 | −25.3% [−31.0, −19.1] | 1.860 | 2 of 2 | 21,346 |\n"
        "| unigram baseline |  |  | 1,153 |  | 2.610 |  |  |\n"
    )


def test_markdown_with_one_seed() -> None:
    lines = tables.markdown_table(samples.one_seed()).splitlines()
    assert lines[3:5] == [
        "| Mix-LN `mix(0.25)` | normal | 0.001 | 181.3 | −9.5% (n = 1, no interval) | 1.924 | 1 of 1 | 21,346 |",
        "| Post-LN `post` | normal | 0.001 | — | — | — | 1 diverged at step 40 | 21,346 |",
    ]


def test_several_learning_rates_add_the_common_one() -> None:
    lines = tables.markdown_table(samples.several_rates()).splitlines()
    assert [cell.strip() for cell in cells(lines[0])][2:7] == [
        words.best_rate(tuned=True).full,
        "perplexity",
        words.difference("Pre-LN").full,
        words.at_common("perplexity", 0.001).full,
        words.difference("Pre-LN", 0.001).full,
    ]
    assert lines[3] == (
        "| Post-LN `post` | normal | 0.0003 | 274.5 | +35.0% [+22.1, +49.2] | 1,194 | +487.1% [+431.2, +548.8] | 2.078 | "
        "2 of 6, 2 stalled, 2 diverged at steps 40–70 | 21,346 |"
    )
    assert lines[-1] == "| unigram baseline |  |  | 1,153 |  | 1,153 |  | 2.610 |  |  |"


@pytest.mark.parametrize("make", EVERY)
def test_markdown_has_the_same_number_of_cells_in_every_row(make) -> None:
    summary = make()
    lines = tables.markdown_table(summary).splitlines()
    assert len(lines) == len(summary.placements) + 3
    assert {len(cells(line)) for line in lines} == {len(tables.columns(summary))}


def test_markdown_makes_nothing_of_names() -> None:
    text = tables.markdown_table(samples.hostile())
    assert not re.search(r"(?<![\\`])<", re.sub(r"`[^`]*`", "", text))
    assert "\x1b" not in text


@pytest.mark.parametrize("make", EVERY)
def test_terminal_table_fits_80_columns(make) -> None:
    lines = terminal(make()).splitlines()
    assert max(cell_len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)
    assert "\x1b" not in "".join(lines)


def test_terminal_table_keeps_names_and_numbers_whole() -> None:
    text = terminal(samples.several_rates())
    for whole in (
        "HybridNorm*",
        "megatron",
        "perplexity",
        "difference",
        "−23.7%",
        "[−30.9, −15.6]",
        "21,346",
        "0.0003",
    ):
        assert whole in text
    assert words.each_placement(words.TUNED) in text
    assert words.each_placement(at_rate(0.001)) in text
    assert "[+431.2, +548.8]" in text


def test_terminal_table_reads_no_markup_in_names() -> None:
    assert "[bold red]" in terminal(samples.hostile(), width=200)


def test_a_title_equal_to_its_text_stands_once() -> None:
    trials = [samples.result(("post*3,pre*9", "post*3,pre*9", "normal"))]
    summary = samples.summary(
        [samples.row(("post*3,pre*9", "post*3,pre*9", "normal"), [samples.cell(trials)])], trials, baseline="other"
    )
    assert tables.markdown_table(summary).splitlines()[2].startswith("| post\\*3,pre\\*9 | normal |")
    assert tables.baseline_title(summary) == "other"


def test_seeds_that_stalled_stand_beside_the_number_of_those_that_trained() -> None:
    trials = [samples.result(samples.POST, loss=4.5), samples.result(samples.POST, seed=1, loss=7.1, status="stalled")]
    cell = dataclasses.replace(samples.cell(trials), loss=4.5, bits_per_byte=1.5)
    (row,) = [samples.row(samples.POST, [cell])]
    summary = dataclasses.replace(samples.usual(), placements=(row,), trials=tuple(trials))
    assert (
        "| Post-LN `post` | normal | 0.001 | 90.02 / stalled | — | 1.500 | 1 of 2, 1 stalled |"
        in tables.markdown_table(summary)
    )
