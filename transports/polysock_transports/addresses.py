"""Whose address it is, when proxies stand between: the trusted-proxy rule.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

__all__ = ["TrustedProxies"]


class TrustedProxies:
    """Networks whose ``X-Forwarded-For`` and ``X-Real-IP`` are believed.

    With none (the default) the address is that of the TCP connection, since anybody can send those headers.  (An
    ``HTTPServer(xheaders=True)`` has already put the forwarded address there.)
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """*networks*: addresses or CIDR networks.  Raises ValueError for anything else."""
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(text) for text in networks)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client_address(self, remote: str, headers: Mapping[str, str]) -> str:
        """The client's address: the last one in the chain that is not a proxy of ours."""
        if not self._networks or not self._trusts(remote):
            return remote
        forwarded = headers.get("X-Forwarded-For", "")
        chain = [part.strip() for part in forwarded.split(",") if part.strip()]
        if not chain:
            chain = [headers.get("X-Real-IP", "").strip()]
        for address in reversed(chain):
            try:
                ip_address(address)
            except ValueError:
                return remote
            if not self._trusts(address):
                return address
        return chain[0]
