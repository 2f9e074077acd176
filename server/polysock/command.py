"""The command ``polysock``, and ``python -m polysock``: emit an event from a shell."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from polysock_transports import ProtocolError

from .backplane import BackplaneDown
from .limits import DEFAULT_CLUSTER_LIMITS
from .packets import check_event, loads
from .publisher import PUBLISH_TIMEOUT_S, Publisher
from .settings import SettingError

__all__ = ["URL_VARIABLE", "main"]

#: The environment variable that stands for ``--url``.
URL_VARIABLE = "POLYSOCK_BACKPLANE"
#: As shells have it: 128, and the number of the signal.
EXIT_INTERRUPTED = 130

_DESCRIPTION = """\
Emit an event to the clients of all nodes on a backplane, and say how many nodes took it.

A node takes it where it has clients in the room; with several rooms, or none, where it has clients in the namespace.
"""
_EXAMPLES = f"""\
each ARG is JSON, or with --text a text as it stands:
  polysock emit --url redis://localhost --room news update '{{"id": 7}}' '"hello"'
  polysock emit --url unix:///run/myapp --text announce 'Back in five minutes'

binary from files, and a namespace:
  polysock emit --url redis://localhost --namespace /photos --room 7 shown --file cat.png

The URL may hold a password, which other users of this machine can read in the list of its processes:
  {URL_VARIABLE}=redis://:secret@redis.example.com polysock emit --text announce hello

exit status: 0 where a node took it, 1 where none did or the backplane cannot be reached, 2 for a wrong command
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (those of this process where None); the exit code."""
    parser = argparse.ArgumentParser(prog="polysock", description="polysock from the command line.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    emit = commands.add_parser(
        "emit",
        help="emit an event to the clients of all nodes",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    emit.set_defaults(command=emit)
    emit.add_argument("event", metavar="EVENT", help="the name of the event")
    emit.add_argument("args", metavar="ARG", nargs="*", help="an argument of the event")
    emit.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, ""),
        help=f"the backplane: redis://host, rediss://host, or unix:///folder (default: ${URL_VARIABLE})",
    )
    emit.add_argument("--namespace", default="/", metavar="NAME", help="the namespace (default: /)")
    emit.add_argument(
        "--room", action="append", default=[], dest="rooms", metavar="NAME", help="a room or a client's id; repeatable"
    )
    emit.add_argument(
        "--except", action="append", default=[], dest="but", metavar="NAME", help="a room or id that gets nothing"
    )
    emit.add_argument("--text", action="store_true", help="take each ARG for a text, not for JSON")
    emit.add_argument(
        "--file",
        action="append",
        default=[],
        dest="files",
        metavar="PATH",
        help="a file as a binary argument, after each ARG; - is the standard input; repeatable",
    )
    emit.add_argument(
        "--timeout",
        type=float,
        default=PUBLISH_TIMEOUT_S,
        metavar="SECONDS",
        help="how long it may take (default: %(default)g)",
    )
    # argparse takes no ARG after an option that follows EVENT: it leaves them over.
    options, left_over = parser.parse_known_args(arguments)
    unknown = [each for each in left_over if each.startswith("-") and not _is_json(each)]
    if unknown:
        emit.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.args += left_over
    try:
        return _emit(options, options.command)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _emit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if not options.url:
        parser.error(f"--url is missing, and so is ${URL_VARIABLE}")
    try:
        args = [text if options.text else loads(text) for text in options.args]
    except ProtocolError:
        wrong = next(text for text in options.args if not _is_json(text))
        parser.error(f"{wrong!r} is not JSON; a text is written '\"like this\"', or plainly with --text")
    args += [_read(path, parser) for path in options.files]
    try:
        nodes = asyncio.run(_publish(options, args))
    except (SettingError, ValueError, TypeError) as error:
        parser.error(str(error))
    except BackplaneDown as error:
        print(f"polysock emit: {error}", file=sys.stderr)
        return 1
    print("taken by no node" if not nodes else "taken by 1 node" if nodes == 1 else f"taken by {nodes} nodes")
    return 0 if nodes else 1


async def _publish(options: argparse.Namespace, args: list[Any]) -> int:
    publisher = Publisher(options.url, timeout_s=options.timeout)
    # What is wrong with the command is said whether or not there is a backplane.
    check_event(options.event)
    whom = publisher.of(options.namespace).to(*options.rooms).except_(*options.but)
    async with publisher:
        return await whom.emit(options.event, *args)


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except ProtocolError:
        return False
    return True


def _read(path: str, parser: argparse.ArgumentParser) -> bytes:
    limit = DEFAULT_CLUSTER_LIMITS.max_envelope_bytes
    try:
        # Never more than may travel: it could be /dev/zero.
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        _no_file(parser, path, error.strerror or "cannot be read")
    if len(data) > limit:
        _no_file(parser, path, f"longer than {limit} bytes")
    return data


def _no_file(parser: argparse.ArgumentParser, path: str, why: str) -> NoReturn:
    parser.error(f"--file {path}: {why}")
