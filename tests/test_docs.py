"""The documentation, held against the code: defaults, close codes, links, and programs that are said to run."""

from __future__ import annotations

import inspect
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import websocket

from polysock import Limits
from polysock.limits import ClusterLimits
from polysock.settings import Settings, read_settings
from polysock_transports import CloseReason, errors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
START_S = 20
ANSWER_S = 10
# Between picking a free port and listening on it, another program may take it.
PORT_TRIES = 3

FENCE = re.compile(r"^```(\w*)[ \t]*(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def blocks(page: Path, language: str, kind: str | None = None) -> list[str]:
    """The fenced blocks in *language*; with *kind*, those marked so (```` ```python program ````)."""
    return [code for lang, mark, code in FENCE.findall(text_of(page)) if lang == language and kind in (None, mark)]


def rows(page: Path) -> list[list[str]]:
    """The cells of all table rows."""
    lines = prose_of(page).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- settings


def documented_defaults() -> dict[str, str]:
    return {row[0].strip("`"): row[1].strip("`") for row in rows(DOCS / "settings.md") if row[0].startswith("`")}


def test_every_setting_and_limit_is_documented_with_its_default() -> None:
    expected: dict[str, Any] = {f.name: f.default for f in (*fields(Settings), *fields(Limits), *fields(ClusterLimits))}
    documented = documented_defaults()
    assert documented.keys() == expected.keys()
    found = {name: eval(text, {"Limits": Limits}) for name, text in documented.items()}
    assert found == expected
    # 25 and 25.0 are equal, and so are 0 and False: the kind counts too.
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}


def test_every_setting_of_sockjs_tornado_is_in_the_migration_guide() -> None:
    from sockjs.tornado.router import DEFAULT_SETTINGS

    table = {row[0].strip("`"): row for row in rows(DOCS / "migrating-from-sockjs-tornado.md") if len(row) == 4}
    assert DEFAULT_SETTINGS.keys() <= table.keys()
    for name, theirs in DEFAULT_SETTINGS.items():
        if not (isinstance(theirs, str) and "://" in theirs):
            assert eval(table[name][1].strip("`")) == theirs, name
        if "warns" in table[name][2]:
            with pytest.warns(UserWarning, match=name):
                read_settings({name: theirs})
        else:
            read_settings({name: theirs})


# -- architecture


def test_close_code_table_is_that_of_the_code() -> None:
    codes = {
        (str(value.code), value.text, f"`{name}`", "yes" if value.may_return else "no")
        for name, value in vars(errors).items()
        if isinstance(value, CloseReason)
    }
    documented = [tuple(row) for row in rows(DOCS / "architecture.md") if re.fullmatch(r"\d{4}", row[0])]
    assert set(documented) == codes
    assert len(documented) == len(codes)
    assert [row[0] for row in documented] == sorted(row[0] for row in documented)


def test_files_named_in_the_layout_exist() -> None:
    layout = text_of(DOCS / "architecture.md").partition("## Layout")[2].partition("\n## ")[0]
    names = re.findall(r"`([a-z0-9_]+\.py)`", layout)
    roots = ("transports/polysock_transports", "server/polysock")
    folders = (*roots, f"{roots[0]}/dialects", f"{roots[1]}/packets", ".")
    assert names
    assert [name for name in names if not any((ROOT / folder / name).is_file() for folder in folders)] == []
    # A new file wants its row here.
    for root in roots:
        assert {path.name for path in (ROOT / root).glob("*.py")} <= {*names, "__init__.py"}


def test_hub_server_of_the_readme_is_the_example_that_is_tested() -> None:
    (code,) = blocks(README, "python", "hub")
    assert code == text_of(DOCS / "examples" / "hub_server.py")


def test_paths_named_in_the_readme_exist() -> None:
    paths = [row[0].strip("`") for row in rows(README) if re.fullmatch(r"`[\w./]+(/|\.py)`", row[0])]
    assert len(paths) >= 7
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_transport_of_the_architecture_page() -> None:
    (code,) = blocks(DOCS / "architecture.md", "python", "transport")
    # Executed as a file of that package would be, without being one.
    module: dict[str, Any] = {"__name__": "polysock_transports.ndjson", "__package__": "polysock_transports"}
    exec(compile(code, "ndjson.py", "exec"), module)
    assert module["ndjson_shape"]('a["\\u00e9"]') == b'"a[\\"\\\\u00e9\\"]"\n'
    assert not inspect.isabstract(module["NdJson"])


# -- every page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_settings_of_the_readme_are_accepted() -> None:
    router = next(code for code in blocks(README, "python") if "router = SockJSRouter" in code)
    settings = eval(re.search(r"\{.*\}", router, re.DOTALL)[0])  # type: ignore[index]
    # The file is the reader's own.
    assert read_settings(settings).limits.max_message_bytes == settings["max_message_bytes"]


# -- the echo server of the README


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def pasted_echo_server(folder: Path) -> Iterator[str]:
    """The README's program, saved and run as a reader would; yields the address that it prints."""
    (code,) = blocks(README, "python", "program")
    program = folder / "echo.py"
    program.write_text(code, encoding="utf-8")
    said = ""
    for _ in range(PORT_TRIES):
        env = {**os.environ, "PORT": str(free_port())}
        with subprocess.Popen([sys.executable, program], env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert select.select([process.stdout], [], [], START_S)[0], "the program printed nothing"
                said = process.stdout.readline().strip()
                if said:
                    yield said
                    return
            finally:
                process.kill()
    pytest.fail(f"the program did not start: {said!r}")


def test_echo_server_of_the_readme(tmp_path: Path) -> None:
    with pasted_echo_server(tmp_path) as address:
        raw = websocket.create_connection(f"{address.replace('http', 'ws', 1)}/websocket", timeout=ANSWER_S)
        raw.send("hello")
        assert raw.recv() == "hello"
        raw.send_binary(b"\x00\xff")
        assert raw.recv() == b"\x00\xff"
        raw.close()


def test_curl_commands_of_the_readme(tmp_path: Path) -> None:
    """The two requests of the README's curl lines, made by hand over sockets."""
    lines = [code for code in blocks(README, "sh") if code.startswith("curl")]
    assert len(lines) == 2
    paths = [re.search(r"http://127\.0\.0\.1:8888(/\S+)", line)[1] for line in lines]  # type: ignore[index]
    with pasted_echo_server(tmp_path) as address:
        host, port = re.fullmatch(r"http://([\d.]+):(\d+)/echo", address).groups()  # type: ignore[union-attr]
        with socket.create_connection((host, int(port)), ANSWER_S) as receiving:
            receiving.sendall(f"GET {paths[0]} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            stream = receiving.makefile("rb")
            read_until(stream, b"data: o\r\n")
            with socket.create_connection((host, int(port)), ANSWER_S) as sending:
                body = b'["hello"]'
                head = f"POST {paths[1]} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
                sending.sendall(head.encode() + body)
                assert sending.makefile("rb").readline().startswith(b"HTTP/1.1 204")
            read_until(stream, b'data: a["hello"]\r\n')


def read_until(stream: Any, line: bytes) -> None:
    """Read lines up to *line*; the socket's timeout ends the wait."""
    while (read := stream.readline()) != line:
        assert read, f"the stream ended before {line!r}"
