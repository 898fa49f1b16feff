import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from milepost.runtime.processes import ProcessGroup, Watchdog, end_with_snakemake, free_port, last_lines
from milepost.store.lease import started

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
# A leader that ignores TERM, with a child and a grandchild that do, too; they say their process ids.
STUBBORN = """
trap '' TERM
sh -c 'trap "" TERM; (trap "" TERM; echo $(exec sh -c "echo \\$PPID") >>"$PIDS"; while :; do sleep 0.1; done) & echo $$ >>"$PIDS"; while :; do sleep 0.1; done' &
echo $$ >>"$PIDS"
while :; do sleep 0.1; done
"""
OBEDIENT = """
(echo $(exec sh -c 'echo $PPID') >>"$PIDS"; while :; do sleep 0.1; done) &
echo $$ >>"$PIDS"
while :; do sleep 0.1; done
"""
# The leader goes, its child stays.
ORPHANING = """
(echo $(exec sh -c 'echo $PPID') >>"$PIDS"; while :; do sleep 0.1; done) &
while [ ! -s "$PIDS" ]; do sleep 0.02; done
exit 3
"""

# A child in a process group of its own without any mark, as the program is that mounts a container image.
MOUNTING = """
bash -c 'set -m; env -i sleep 99 & echo $! >>"$PIDS"'
echo $$ >>"$PIDS"
exec sleep 99
"""


def pids_in(path, count, timeout_s=10.0):
    """The process ids that a tree has written down, once it is complete."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = path.read_text().split() if path.exists() else []
        if len(found) >= count:
            return [int(pid) for pid in found]
        time.sleep(0.02)
    raise AssertionError(f"{path} names fewer than {count} processes")


def alive(pids):
    return [pid for pid in pids if started(pid) is not None]


def gone_within(pids, seconds):
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pids)


@pytest.mark.parametrize(
    ("script", "count", "quick"), [(STUBBORN, 3, False), (OBEDIENT, 2, True), (ORPHANING, 1, True)]
)
def test_stop_leaves_nothing_of_a_tree(tmp_path, script, count, quick):
    pids = tmp_path / "pids"

    async def play():
        watchdog = Watchdog()
        env = {**os.environ, "PIDS": str(pids)}
        group = await ProcessGroup.start(["sh", "-c", script], env=env, log=tmp_path / "log", watchdog=watchdog)
        tree = await asyncio.to_thread(pids_in, pids, count)
        if script is ORPHANING:
            assert await group.process.wait() == 3
        assert alive(tree) == tree
        assert {os.getpgid(pid) for pid in tree} == {group.process.pid}, "a group of its own"
        begun = time.monotonic()
        await group.stop(grace_s=0.6)
        took = time.monotonic() - begun
        # What KILL has hit needs a moment to be gone.
        assert gone_within(tree, 1)
        assert took < 0.6 if quick else 0.6 <= took < 4
        await group.stop(grace_s=0.6)
        watchdog.close()

    asyncio.run(play())


def test_stop_ends_other_groups_of_the_session(tmp_path):
    pids = tmp_path / "pids"

    async def play():
        watchdog = Watchdog()
        env = {**os.environ, "PIDS": str(pids)}
        group = await ProcessGroup.start(["sh", "-c", MOUNTING], env=env, log=tmp_path / "log", watchdog=watchdog)
        tree = await asyncio.to_thread(pids_in, pids, 2)
        assert len({os.getpgid(pid) for pid in tree}) == 2
        await group.stop()
        assert gone_within(tree, 1)
        watchdog.close()

    asyncio.run(play())


def test_a_neighbour_whose_name_is_cut_within_a_letter_harms_nothing(tmp_path):
    # The kernel keeps 15 bytes of a name; these end within the letter that has two.
    program = tmp_path / "utvärdering_kör.sh"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    neighbour = subprocess.Popen([program], stdin=subprocess.PIPE)
    try:
        while b"utv" not in Path(f"/proc/{neighbour.pid}/stat").read_bytes():
            time.sleep(0.01)
        assert started(neighbour.pid).isdigit()

        async def run():
            watchdog = Watchdog()
            group = await ProcessGroup.start(["sleep", "60"], env=ENV, log=tmp_path / "log", watchdog=watchdog)
            await group.stop()
            watchdog.close()
            return group.process.returncode

        assert asyncio.run(run()) == -signal.SIGTERM
    finally:
        neighbour.kill()
        neighbour.wait()


def test_output_goes_to_the_end_of_the_log(tmp_path):
    log = tmp_path / "folder" / "log"

    async def play():
        watchdog = Watchdog()
        for word in ("one", "two"):
            group = await ProcessGroup.start(
                ["sh", "-c", f"echo {word}; echo {word} >&2; cat"], env=os.environ, log=log, watchdog=watchdog
            )
            assert await group.process.wait() == 0, "standard input is empty"
            await group.stop()
        assert group.last_lines(3) == "one\ntwo\ntwo"
        watchdog.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", ""),
        (b"a\n\n  \nb\n", "a\nb"),
        (b"x\n" * 100, "\n".join("x" * 15)),
        (b"\xff\n", "\ufffd"),
        (b"y" * 50_000, "y" * 16384),
    ],
)
def test_last_lines_of_a_file(tmp_path, content, lines):
    (tmp_path / "log").write_bytes(content)
    assert last_lines(tmp_path / "log") == lines


def test_last_lines_of_no_file(tmp_path):
    assert last_lines(tmp_path / "log") == ""


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from milepost.runtime.processes import ProcessGroup, Watchdog

async def main():
    watchdog = Watchdog()
    forgotten = await ProcessGroup.start(["true"], env=os.environ, log=Path("log"), watchdog=watchdog)
    await forgotten.stop()
    for _ in range(2):
        await ProcessGroup.start(["sh", "-c", sys.argv[1]], env=os.environ, log=Path("log"), watchdog=watchdog)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("end", "script", "count", "seconds"),
    [
        (signal.SIGKILL, OBEDIENT, 4, 2.5),
        (signal.SIGTERM, OBEDIENT, 4, 2.5),
        (signal.SIGKILL, STUBBORN, 6, 8.0),
        (signal.SIGKILL, MOUNTING, 4, 5.0),
    ],
)
def test_the_watchdog_ends_all_groups_when_the_supervisor_is_dead(tmp_path, end, script, count, seconds):
    pids = tmp_path / "pids"
    env = {**ENV, "PIDS": str(pids)}
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, script], env=env, cwd=tmp_path)
    tree = pids_in(pids, count)
    supervisor.send_signal(end)
    supervisor.wait()
    assert gone_within(tree, seconds)


def watchdogs_of(supervisor):
    """Process ids of a supervisor's watchdogs: not of those that run its programs."""
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, command in commands.items() if b"watchdog.py" in command and b"--run" not in command]


