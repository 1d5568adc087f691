from mixln.report.tables import removal
from mixln.report.wording import removal as words
from mixln.report.wording import tables
from tests.report import diagnosis_samples as samples


def test_a_row_for_each_method() -> None:
    found = {column.heading: column.cells for column in removal.set_columns(samples.selection())}
    assert found[words.METHOD] == tuple(words.METHODS.values())
    assert found[words.REMOVED] == ("8, 3, 9, 11", "8, 9, 10, 11", "7, 8, 9, 10")
    assert found["loss"] == ("5.410", "5.510", "5.610")
    assert found[tables.drop("nats per token")] == ("+0.110", "+0.210", "+0.310")
    assert found[tables.INTERVAL][0] == "[+0.10, +0.12]"
    assert found[words.SAVED] == ("200,000 (16.2%)",) * 3


def test_the_least_used_experts_come_first() -> None:
    found = {column.heading: column.cells for column in removal.expert_columns(samples.experts())}
    assert found[words.EXPERT_LAYER] == ("1", "2", "4")
    assert found[words.CHOSEN][1] == "0: 100.0%"
    assert found[words.LEAST][1] == "3, 2, 1, 0"
    assert found[words.SHARES][1] == "0.00%, 25.00%, 75.00%, 100.00%"
    assert found[words.WEIGHTS][1] == "—, 0.100, 0.300, 0.600"
    assert found[words.NEVER] == ("0", "1", "0")
