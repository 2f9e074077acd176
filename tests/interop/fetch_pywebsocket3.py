"""Fetches pywebsocket3 with its example client, which its source release on PyPI holds but no installed package.

`make test` runs this once; tests/test_websocket_clients.py then runs the client as a program of its own. All of it goes
into .peers/ beside this file, which git ignores.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PEERS = Path(__file__).resolve().parent / ".peers"
RELEASE = "pywebsocket3-4.0.2"
#: The one library that pywebsocket3 imports.
LIBRARY = "six==1.17.0"


def fetch() -> None:
    PEERS.mkdir(exist_ok=True)
    (PEERS / ".gitignore").write_text("*\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        wanted = ["--no-deps", "--no-binary", ":all:", "--dest", folder, RELEASE.replace("-", "==")]
        subprocess.run([*pip, "download", *wanted], check=True)
        with tarfile.open(Path(folder) / f"{RELEASE}.tar.gz") as archive:
            # The filter keeps members from leaving the folder; the earliest 3.10 and 3.11 do not have it.
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(PEERS, **safely)
    subprocess.run([*pip, "install", "--upgrade", "--target", str(PEERS / "libraries"), LIBRARY], check=True)


if __name__ == "__main__":
    fetch()