@pytest.mark.parametrize(("script", "count"), [(OBEDIENT, 4), (STUBBORN, 6), (MOUNTING, 4)])
def test_programs_end_where_supervisor_and_watchdog_are_killed_together(tmp_path, script, count):
    pids = tmp_path / "pids"
    env = {**ENV, "PIDS": str(pids)}
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, script], env=env, cwd=tmp_path)
    tree = pids_in(pids, count)
    (watchdog,) = watchdogs_of(supervisor)
    for pid in (watchdog, supervisor.pid):
        os.kill(pid, signal.SIGKILL)
    supervisor.wait()
    assert gone_within(tree, 20)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 7", 7), ("kill -USR1 $$", -signal.SIGUSR1), ("kill -9 $$", -signal.SIGKILL), ("true", 0)],
)
def test_a_program_ends_as_it_would_by_itself(tmp_path, script, code):
    async def play():
        watchdog = Watchdog()
        group = await ProcessGroup.start(["sh", "-c", script], env=os.environ, log=tmp_path / "log", watchdog=watchdog)
        assert await group.process.wait() == code
        await group.stop()
        watchdog.close()
        return (tmp_path / "log").read_text()

    assert asyncio.run(play()) == ""


def test_no_program_is_an_error_at_once(tmp_path):
    async def play():
        watchdog = Watchdog()
        try:
            await ProcessGroup.start(["/no/such/program"], env=os.environ, log=tmp_path / "log", watchdog=watchdog)
        finally:
            watchdog.close()

    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        asyncio.run(play())


