"""Runs the real command on an input, in a process with limits of time, memory and file size, and says what came of it.

The process is a fork of this one, which has imported everything: the command line is parsed, and whatever it asks for is done, to the end.
A hang is found in C code too: a thread of faulthandler's writes where it stands and ends the process, and this process kills what that
does not end. Nothing is replaced, unless `quick` asks for workers without processes of their own.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import importlib
import io
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.faults.fuzz.case import Case

SECONDS = {"compare": 300, "stress": 300, "tune": 600}
"""Command that starts workers → seconds that it may take; of all others, :data:`USUAL`."""
USUAL = 120
MEMORY = 6 * 2**30
"""Bytes of address space of a process: what a bomb unpacks to does not fit."""
FILE = 2 * 2**30
"""Bytes of a file that a process may write."""
GRACE = 5.0
"""Seconds that are given to what a command leaves behind, and to the watchdog before it is overruled."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came of a command.

    :param code: its exit code, negative for a signal; `None` if it had to be killed.
    :param out: its standard output; `errors` likewise.
    :param left: what it left behind beside its files: processes, temporary files.
    :param megabytes: that it had in memory at most.
    """

    code: int | None
    out: str
    errors: str
    left: tuple[str, ...]
    seconds: float
    megabytes: int


def preload() -> None:
    """Imports all of mixln, and the libraries that it imports where they are needed: each process has them from its beginning."""
    import mixln

    for module in pkgutil.walk_packages(mixln.__path__, "mixln."):
        if module.name != "mixln.__main__":
            importlib.import_module(module.name)
    for name in (
        "trl",
        "peft",
        "lm_eval.models.huggingface",
        "gguf",
        "optuna",
        "PIL.Image",
        "kornia",
        "scipy.stats",
        "matplotlib.pyplot",
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run(case: Case, folder: Path, *, quick: bool = False) -> Ran:
    """Runs an input's command in a folder.

    :param quick: do what workers would do in the same process.
    """
    limit = SECONDS.get(case.command[0], USUAL)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        made = Path(place)
        for name in ("home", "temporary"):
            (made / name).mkdir()
        began = time.monotonic()
        process = _fresh(case, folder, made) if case.fresh else _forked(case, folder, made, limit, quick)
        code, megabytes = _wait(process, limit + (0 if case.fresh else GRACE))
        left = tuple(f"a file {path.name} among the temporary ones" for path in (made / "temporary").iterdir())
        texts = [(made / name).read_bytes().decode("utf-8", "replace") for name in ("out", "errors")]
        if code is None or "Timeout (" in texts[1]:
            code = None
        return Ran(
            code=code,
            out=texts[0],
            errors=texts[1],
            left=(*left, *_orphans(process)),
            seconds=time.monotonic() - began,
            megabytes=megabytes,
        )


def in_child(work: Callable[[], int | None], folder: Path, *, quick: bool = True) -> int | None:
    """Runs a function in a fork of this process and a folder; its exit code, `None` for a hang. What it prints is printed if it fails."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for name in ("home", "temporary"):
            (Path(place) / name).mkdir()
        process = _fork(lambda: _body(work, quick), Path(place), folder, 600)
        code, _ = _wait(process, 605)
        if code != 0:
            print(*[(Path(place) / name).read_text() for name in ("out", "errors")], sep="\n")
        return code


def _forked(case: Case, folder: Path, place: Path, limit: float, quick: bool) -> int:
    def work() -> int | None:
        from mixln.cli import main

        os.umask(case.umask)
        for name, value in case.environment:
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        return main(list(case.command))

    return _fork(lambda: _body(work, quick), place, folder, limit)


def _fork(body: Callable[[], int], place: Path, folder: Path, limit: float) -> int:
    """The id of a new process, which leads a session of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this process has threads; those of torch and Arrow are begun anew
        process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        _redirect(place)
        _limits()
        watched = os.dup(2)  # a library may redirect the other
        faulthandler.enable(watched)
        faulthandler.dump_traceback_later(limit, exit=True, file=watched)
        os.environ |= _environment(place)
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        tempfile.tempdir = None
        os.chdir(folder)
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _body(work: Callable[[], int | None], quick: bool) -> int:
    """What the interpreter does with a command, from its warnings to its exit."""
    atexit._clear()  # what the test run wants to do at its end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    code: Any = 1
    with mock.patch("mixln.compare.experiment.ProcessPool", Here) if quick else contextlib.nullcontext():
        try:
            code = work()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
            code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return code & 0xFF if isinstance(code, int) else 0 if code is None else 1


class Here:
    """Workers that are this process: each job is done when it is submitted. For the fast tests, to whom a new interpreter is too slow."""

    def __init__(self, *_: Any) -> None:
        """There is nothing to start."""

    def submit(self, job: Any) -> Future[Any]:
        from mixln.compare.execution.runner import work

        done: Future[Any] = Future()
        try:
            done.set_result(work(job))
        except Exception as error:
            done.set_exception(error)
        return done

    def stop(self) -> None:
        """It has stopped."""

    def close(self, *, kill: bool) -> None:
        """There is nothing to close."""


def _fresh(case: Case, folder: Path, place: Path) -> int:
    """The id of a new interpreter that runs the command."""
    environment = {**os.environ, **_environment(place)}
    for name, value in case.environment:
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value

    def limits() -> None:
        os.umask(case.umask)
        _limits()

    with (place / "out").open("wb") as out, (place / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mixln", *case.command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            preexec_fn=limits,
        )
    process.returncode = 0  # it is waited for by its id
    return process.pid


def _environment(place: Path) -> dict[str, str]:
    return {"HOME": str(place / "home"), "TMPDIR": str(place / "temporary"), "PYTHONWARNINGS": "", "COLUMNS": "200"}


def _redirect(place: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "errors")):
        handle = os.open(place / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is an error of writing


def _wait(process: int, seconds: float) -> tuple[int | None, int]:
    """Waits for a process: its exit code, `None` if it had to be killed, and its megabytes at most."""
    handle = os.pidfd_open(process)
    try:
        ended, _, _ = select.select([handle], [], [], seconds)
    finally:
        os.close(handle)
    if not ended:
        _kill(process)
    _, status, used = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status) if ended else None, used.ru_maxrss >> 10


def _orphans(session: int) -> list[str]:
    """Kills what is left of a session, a moment after its end, and says that there was something."""
    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        if not _alive(session):
            return []
        time.sleep(0.05)
    found = _alive(session)
    _kill(session)
    return [f"processes {', '.join(found)}"] if found else []


def _alive(session: int) -> list[str]:
    """The processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, _, its_session = rest.split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(name.partition("(")[2])
    return found


def _kill(session: int) -> None:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[3]) == session:
                os.kill(int(path.parent.name), signal.SIGKILL)
