import dataclasses
import io

from rich.console import Console

from mixln.diagnostics.results import Diagnosis
from mixln.report.tables import layers as layer_table
from mixln.report.tables.layers import terminal_diagnosis
from mixln.report.wording import charts
from mixln.report.wording import tables as words
from tests.report import diagnosis_samples as samples

PER_TOKEN = "nats per token"


def cells(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    return {column.heading or column.short: column.cells for column in layer_table.columns(diagnosis)}


def printed(diagnosis: Diagnosis, width: int = 100) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal_diagnosis(diagnosis))
    return stream.getvalue().splitlines()


def test_a_row_a_layer_with_what_was_measured() -> None:
    model = samples.model("a", 4, post=True)
    assert model.drops is not None
    assert model.gradients is not None
    skipped = model.drops.skipped[0]
    found = cells(model)
    assert found[words.LAYER[0]] == ("1", "2", "3", "4")
    assert found[words.ANGLE[0]][2] == f"{model.angular.distance[2][0]:.3f}"
    assert found[words.drop(PER_TOKEN)][0] == f"+{skipped.change:#.3g}"
    assert found[words.zeroed(words.drop(PER_TOKEN))[0]][0] == f"+{3 * skipped.change:#.3g}"
    gate = model.gradients.gate
    assert found[words.estimate(PER_TOKEN)][0] == f"+{-2 * gate.attention[0]:#.3g}"
    assert found[words.gradient_norm(charts.ATTENTION)][1] == f"{model.gradients.norm.attention[1]:#.3g}"
    assert found[words.STREAM_VARIANCE[0]][3] == f"{model.stream.variance.feed_forward[3]:#.3g}"
    assert found[words.drop("acc of arc_easy")][0] == "−0.190"
    assert all(len(column) == 4 for column in found.values())


def test_what_was_not_measured_has_no_column() -> None:
    assert list(cells(samples.minimal("a"))) == [
        words.LAYER[0],
        words.ANGLE[0],
        words.INFLUENCE,
        words.STREAM_VARIANCE[0],
    ]
    assert words.zeroed(words.drop(PER_TOKEN))[0] not in cells(samples.model("a", 4))


def test_a_layer_without_a_drop_has_a_dash() -> None:
    model = samples.model("a", 3)
    assert model.drops is not None
    some = dataclasses.replace(
        model, drops=dataclasses.replace(model.drops, skipped=model.drops.skipped[:1], zeroed=())
    )
    change, interval = layer_table.columns(some)[3:5]
    assert change.cells[1:] == interval.cells[1:] == ("—", "—")
    assert interval.cells[0].startswith("[+")


def test_layers_that_can_only_be_zeroed_have_that_drop_alone() -> None:
    model = samples.model("a", 4)
    assert model.drops is not None
    found = cells(dataclasses.replace(model, drops=dataclasses.replace(model.drops, skipped=(), blocks=())))
    zeroed = model.drops.zeroed[0].change
    assert found[words.zeroed(words.drop(PER_TOKEN))[0]][0] == f"+{zeroed:#.3g}"
    assert words.drop(PER_TOKEN) not in found


def test_the_terminal_shows_a_row_a_layer_within_80_columns() -> None:
    lines = printed(samples.model("a", 12, post=True))
    assert len(lines) == 3 + 12
    assert max(map(len, lines)) <= 80
    assert lines[-1].split()[0] == "12"
    assert "…" not in "".join(lines)
    for heading in (words.ANGLE[1], words.zeroed("")[1], words.GRADIENT_NORM[1], words.STREAM_VARIANCE[1]):
        assert heading.split("\n")[-1] in lines[1]


def test_the_terminal_shows_the_gradient_norm_of_the_whole_layer() -> None:
    model = samples.model("a", 3)
    assert model.gradients is not None
    norm = model.gradients.norm
    expected = f"{(norm.attention[0] ** 2 + norm.feed_forward[0] ** 2) ** 0.5:#.3g}"
    assert expected in printed(model)[3].split()


def test_blocks_of_layers() -> None:
    model = samples.model("a", 12)
    assert model.drops is not None
    names, values, changes, intervals = layer_table.block_columns(model.drops)
    assert names.cells == ("2–3", "5–8")
    assert values.cells == ("5.900", "6.200")
    assert changes.cells == ("+0.600", "+0.900")
    assert intervals.cells == ("[+0.48, +0.72]", "[+0.72, +1.1]")


def test_html_rows_have_headings_and_text_is_escaped() -> None:
    model = dataclasses.replace(samples.minimal("a"), tasks=(samples.task("<script>", (0.1, 0.2, 0.3)),))
    html = layer_table.html_table(layer_table.columns(model))
    assert html.count('<th scope="row"') == 3
    assert "ΔP, &lt;script&gt;" in html
    assert "<script>" not in html
