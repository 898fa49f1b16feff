"""What the benchmarks share: peers in environments of their own, timed processes, and tables in docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
# Now, because a benchmark may leave this folder.
COMMAND = ["python", os.path.relpath(os.path.abspath(sys.argv[0]), ROOT), *sys.argv[1:]]
PEERS = ROOT / "benchmarks" / ".peers"


@dataclass(frozen=True)
class Peer:
    """Another program that does the same. `packages` are pinned, so that a table says what was measured."""

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Took:
    """What a process took: seconds by the clock, seconds of cores (its children's too), peak memory of the largest."""

    seconds: float
    cpu: float
    peak_mb: float

    def values(self) -> tuple[float, float, float]:
        """All three."""
        return self.seconds, self.cpu, self.peak_mb


class BenchmarkError(Exception):
    """Something that cannot be measured here; the message says why."""


def install(peer: Peer) -> Path:
    """The bin folder of a peer's own environment, made if it is not there.

    Raises:
        BenchmarkError: It cannot be installed here.
    """
    folder = PEERS / peer.name
    stamp, wanted = folder / ".installed", " ".join(peer.packages)
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"installing {wanted} ...", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        uv = shutil.which("uv") or str(ROOT / ".uv-venv/bin/uv")
        python = os.path.realpath(sys.executable)
        for command in (
            [uv, "venv", "--quiet", "--python", python, str(folder)],
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(folder / "bin/python"),
                *peer.packages,
            ],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
            except (OSError, subprocess.SubprocessError) as error:
                said = str(getattr(error, "stderr", None) or error).strip().splitlines()
                raise BenchmarkError(f"not installed: {said[-1][:150]}") from None
        stamp.write_text(wanted)
    return folder / "bin"


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    core: int | None = None,
    timeout_s: float = 600.0,
    out: Path | None = None,
) -> Took:
    """Run a process to its end; what it prints is shown only if it fails.

    Args:
        command: Program and arguments.
        cwd: Its folder.
        env: Variables beside this process's own.
        core: The only core that it and its children may use.
        timeout_s: Seconds that it may take.
        out: Where to keep what it prints.

    Raises:
        BenchmarkError: It failed, or took too long.
    """
    words = [str(word) for word in command]
    # Peers may leave no file of compiled Python behind in one run, and read it in the next.
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    with tempfile.TemporaryFile("w+") if out is None else out.open("w+") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=cwd, env=variables, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (one thread)
        )  # fmt: skip
        try:
            _, status, usage = _wait(process.pid, begun + timeout_s)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise BenchmarkError(f"{Path(words[0]).name} took more than {timeout_s:.0f} s") from None
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read().strip().splitlines() or ["nothing said"]
            # What it had started ends with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode < 0:
                said.append(f"ended with {signal.Signals(-process.returncode).name}")
            print("\n".join(said[-15:]), file=sys.stderr)
            raise BenchmarkError(f"{Path(words[0]).name} failed: {said[-1][:150]}")
    return Took(seconds, usage[0] + usage[1], usage[2] / 1e3)


def _wait(pid: int, until: float) -> tuple[int, int, tuple[float, float, float]]:
    """`os.wait4` with a time limit."""
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return found, status, (usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
        if time.perf_counter() > until:
            raise TimeoutError
        time.sleep(0.002)


def cores() -> tuple[int, int]:
    """A core for what is measured and one for what it talks to; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def machine() -> str:
    """This machine, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, Python {platform.python_version()}"


def busy_seconds() -> tuple[float, float, float] | None:
    """The time, and core seconds so far: everybody's since the machine started, and those of this program with what it ran."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = (int(word) / os.sysconf("SC_CLK_TCK") for word in line[1:8])
    return time.monotonic(), user + nice + system + irq + softirq, sum(os.times()[:4])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for this run."""
    with tempfile.TemporaryDirectory(prefix="milepost-benchmark-") as name:
        yield Path(name)


class Table:
    """A table of docs/performance.md, or of another document, written anew by the command that measures it.

    The document holds a pair of marks for each name; what is between them is replaced, and nothing else.
    """

    def __init__(self, name: str, *, document: Path | None = None, orphans: bool = False) -> None:
        """Begin; the load of the machine is what it is before anything is measured.

        Args:
            name: The table's.
            document: What it stands in; docs/performance.md if not given.
            orphans: Part of what runs is nobody's to wait for when it ends, as a server's workers: what they took cannot be
                told from what others took.
        """
        self.name = name
        self.document = document or DOCUMENT
        self.load = os.getloadavg()[0]
        self.begun = None if orphans else busy_seconds()
        self.lines: list[str] = []

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a Markdown table."""
        if self.lines:
            self.lines.append("")
        self.lines += [_row(header), _row(["---", *["---:"] * (len(header) - 1)]), *map(_row, rows)]

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.lines += ["", text] if self.lines else [text]

    def others(self) -> str:
        """How much of the machine's cores others took meanwhile, in words."""
        ended = busy_seconds()
        if self.begun is None or ended is None:
            return ""
        seconds, all_, own = (after - before for before, after in zip(self.begun, ended, strict=True))
        share = max(0.0, all_ - own) / (seconds * (os.cpu_count() or 1))
        return f"; others took {100 * share:.0f} % of its cores meanwhile"

    def write(self) -> None:
        """Print it, and put it into the document with the command, the date, the machine and its load."""
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        load = f"load {self.load:.1f} when it began, {os.getloadavg()[0]:.1f} at the end{self.others()}"
        where = f"`{shlex.join(COMMAND)}`, {date}, commit {_commit()}; {machine()}; {load}."
        text = "\n".join([*self.lines, "", where])
        print(f"\n{text}\n", flush=True)
        begin, end = f"<!-- {self.name}: written by the command below -->", f"<!-- end of {self.name} -->"
        document = self.document.read_text()
        if begin not in document or end not in document:
            raise BenchmarkError(
                f"{self.document} lacks the marks {begin} and {end}: put them where the table is to stand."
            )
        before, rest = document.split(begin, 1)
        _, after = rest.split(end, 1)
        self.document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _commit() -> str:
    """What is checked out, and whether anything but these tables was changed since."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ".", ":!docs/*.md"], check=False).returncode
    return f"{head or 'unknown'}{' with changes' if changed else ''}"
