"""Places to write to: a disk, this process's memory, and a server that speaks S3."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / ".venv-judges" / "bin" / "moto_server"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A local server that speaks S3, with a bucket `screens`."""
    if not SERVER.is_file():
        pytest.skip("needs moto's server from .venv-judges, which `make judges` makes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield make_bucket(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def make_bucket(endpoint: str) -> str:
    for _ in range(200):
        try:
            request = urllib.request.Request(f"{endpoint}/screens", method="PUT")  # noqa: S310 - our own
            urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - our own
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return endpoint
    pytest.fail("the server did not answer")


@pytest.fixture(params=["disk", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder somewhere."""
    if request.param == "disk":
        return str(tmp_path / "place")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    endpoint = request.getfixturevalue("s3_endpoint")
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    for name, value in zip(names, (endpoint, "any", "any", "us-east-1"), strict=True):
        monkeypatch.setitem(os.environ, name, value)
    return f"s3://screens/{uuid.uuid4().hex}"
