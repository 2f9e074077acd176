"""A private folder in which the processes of one host find each other's Unix sockets.

The permissions of the folder are the whole protection: who may enter it may speak to every process in it.  Knows
nothing of what is said over the sockets.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .settings import SettingError

__all__ = ["Gone", "SocketFolder"]

#: What ``struct sockaddr_un`` holds on Linux (unix(7)), without the NUL at its end.
_MAX_PATH_BYTES = 107
_BACKLOG = 1024
#: Names under which a socket is bound until it listens; nobody is between the two for longer than this.
_NEW = ".new"
_NEW_AGE_S = 60.0


class Gone(Exception):
    """Nobody listens there, nor ever will again."""


class SocketFolder:
    """Sockets with one suffix in one folder, by name."""

    def __init__(self, folder: str | os.PathLike[str], suffix: str, *, name_chars: int) -> None:
        """*name_chars*: how long a socket's name will be.  Raises SettingError where a path would be too long."""
        self.folder = Path(os.path.abspath(folder))
        self._suffix = suffix
        self._check_length("x" * name_chars)

    def path(self, name: str) -> Path:
        return self.folder / (name + self._suffix)

    def _check_length(self, name: str) -> None:
        size = len(os.fsencode(self._new(name)))
        if size > _MAX_PATH_BYTES:
            raise SettingError(
                f"{self.folder} is too long for sockets: their paths would be {size} bytes, and {_MAX_PATH_BYTES} is"
                " the most that Unix sockets can have; a folder under /run or /tmp is shorter"
            )

    def _new(self, name: str) -> Path:
        return self.folder / f".{name}{self._suffix}{_NEW}"

    def make(self) -> None:
        """Make the folder where it is absent (0700).  Raises SettingError."""
        try:
            with suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise SettingError(f"{self.folder} cannot be a folder for sockets: {error.strerror}") from error

    def is_absent(self) -> bool:
        """Whether there is nothing of the folder's name; ``check`` says what else may be wrong."""
        try:
            self.folder.stat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def check(self) -> None:
        """See that the folder is this user's alone.  Raises SettingError."""
        try:
            link, found = self.folder.lstat(), self.folder.stat()
        except OSError as error:
            raise SettingError(f"{self.folder} cannot be a folder for sockets: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise SettingError(f"{self.folder} is not a folder")
        # A symbolic link of somebody else's could point elsewhere tomorrow.
        if found.st_uid != os.geteuid() or link.st_uid not in (os.geteuid(), 0):
            raise SettingError(f"{self.folder} belongs to another user: whoever owns it could speak for every node")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise SettingError(
                f"{self.folder} is open to other users (mode {stat.S_IMODE(found.st_mode):o}):"
                f" chmod 700 {self.folder}, or name a folder that does not exist yet"
            )

    def listen(self, name: str) -> socket.socket:
        """A listening socket that others find as *name*.  Raises SettingError."""
        self._check_length(name)
        try:
            self.connect(name).close()
        except Gone:
            pass
        except OSError as error:
            raise SettingError(f"cannot listen at {self.path(name)}: {error.strerror}") from error
        else:
            raise SettingError(f"somebody listens at {self.path(name)} already: each process needs a name of its own")
        listener = socket.socket(socket.AF_UNIX)
        bound = self._new(name)
        try:
            listener.setblocking(False)
            bound.unlink(missing_ok=True)
            listener.bind(str(bound))
            listener.listen(_BACKLOG)
            # Under this name it appears when it listens already: whoever is refused there knows that its owner is dead.
            bound.rename(self.path(name))
        except OSError as error:
            listener.close()
            raise SettingError(f"cannot listen in {self.folder}: {error.strerror or error}") from error
        return listener

    def remove(self, name: str) -> None:
        """Have *name* found no more."""
        with suppress(OSError):
            self.path(name).unlink()

    def names(self) -> Iterator[str]:
        """The names in the folder, of the living and of the dead."""
        for entry in sorted(os.listdir(self.folder)):
            if entry.endswith(self._suffix) and not entry.startswith("."):
                yield entry.removesuffix(self._suffix)
            elif entry.endswith(self._suffix + _NEW):
                self._sweep(self.folder / entry)

    def _sweep(self, bound: Path) -> None:
        """Remove what a process left behind that was killed between two system calls."""
        with suppress(OSError):
            # The file system's own clock and ours are the same one, and a jump of it costs nothing but a name.
            if time.time() - bound.lstat().st_mtime > _NEW_AGE_S:
                bound.unlink()

    def connect(self, name: str) -> socket.socket:
        """A socket connected to *name*, not blocking.

        Raises Gone where nobody listens there any more, having removed the name that was left behind, and OSError
        where it cannot be said now.
        """
        path = self.path(name)
        ends = socket.socket(socket.AF_UNIX)
        ends.setblocking(False)
        try:
            before = path.lstat()
            # Of Unix sockets this never waits: it is connected, refused, or the queue there is full (BlockingIOError).
            ends.connect(str(path))
        except FileNotFoundError:
            ends.close()
            raise Gone(name) from None
        except ConnectionRefusedError:
            ends.close()
            with suppress(OSError):
                # Unless a new process has taken the name since.
                if path.lstat().st_ino == before.st_ino and stat.S_ISSOCK(before.st_mode):
                    path.unlink()
            raise Gone(name) from None
        except OSError:
            ends.close()
            raise
        return ends
