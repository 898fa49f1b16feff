"""Started by `processes.Watchdog`: ends process groups when the pipe on standard input closes.

Lines are `+GROUP` and `-GROUP`. Nothing of the package is imported: this process must start and end in no time.
"""

import os
import signal
import sys
import time

GRACE_S = 3.0


def main() -> None:
    """Read until the end, then end what is still registered."""
    # A Ctrl-C is for the supervisor; this process acts on its death only.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 0.0)):
        for group in list(groups):
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                groups.discard(group)
        if groups:
            time.sleep(wait_s)


if __name__ == "__main__":
    main()
