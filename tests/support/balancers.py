"""nginx in front of several nodes: plain round robin, so that hardly a request comes to the node of its session."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from support.needs import need_program
from support.programs import Host, Program

__all__ = ["listener", "nginx", "nginx_configuration", "start_nginx"]

NGINX_HOW = "apt-get install nginx"

# What nginx needs in any case to run beside others, in a folder of its own.
_FRAME = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""

_SITE = """\
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ""      "";
    }}
    upstream nodes {{
        {servers}
        keepalive 32;
    }}
    server {{
        {listens}
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_next_upstream {next_upstream};
            proxy_connect_timeout 2s;
            proxy_read_timeout 75s;
        }}
    }}
"""


def listener() -> socket.socket:
    """A listening socket on a free port of 127.0.0.1, for a program to inherit."""
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def nginx_configuration(site: str, folder: Path) -> str:
    """A whole configuration around *site*, which is what stands in its ``http`` block."""
    # As root it would hand its work to a user who cannot read the folder.
    return _FRAME.format(folder=folder, site=site, user="user root;" if Path("/").owner() == _me() else "")


def _me() -> str:
    return Path("/proc/self").owner()


def start_nginx(
    site: str, folder: Path, listeners: Sequence[socket.socket] = (), *, host: Host | None = None
) -> Program:
    """nginx with *site*, which listens on the addresses of *listeners*: those it inherits, also in a *host*."""
    program = need_program("nginx", "/usr/sbin/nginx", how=NGINX_HOW)
    configuration = folder / "nginx.conf"
    configuration.write_text(nginx_configuration(site, folder), encoding="utf-8")
    inherited = "".join(f"{one.fileno()};" for one in listeners)
    return Program(
        [program, "-c", configuration, "-p", folder, "-e", "stderr"],
        folder / "nginx.log",
        host=host,
        sockets=listeners,
        environment={"NGINX": inherited} if inherited else {},
    )


def nginx(
    nodes: Sequence[str],
    folder: Path,
    listeners: Sequence[socket.socket],
    *,
    next_upstream: str = "off",
    host: Host | None = None,
) -> Program:
    """nginx on *listeners* in front of *nodes* (``address:port``)."""
    site = _SITE.format(
        servers="\n        ".join(f"server {node};" for node in nodes),
        listens="\n        ".join("listen {}:{};".format(*one.getsockname()) for one in listeners),
        next_upstream=next_upstream,
    )
    return start_nginx(site, folder, listeners, host=host)
