"""What a program runs in: the service manager that started it, and the terminal that it may have.

For ``workers.py`` and ``supervisor.py``, whichever of them is the first process.
"""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["has_terminal", "tell_service_manager"]

log = logging.getLogger("polysock")

#: How long a service manager may take to have room for what it is told; who serves meanwhile waits.
TELL_S = 1.0


def has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def tell_service_manager(state: str) -> None:
    """Say *state* where a service manager listens (sd_notify(3): a datagram to the socket that is named)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(TELL_S)
            manager.connect("\0" + address[1:] if address.startswith("@") else address)
            manager.sendall(state.encode("ascii"))
    except OSError as error:
        log.warning("cannot tell the service manager %s: %s", state, error)
