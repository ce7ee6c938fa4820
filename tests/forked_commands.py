"""A `polyinr` for shell scripts that has imported everything already: a server forks a process for each command."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Reads a folder, variables and arguments from each connection, with the streams of the command; answers with its exit
# code.
SERVER = """
import json, os, signal, socket, sys
import timm
import polyinr_core.evaluation.evaluate, polyinr_core.inversion.invert, polyinr_core.training.loop
from polyinr_cli.main import outcome
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
while True:
    asking, _ = listening.accept()
    said, streams, _, _ = socket.recv_fds(asking, 2**20, 3)
    if not os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        folder, variables, arguments = json.loads(said)
        os.chdir(folder)
        os.environ.update(variables)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        code = outcome(arguments)
        sys.stdout.flush()
        asking.sendall(bytes([code]))
        os._exit(0)
    for stream in streams:
        os.close(stream)
    asking.close()
"""
CLIENT = """#!{python} -SE
import json, os, socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.connect({address!r})
variables = {{name: value for name, value in os.environ.items() if name.startswith("POLYINR_")}}
said = json.dumps([os.getcwd(), variables, sys.argv[1:]]).encode()
socket.send_fds(asking, [said], [0, 1, 2])
code = asking.recv(1)
sys.exit(code[0] if code else "the command has died")
"""


@contextmanager
def forked_commands(folder: Path, *, environment: dict[str, str]) -> Iterator[Path]:
    """Yield a folder for PATH, made in `folder`, with a `polyinr`; its processes have this environment."""
    program, address = folder / "bin" / "polyinr", str(folder / "socket")
    program.parent.mkdir()
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    command = [sys.executable, "-c", SERVER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            yield program.parent
        finally:
            server.kill()