@pytest.mark.parametrize("how", ["never told of", "left its group"])
def test_the_watchdog_finds_groups_that_were_not_registered(tmp_path, how):
    pids = tmp_path / "pids"
    code = SUPERVISOR
    script = OBEDIENT
    if how == "never told of":
        # As if the supervisor had died between the start of the program and the word about it.
        code = code.replace(
            "import ProcessGroup, Watchdog", "import ProcessGroup, Watchdog\nWatchdog.watch = lambda *_: None"
        )
    else:
        script = 'setsid sh -c "$INNER" & wait'
    env = {**ENV, "PIDS": str(pids), "INNER": OBEDIENT}
    supervisor = subprocess.Popen([sys.executable, "-c", code, script], env=env, cwd=tmp_path)
    tree = pids_in(pids, 4)
    supervisor.kill()
    supervisor.wait()
    assert gone_within(tree, 2.5)


def test_a_ctrl_c_for_everything_does_not_end_the_watchdog(tmp_path):
    pids = tmp_path / "pids"
    env = {**ENV, "PIDS": str(pids)}
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, OBEDIENT], env=env, cwd=tmp_path)
    tree = pids_in(pids, 4)
    (watchdog,) = watchdogs_of(supervisor)
    watchdog = [watchdog]
    assert os.getsid(watchdog[0]) == watchdog[0], "no terminal reaches it"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(watchdog[0], number)
    time.sleep(0.1)
    assert alive(watchdog)
    supervisor.kill()
    supervisor.wait()
    assert gone_within(tree, 2.5)


def test_a_watchdog_that_was_killed_does_not_stop_the_work(tmp_path):
    async def play():
        watchdog = Watchdog()
        watchdog._process.kill()
        watchdog._process.wait()
        group = await ProcessGroup.start(["sleep", "60"], env=os.environ, log=tmp_path / "log", watchdog=watchdog)
        await group.stop()
        assert group.process.returncode == -signal.SIGTERM
        watchdog.close()

    asyncio.run(play())


STEP = """
import sys, time
from milepost.runtime.processes import end_with_snakemake
from milepost.errors import run_step

def main():
    end_with_snakemake(kill_after_s=0.3)
    print("ready", flush=True)
    time.sleep(60)

if len(sys.argv) > 1:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
run_step(main)
"""


def start_step(named, *arguments):
    env = {**ENV, "MILEPOST_SNAKEMAKE": named}
    return subprocess.Popen([sys.executable, "-c", STEP, *arguments], env=env, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize(("arguments", "end"), [([], -signal.SIGTERM), (["ignore"], -signal.SIGKILL)])
def test_a_step_ends_when_its_snakemake_is_killed(arguments, end):
    snakemake = subprocess.Popen(["sleep", "60"])
    step = start_step(f"{socket.gethostname()}:{snakemake.pid}", *arguments)
    assert step.stdout.readline() == "ready\n"
    snakemake.kill()
    snakemake.wait()
    assert step.wait(timeout=5) == end
    step.communicate()


def test_a_step_whose_snakemake_is_gone_does_not_begin():
    gone = subprocess.Popen(["true"])
    gone.wait()
    step = start_step(f"{socket.gethostname()}:{gone.pid}")
    _, said = step.communicate(timeout=10)
    assert step.returncode == 1
    assert said == "ServerError: Snakemake, which started this step, is gone.\n"


@pytest.mark.parametrize("named", ["", "elsewhere:1", f"{socket.gethostname()}:", "garbage"])
def test_a_step_started_by_hand_or_from_another_host_runs_on(monkeypatch, named):
    monkeypatch.setenv("MILEPOST_SNAKEMAKE", named)
    end_with_snakemake()


def test_a_free_port_is_one():
    ports = {free_port() for _ in range(5)}
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_the_watchdog_starts_without_the_package():
    code = textwrap.dedent(
        Path(sys.modules["milepost.runtime.processes"].__file__).with_name("watchdog.py").read_text()
    )
    assert "milepost" not in [line.split()[1] for line in code.splitlines() if line.startswith(("import", "from"))]
