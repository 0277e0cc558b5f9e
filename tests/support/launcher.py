"""Takes the place of Python where a program starts a script: the script is forked by the process that listens.

It needs nothing but the standard library, and starts in a tenth of a second. See `processes.py`.
"""

import os
import signal
import sys
from multiprocessing.connection import Client
from pathlib import Path


def main() -> None:
    with Client(os.environ["LAUNCHES"], "AF_UNIX") as server:
        streams = [f"/proc/{os.getpid()}/fd/{number}" for number in (1, 2)]
        server.send((sys.argv[1:], streams, dict(os.environ), Path.cwd()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: server.send(number))
        status = server.recv()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
