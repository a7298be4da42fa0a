"""A `cellvim` command that starts at once: a server that has imported everything is forked for every call.

Pages call the command line dozens of times, and importing torch takes longer than what they ask for. The fork runs
the same `main` in the same folder, with the same environment, arguments, streams and signals as a process of its own.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

FORKABLE = {"NUMBA_THREADING_LAYER": "workqueue"}
"""For the server and whoever calls it: GNU's OpenMP, which UMAP's compiler takes otherwise, ends forked processes."""

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
        server = subprocess.Popen(
            [sys.executable, __file__, str(address)], stdout=subprocess.PIPE, env={**os.environ, **FORKABLE}
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield command.parent
        finally:
            server.kill()
            server.communicate()


def serve(address: str) -> None:
    """Fork for every connection, until killed."""
    for name in (
        "torch",
        "cellvim.cli",
        "cellvim.ingest",
        "cellvim.pretrain",
        "cellvim.embed",
        "cellvim.evaluate",
    ):
        import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            with client:
                call, streams = _receive(client)
                if set(call["argv"]) & {"evaluate", "demo"}:
                    _compile_what_reports_need()
                if os.fork() == 0:
                    listener.close()
                    _answer(client, call, streams)
                for stream in streams:
                    os.close(stream)
            _bury_the_dead()


def _receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _, _ = socket.recv_fds(client, 8, 3)
    remaining = int.from_bytes(head, "big")
    content = bytearray()
    while len(content) < remaining:
        content += client.recv(remaining - len(content))
    return json.loads(content), list(streams)


@cache
def _compile_what_reports_need() -> None:
    """UMAP compiles itself for eight seconds, the chart library is bundled for one: once, for all reports."""
    import numpy as np
    import vl_convert

    from cellvim.evaluate.embedding_map import principal_components, umap_coordinates

    features = np.random.default_rng(0).normal(size=(40, 8))
    umap_coordinates(features, principal_components(features), seed=0)
    vl_convert.javascript_bundle = cache(vl_convert.javascript_bundle)
    vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _answer(client: socket.socket, call: dict[str, Any], streams: list[int]) -> NoReturn:
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


def _bury_the_dead() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


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
