"""Every bound of the front door, with its unit and its reason. Those an operator may change are settings in `__main__`."""

REQUEST_LINE_BYTES = 8 * 1024
"""Request line. What browsers and other proxies take at least."""
HEAD_BYTES = 64 * 1024
"""Request line and fields, or response head: bounds what one half-sent head can hold."""
HEAD_FIELDS = 100
"""Fields in one head: bounds the work of one head."""
TRAILER_BYTES = 8 * 1024
"""All trailers of one message."""
INTERIM_MOST = 64
"""Interim answers (1xx) to one request: they are passed on as they come, whether or not the client reads."""
CHUNK_LINE_BYTES = 256
"""A chunk's size with its extensions, which are dropped."""
BODY_LENGTH_DIGITS = 15
"""Digits of a Content-Length: a petabyte, and far from any integer's edge."""

HEADER_TIME_S = 10.0
"""From the first byte of a head to its last, and before that for TLS's handshake: a slow sender is not waited for."""
IDLE_TIME_S = 60.0
"""Between requests on a kept connection."""
RECORD_BYTES = 16 * 1024
"""The most plain text that one record of TLS can hold."""
CONTEXTS_MOST = 1_000
"""Certificates kept ready for handshakes; the others are opened again when they are asked for."""
LINGER_S = 2.0
"""After an early answer, how long the rest of a request is read and dropped, so that the answer is not reset away."""
SWEEP_S = 0.1
"""How often deadlines are looked at; they are this much late at most."""
STALL_S = 0.25
"""An event loop this late is worth a line in the log."""

BUFFERED_BYTES = 64 * 1024
"""Of one connection: body that waits for an instance, or bytes after the current request. Above it, reading stops."""
WRITE_HIGH_BYTES = 256 * 1024
"""Unsent bytes to a slow reader above which its sender is paused; resumed at a quarter of it."""

DRAIN_IDLE_S = 1.0
"""After a drain began, how long idle connections stay: a request that is on its way is answered, with `Connection: close`."""

TCP_IDLE_S = 3600.0
"""A raw TCP connection on which neither side says anything, unless its service has an `idleTimeoutSeconds`."""
TCP_KEEPALIVE_S = 60
"""Silence of such a client after which its kernel is asked whether it is still there; three times, then it is gone."""
PORT_DOUBT_S = 0.25
"""A service's port that is in use is looked at again after so long, before it is called taken: by a worker of ours, perhaps."""
PORT_AGAIN_S = 1.0
"""A service's port that could not be listened on is tried again after so long."""

CONNECT_TIME_S = 1.0
"""To connect to an instance: it is in the next room."""
CONNECT_ATTEMPTS = 8
"""Instances that may fail to connect before a request is given up."""
UPSTREAM_IDLE_S = 1.5
"""A connection to an instance is not used again after so long: app servers drop theirs after 2 s (gunicorn), 5 s (Node)."""
UPSTREAM_SWEEP_S = 0.25
"""How often connections to instances are looked at: for those too old, and for instances that do not answer."""
SILENCE_S = 1.0
"""An instance that owes answers and gave none for so long, while another does, gets nothing new for a moment."""
UPSTREAM_IDLE_MOST = 256
"""Idle connections kept for one instance."""

MIRROR_BODY_BYTES = 64 * 1024
"""A request with a larger body is not mirrored: its copy is kept until the body is whole."""
MIRROR_MOST = 256
"""Copies on their way at once; beyond, requests are not mirrored."""

STREAMS_MOST = 100
"""Streams of one HTTP/2 connection, ours and theirs."""
STREAM_WINDOW_BYTES = 64 * 1024 - 1
"""What a client may send on one stream before it is read."""
CLIENT_WINDOW_BYTES = 1024 * 1024
"""The same for all its streams together."""
INSTANCE_STREAM_WINDOW_BYTES = 128 * 1024
"""What an instance may send on one stream before its client has room."""
INSTANCE_WINDOW_BYTES = STREAMS_MOST * INSTANCE_STREAM_WINDOW_BYTES
"""All its streams together: one slow client does not stop the others."""
LANE_HIGH_BYTES = 64 * 1024
"""Of one stream: bytes that wait for the peer's window. Above it, their sender is paused."""
FRAME_BYTES = 16 * 1024
"""The largest frame."""
HEADER_TABLE_BYTES = 4096
"""HPACK's table, both ways, whatever the peer offers."""
HELLO_TIME_S = 5.0
"""For an instance's first SETTINGS after it accepted."""
UPSTREAM2_IDLE_S = 30.0
"""An HTTP/2 connection to an instance without streams is closed after so long."""

HEAD_MEMO_MOST = 1_024
"""Heads that are remembered with what they mean, of requests and of answers; then it begins anew."""
HEAD_MEMO_BYTES = 2_048
"""Longer ones are not."""
HEADS_ONCE_MOST = 8_192
"""Heads that came once, of which it is remembered that they did."""
HOST_MEMO_MOST = 16_384
"""Spellings of known hosts that are remembered."""
NAME_MEMO_MOST = 4_096
"""Spellings of field names that are remembered."""
METRIC_REVISIONS_MOST = 2_000
"""Revisions with metrics of their own; the others share one set."""
