"""Every size, count, rate and delay that this layer obeys, with its unit in its name.

Pass a changed copy (``dataclasses.replace``, or the router's settings) where a default does not fit.  Nothing else in
``polysock_transports`` holds such a number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one endpoint.  Counts and bytes are positive; delays are seconds."""

    # -- what one client may send
    max_message_bytes: int = 1_000_000
    """Longest single message, in UTF-8 bytes; a WebSocket is closed with 1009, a POST is answered 413."""
    max_payload_bytes: int = 2_000_000
    """Longest body of one POST, and longest framed WebSocket text; 413 or 1009 beyond."""
    max_payload_messages: int = 1_000
    """Messages in one payload (a SockJS array); 413 or 1009 beyond."""
    max_payload_packets: int = 10_000
    """Packets in one POST of a Socket.IO client, which cannot be told the limit; 413 beyond."""
    max_message_fragments: int = 10_000
    """Frames that one WebSocket message may be split into; 1009 beyond (many tiny ones cost time, not bytes)."""
    max_inbox_messages: int = 1_000
    """Messages accepted and not yet handled; at this mark reading stops, POSTs wait, and at twice it they get 503."""
    max_inbox_bytes: int = 4_000_000
    """The same in bytes."""
    max_ahead_bytes: int = 64 * 1024
    """What a client may send ahead on a connection whose last request is not answered; beyond, it is not read."""
    max_waiting_sends: int = 8
    """POSTs of one session that may wait for the inbox at one time; one more is answered 503."""

    # -- what may wait for one client
    queue_high_bytes: int = 256 * 1024
    """Over this mark ``drain()`` waits."""
    queue_max_bytes: int = 4 * 1024 * 1024
    """Over this the session is closed as SLOW_CONSUMER."""
    queue_max_messages: int = 10_000
    """The same, counted in messages."""
    pipe_high_bytes: int = 64 * 1024
    """Bytes given to one TCP connection and not yet taken by the kernel; over this the queue holds back the rest."""

    # -- how many clients
    max_sessions: int = 100_000
    """Sessions of one endpoint, WebSockets included; one more is answered 503."""
    max_sessions_per_address: int = 10_000
    """Sessions of one client address; one more is answered 429."""
    max_flash_policy_connections: int = 100
    """Connections to one Flash policy port; one more is closed at once."""

    # -- time
    heartbeat_delay_s: float = 25.0
    """Silence on a receiving connection after which a heartbeat is sent."""
    heartbeat_timeout_s: float = 20.0
    """A client that shows no sign of life for this long after a heartbeat is gone."""
    disconnect_delay_s: float = 5.0
    """How long a session lives without a receiving connection, and how long a close is repeated."""
    close_timeout_s: float = 5.0
    """How long to wait for the peer's half of a closing handshake, and for handlers of a session that ended."""
    body_timeout_s: float = 60.0
    """How long the body of a POST may take to arrive; then the connection is cut."""
    write_timeout_s: float = 60.0
    """How long a connection may take nothing of what was written to it; then it is cut (by the kernel: Linux only)."""
    sweep_interval_s: float = 0.1
    """How coarse deadlines are: at most this much later than due."""

    # -- Socket.IO clients
    upgrade_timeout_s: float = 10.0
    """How long a WebSocket may take to replace polling (Engine.IO); then it is closed, and polling goes on."""
    upgrade_noop_s: float = 0.1
    """While a WebSocket is about to replace polling, a poll that comes is answered after this time."""
    legacy_handshake_timeout_s: float = 30.0
    """How long a Socket.IO 0.9 handshake is remembered that no transport follows."""
    legacy_poll_s: float = 20.0
    """How long a poll of Socket.IO 0.9 waits; shorter than the heartbeat delay and timeout together."""
    flash_policy_timeout_s: float = 5.0
    """How long a connection to a Flash policy port may take to ask, and to take the answer; then it is cut."""

    # -- several nodes
    max_relay_connections: int = 10_000
    """Connections to one other node, one for each request and WebSocket passed on there; a further one fails."""
    max_relay_handshakes: int = 1_000
    """Connections of other nodes that have not shown yet that they are; one more is closed at once."""
    max_relay_moved: int = 100_000
    """Sessions of one endpoint of which it is remembered that an earlier home still holds them."""
    relay_whole_bytes: int = 256 * 1024
    """An answer of another node up to this length is passed on whole; a longer one in chunks, as it comes."""
    relay_timeout_s: float = 5.0
    """How long a connection between nodes may take until both have shown who they are."""
    relay_question_s: float = 1.0
    """How long another node may take to say whether it holds a session."""
    relay_settle_s: float = 15.0
    """How long after a change of the nodes it takes until all of them know: until then who holds a session is asked."""
    relay_idle_s: float = 30.0
    """How long a connection to another node is kept without a request."""

    # -- plain clients
    plain_poll_timeout_s: float = 60.0
    """A client of timed polling that does not poll for this long is gone."""
    feed_history_messages: int = 500
    """Events that one feed keeps for clients that come back."""
    feed_history_bytes: int = 256 * 1024
    """The same in bytes."""
    feed_linger_s: float = 30.0
    """How long a feed is kept after its last client went."""
    feed_retry_s: float = 2.0
    """How long browsers are told to wait before they ask for a feed again."""
    max_feeds: int = 1_000
    """Feeds (a namespace and a choice of rooms) kept at one time; one more, where all have clients, is answered 503."""
    max_feed_rooms: int = 20
    """Rooms in one feed; 400 beyond."""
    max_name_chars: int = 256
    """Longest name of a namespace or room in a URL; 400 beyond."""

    # -- between nodes
    backplane_max_message_bytes: int = 8 * 1024 * 1024
    """Longest message on the backplane; a longer one is dropped and counted."""
    backplane_queue_bytes: int = 16 * 1024 * 1024
    """What may wait for one other node, or for Redis; further messages are dropped and counted."""
    backplane_queue_messages: int = 50_000
    """The same, counted in messages."""
    max_backplane_nodes: int = 256
    """Other nodes that a node of a local backplane is connected to; one more is turned away."""
    max_backplane_channels: int = 1_000_000
    """Channels that another node may be subscribed to; a node of a local backplane that asks for more is cut off."""
    max_backplane_channel_bytes: int = 128 * 1024 * 1024
    """The same, in bytes of their names."""
    backplane_timeout_s: float = 5.0
    """How long another node, or Redis, may take to answer: a greeting, a ping, what ``settled`` waits for."""
    backplane_ping_s: float = 10.0
    """How often Redis is asked whether it is still there."""
    backplane_retry_s: float = 10.0
    """Longest wait before the next try to connect; the first ones come sooner, and all are spread by chance."""

    # -- sizes on the wire
    response_limit_bytes: int = 128 * 1024
    """A streaming response ends after this many bytes (the prelude does not count) and the client opens a new one."""
    max_callback_chars: int = 128
    """Longest JSONP or htmlfile callback name."""
    max_session_id_chars: int = 128
    """Longest session segment of a URL; longer is 404."""
    read_chunk_bytes: int = 64 * 1024
    """How much is read from a WebSocket's TCP connection at a time."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # bool is an int to Python, and never a size or a delay.
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field.name} must be a number, not {type(value).__name__}")
            if isinstance(value, float) and not field.name.endswith("_s"):
                raise TypeError(f"{field.name} must be a whole number, not {value!r}")
            if value != value or value <= 0:
                raise ValueError(f"{field.name} must be greater than zero, not {value!r}")


DEFAULT_LIMITS = Limits()
