"""A `cellvim` command that starts at once: a server that has imported everything is forked for every call.

Pages call the command line dozens of times, and importing torch takes longer than what they ask for. The fork runs
the same `main` in the same folder, with the same environment, arguments, streams and signals as a process of its own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLIENT = """#!{python} -ISE
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
call = json.dumps({{"argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
server.sendall(call)
child = int.from_bytes(server.recv(8), "big")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os.kill(child, number))
code = server.recv(1)
sys.exit(code[0] if code else 137)
"""


@contextmanager
def warm_cellvim() -> Iterator[Path]:
    """Give a folder with a `cellvim` in it, for the front of PATH."""
    with tempfile.TemporaryDirectory(prefix="cellvim-") as name:
        folder = Path(name)
        address = folder / "socket"
        command = folder / "bin/cellvim"
        command.parent.mkdir()
        command.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        command.chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, str(address)], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield command.parent
        finally:
            server.kill()
            server.communicate()


def serve(address: str) -> None:
    """Fork for every connection, until killed."""
    _import_everything()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children, the clients do
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    listener.close()
                    _answer(client)


def _import_everything() -> None:
    from importlib import import_module

    for name in (
        "torch",
        "cellvim.cli",
        "cellvim.ingest",
        "cellvim.pretrain",
        "cellvim.embed",
        "cellvim.evaluate",
    ):
        import_module(name)
    for name in ("cellvim.demo.run", "cellvim.model.importing", "matplotlib.pyplot", "umap", "vl_convert"):
        with suppress(ImportError):
            import_module(name)


def _answer(client: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(client, 8, 3)
    remaining = int.from_bytes(head, "big")
    content = bytearray()
    while len(content) < remaining:
        content += client.recv(remaining - len(content))
    call = json.loads(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = call["argv"]
    client.sendall(os.getpid().to_bytes(8, "big"))
    code = _run_main()
    with suppress(BrokenPipeError):
        client.sendall(bytes([code]))
    os._exit(code)


def _run_main() -> int:
    from cellvim.cli import main

    code: object = 0
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
