"""The scripts in processes of their own: run to their end, joined as torchrun joins them, or sent a signal.

Each is forked from a process that has imported everything, and has done nothing else: a script starts at once, where a
new interpreter takes four seconds. Programs that start scripts themselves, torchrun and the recipes, get `LAUNCHER` in
the place of Python: it asks this process for a fork.
"""

import atexit
import io
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from threading import Thread, Timer

from tests.support.samples import ROOT
from tests.support.training import STAGE, arguments

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.support.preloaded"])
LAUNCHER = (sys.executable, "-S", "-E", str(ROOT / "tests" / "support" / "launcher.py"))


class Script:
    """A script that runs in a process of its own, as `subprocess.Popen` gives it.

    Args:
        command: the script and its arguments; "-c", code and arguments; or "-m" with a module's.
        environment: variables that are other than here.
        stderr: whether it is a pipe of its own, or goes where stdout does.
    """

    def __init__(self, *command: str, environment: dict[str, str] | None = None, stderr: bool = True) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pipes = [f"{folder}/out", f"{folder}/err" if stderr else f"{folder}/out"]
            for pipe in dict.fromkeys(pipes):
                os.mkfifo(pipe)
            variables = {**os.environ, **(environment or {})}
            self._process = _SERVER.Process(target=_run, args=(command, pipes, variables, ROOT))
            self._process.start()
            opened = [open(pipe, encoding="utf-8", errors="surrogateescape") for pipe in dict.fromkeys(pipes)]  # noqa: SIM115, PTH123
        self.stdout, self.stderr = (*opened, None)[:2]
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status; minus the signal's number where one ended it."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for its end, and return its status."""
        self._process.join()
        return self.returncode

    def poll(self) -> int | None:
        """Return its status, None before its end."""
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Read what it writes to its end, and wait for that."""
        pipes = [pipe for pipe in (self.stdout, self.stderr) if pipe]
        late = Timer(timeout, self._process.kill)
        late.start()
        with ThreadPoolExecutor(2) as pool:
            texts = list(pool.map(lambda pipe: pipe.read(), pipes))
        self._process.join()
        late.cancel()
        for pipe in pipes:
            pipe.close()
        return (*texts, "")[:2]


def _run(command: Sequence[str], pipes: list[str], environment: dict[str, str], folder: Path | str) -> None:
    """Become the script."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # Python's own, as in a new interpreter
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    out = os.open(pipes[0], os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out if pipes[1] == pipes[0] else os.open(pipes[1], os.O_WRONLY), 2)
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), line_buffering=True)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), errors="backslashreplace", line_buffering=True)  # noqa: SIM115
    os.environ.update(environment)
    sys.argv = [command[0], *command[2:]] if command[0] in ("-c", "-m") else list(command)
    try:
        if command[0] == "-c":
            exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
        elif command[0] == "-m":
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # such as what ends the workers that read images; a forked process would not call them


@cache
def launches() -> dict[str, str]:
    """Return the variable that tells `LAUNCHER` where this process listens, from the first call on."""
    listener = Listener(tempfile.mktemp(prefix="launches-"), "AF_UNIX")  # deletes it at the end

    def listen() -> None:
        while True:
            Thread(target=_launch, args=(listener.accept(),), daemon=True).start()

    Thread(target=listen, daemon=True).start()
    return {"LAUNCHES": str(listener.address)}


def _launch(launcher: Connection) -> None:
    """Run a script for a launcher: pass on the signals that it gets, tell it the end, and end the script with it."""
    process = _SERVER.Process(target=_run, args=launcher.recv())
    process.start()
    try:
        while process.sentinel not in wait([launcher, process.sentinel]):
            os.kill(process.pid, launcher.recv())
        launcher.send(process.exitcode)
    except (EOFError, ConnectionError):  # it was killed
        process.kill()


def run_script(*command: str) -> subprocess.CompletedProcess:
    """Run a script to its end."""
    script = Script(*command)
    out, err = script.communicate()
    return subprocess.CompletedProcess(command, script.returncode, out, err)


def run_ranks(*command: str, processes: int = 2) -> tuple[list[int], str, str]:
    """Run a script in processes that share their work, with the variables that torchrun sets, to the end of each.

    Returns:
        their statuses, and what all of them wrote to stdout and to stderr.
    """
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = str(processes)
    common = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    scripts = [Script(*command, environment={**common, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        texts = list(pool.map(Script.communicate, scripts))
    out, err = ("".join(each) for each in zip(*texts, strict=True))
    return [script.returncode for script in scripts], out, err


def torchrun(*command: str, processes: int = 2) -> Script:
    options = ["--standalone", "--nproc_per_node", str(processes), "--no-python"]
    environment = {"OMP_NUM_THREADS": "1", **launches()}
    return Script("-m", "torch.distributed.run", *options, *LAUNCHER, *command, environment=environment)


def finished(process: Script) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def interrupt(tmp_path: Path, moment: str, workers: str, number: int = signal.SIGINT, more: tuple[str, ...] = ()):
    """Start training, send a signal once a line holds `moment`; return the exit status and the rest of the output."""
    options = arguments(tmp_path, *STAGE, "--overwrite", "--num_workers", workers, *more)
    script = Script("DR_training.py", *options, stderr=False)
    for line in script.stdout:
        if moment in line:
            break
    os.killpg(script.pid, number)  # as a terminal does: to the workers, too
    rest, _ = script.communicate(60)
    return script.returncode, rest
