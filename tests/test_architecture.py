"""Who may import whom.  The borders stand here, so that crossing one is a decision and not an accident."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "polysock": ROOT / "server" / "polysock",
    "polysock_transports": ROOT / "transports" / "polysock_transports",
}
#: Which of our packages a source root may import.
ALLOWED = {
    "run": {"polysock", "polysock_transports"},
    "polysock": {"polysock", "polysock_transports"},
    "polysock_transports": {"polysock_transports"},
}
#: The only modules that know Tornado.
TORNADO = {
    "run",
    "polysock.client_files",  # answers requests for the browser client
    "polysock.connection",
    "polysock.publishing",  # answers requests to emit
    "polysock.router",
    "polysock.server",
    "polysock.settings",
    "polysock_transports.entrance",
    "polysock_transports.gateway",
    "polysock_transports.httplane",
    "polysock_transports.lanehead",
    "polysock_transports.opening",  # headers, arguments and cookies as Tornado has them
    "polysock_transports.pipes",
    "polysock_transports.relayport",  # the listening side
    "polysock_transports.takeover",  # all that leans on Tornado's insides
}
#: The only module that knows sockjs-tornado.
SOCKJS_TORNADO = {"polysock.sockjs_contract"}
#: Packages that not everybody has installed, and the only module that knows each.
OPTIONAL = {"polysock.backplane_redis": {"redis"}, "run": {"uvloop"}}
#: What the wire languages may know beside the standard library.
DIALECT_IMPORTS = {"ujson", *(f"polysock_transports.{name}" for name in ("dialects", "wire", "errors", "limits"))}
#: Modules that do no I/O, however they are called.
PURE = ("dialects", "wire", "errors", "limits", "origins", "addresses", "http1", "javascript", "rfc6455", "hixie76")
PURE += ("prepared", "placement", "relaywire")
#: The same in the upper package.
PURE_ABOVE = {"polysock.channels", "polysock.envelope", "polysock.limits"}
IO_MODULES = {"asyncio", "socket", "ssl", "select", "selectors", "http.server", "urllib.request", "subprocess"}
#: Names that say nothing of what is inside.
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "stuff"}


def module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return path.stem


SOURCES = {module_name(path): path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))}
SOURCES["run"] = ROOT / "run.py"


def imports(name: str) -> Iterator[str]:
    """Absolute names of all modules that the module *name* imports, anywhere in it."""
    path = SOURCES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            yield module
            # "from . import x" and "from ..dialects import x" may name modules too.
            yield from (f"{module}.{alias.name}" for alias in node.names if f"{module}.{alias.name}" in SOURCES)


def top(module: str) -> str:
    return module.partition(".")[0]


every_module = pytest.mark.parametrize("name", sorted(SOURCES))


def test_there_is_something_to_look_at() -> None:
    assert {"run", "polysock.router", "polysock_transports.session", "polysock_transports.dialects.sockjs"} <= set(
        SOURCES
    )
    assert "polysock_transports.errors" in set(imports("polysock_transports.dialects.sockjs"))
    assert "polysock_transports.session" in set(imports("polysock.connection"))


@every_module
def test_one_arrow(name: str) -> None:
    ours = {top(module) for module in imports(name)} & {"run", *PACKAGES}
    assert ours <= ALLOWED[top(name)]


@every_module
def test_only_known_packages_beside_the_standard_library(name: str) -> None:
    foreign = {top(module) for module in imports(name)} - set(sys.stdlib_module_names) - set(PACKAGES)
    assert foreign <= {"tornado", "sockjs", "ujson"} | OPTIONAL.get(name, set())


@every_module
def test_tornado_is_known_to_few(name: str) -> None:
    assert name in TORNADO or "tornado" not in {top(module) for module in imports(name)}


@every_module
def test_sockjs_tornado_is_known_to_one(name: str) -> None:
    assert name in SOCKJS_TORNADO or "sockjs" not in {top(module) for module in imports(name)}


def test_the_lists_above_name_modules_that_exist() -> None:
    assert set(SOURCES) >= (TORNADO | SOCKJS_TORNADO | PURE_ABOVE | set(OPTIONAL))


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("polysock_transports.dialects")])
def test_dialects_know_only_values(name: str) -> None:
    foreign = {module for module in imports(name) if top(module) not in sys.stdlib_module_names}
    own = {module for module in foreign if not module.startswith("polysock_transports.dialects")}
    assert own <= DIALECT_IMPORTS


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SOURCES
        if name in PURE_ABOVE or any(name.startswith(f"polysock_transports.{pure}") for pure in PURE)
    ],
)
def test_pure_modules_do_no_io(name: str) -> None:
    found = set(imports(name))
    assert not found & IO_MODULES
    assert "tornado" not in {top(module) for module in found}
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


@every_module
def test_names_say_what_is_inside(name: str) -> None:
    assert not set(name.split(".")) & NAMELESS


@every_module
def test_no_import_cycle(name: str) -> None:
    """Imports that only type checkers see do not count."""

    def needed(module: str) -> set[str]:
        tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
        hidden = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
        found: set[str] = set()
        for node in tree.body:
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom) and inner not in hidden:
                    parts = package.split(".")
                    base = ".".join(parts[: len(parts) - inner.level + 1]) if inner.level else ""
                    target = ".".join(filter(None, (base, inner.module or "")))
                    found.add(target)
                    found.update(f"{target}.{alias.name}" for alias in inner.names)
        return found & set(SOURCES)

    seen: set[str] = set()
    ahead = needed(name)
    while ahead:
        module = ahead.pop()
        assert module != name, f"{name} imports itself by way of {sorted(seen)}"
        if module not in seen:
            seen.add(module)
            # A package's own __init__ gathers its modules; that they then import each other is no cycle.
            ahead |= needed(module) if SOURCES[module].name != "__init__.py" else set()


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"polysock_transports", "polysock"}))
def test_every_module_says_what_it_is_for(name: str) -> None:
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
