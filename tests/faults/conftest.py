"""What the fuzzer counted, at the end of a test run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "fuzzed"
    ]
    if found:
        terminalreporter.section("inputs")
        for line in found:
            terminalreporter.write_line(line)
