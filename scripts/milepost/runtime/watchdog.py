"""Started by `processes.Watchdog`: ends process groups when the pipe on standard input closes.

`--run COMMAND...`, started by `processes.ProcessGroup`, is the same for one program: it runs as this process's child and
ends with the process at the other end of standard input, even where that one's watchdog was killed together with it.

Lines are `+GROUP` and `-GROUP`, and `>FOLDER` and `<FOLDER` for folders that are removed at the end. The groups of processes
that have the given word in their environment are ended as well.
Nothing of the package is imported: this process must start and end in no time.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 3.0
MARK = "MILEPOST_WATCHDOG"  # as processes.MARK
START_S = 0.1  # after which a program that was just being started has the environment that it is known by


def main() -> None:
    """Read commands until standard input closes, then end the groups and remove the folders that are still registered."""
    # A Ctrl-C is for the supervisor; this process acts on its death only.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    groups: set[str] = set()
    folders: set[str] = set()
    for line in sys.stdin:
        known = groups if line[0] in "+-" else folders
        (known.add if line[0] in "+>" else known.discard)(line[1:].rstrip("\n"))
    end({int(group) for group in groups})
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def run(command: list[str]) -> None:
    """Run a program in this process's group, and end as it does; end both when standard input closes."""
    # What ends the group is for the program, which must not inherit that it is ignored: a handler is not inherited.
    early: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: early.append(number))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for told in early:  # before there was a program to get it
        program.send_signal(told)
    threading.Thread(target=end_own_group, daemon=True).start()
    code = program.wait()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)  # at once: the thread is waiting


def end_own_group() -> None:
    """Wait until standard input closes, and have this process's group ended by one that is outside of it."""
    while os.read(0, 1):
        pass
    mark = f"{MARK}={os.environ.get(MARK, '')}"
    # Without this environment, by whose mark it would end itself.
    outside = subprocess.Popen(
        [sys.executable, "-I", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={},
    )
    outside.communicate(f"+{os.getpgid(0)}\n".encode())


def end(groups: set[int]) -> None:
    """End the given process groups, and every process that carries the mark."""
    time.sleep(START_S)
    sessions = set(groups)
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 0.0)):
        groups |= marked(sys.argv[1].encode())
        for group in list(groups):
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                groups.discard(group)
        sessions |= groups
        if groups:
            time.sleep(wait_s)
    # The program that mounts a container image is a group of its own, in the session of the program that is inside.
    for pid in members(sessions):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def members(sessions: set[int]) -> list[int]:
    """Ids of the processes in the given sessions."""
    pids = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) in sessions:
                    pids.append(int(entry.name))
            except ProcessLookupError:
                continue
    return pids


def marked(word: bytes) -> set[int]:
    """The groups of all processes that have this word in their environment."""
    groups = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"{entry.path}/environ", "rb") as environ:
                    if word in environ.read().split(b"\0"):
                        groups.add(os.getpgid(int(entry.name)))
            except OSError:
                continue
    return groups


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run(sys.argv[2:])
    else:
        main()
