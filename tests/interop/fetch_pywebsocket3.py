"""Fetches pywebsocket3's example client, which is in its source release on PyPI but is not installed with the package.

Run it once after the packages of the tests are installed; tests/test_websocket_clients.py then runs the client as a
program. It goes into .peers/ beside this file, which git ignores.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

CLIENT = Path(__file__).resolve().parent / ".peers" / "echo_client.py"


def fetch() -> None:
    if CLIENT.exists():
        return
    # The same release as the package, whose inner parts the example uses.
    release = version("pywebsocket3")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-deps", "--no-binary", ":all:", "--dest", folder, f"pywebsocket3=={release}"]
        subprocess.run([*pip, *wanted], check=True)
        with tarfile.open(Path(folder) / f"pywebsocket3-{release}.tar.gz") as archive:
            source = archive.extractfile(f"pywebsocket3-{release}/example/{CLIENT.name}")
            assert source
            program = source.read()
    CLIENT.parent.mkdir(exist_ok=True)
    (CLIENT.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    CLIENT.write_bytes(program)


if __name__ == "__main__":
    fetch()
