"""A ZMTP 3.0 client (NULL mechanism) on the standard library: the tests' own witness of what an
engine publishes.

It shares no code with the subscriber under test, and it keeps the raw bytes of both directions, so
a whole dialogue can be stored as a golden. Protocol: https://rfc.zeromq.org/spec/23/.
"""

import socket
import struct

_GREETING = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
)
_MORE, _LONG, _COMMAND = 1, 2, 4

# The sequence field of the frame that ends a replay: -1 as a signed 64-bit integer.
REPLAY_END = b"\xff" * 8


class ZmtpSocket:
    """A connection that speaks as a SUB or a DEALER; `sent` and `received` are every byte."""

    def __init__(self, kind: str, port: int, timeout_s: float = 30.0) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        try:
            # Without this a SUB's subscription waits out the peer's delayed acknowledgement (40 ms)
            # of the handshake.
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._write(_GREETING)
            greeting = self._read(64)
            if greeting[:1] != b"\xff" or greeting[10] < 3:
                raise ConnectionError(f"port {port} does not speak ZMTP 3: {greeting[:12].hex()}")
            ready = b"\x05READY"
            for name, value in ((b"Socket-Type", kind.encode()), (b"Identity", b"")):
                ready += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
            self._write(bytes([_COMMAND, len(ready)]) + ready)
            flags, body = self._read_frame()
            if not flags & _COMMAND or not body.startswith(b"\x05READY"):
                raise ConnectionError(f"port {port} answered READY with {body[:40]!r}")
        except BaseException:
            self._connection.close()
            raise

    def subscribe(self, topic: bytes = b"") -> None:
        self.send([b"\x01" + topic])

    def send(self, frames: list[bytes]) -> None:
        wire = b""
        for index, frame in enumerate(frames):
            more = _MORE if index + 1 < len(frames) else 0
            if len(frame) < 256:
                wire += bytes([more, len(frame)]) + frame
            else:
                wire += bytes([more | _LONG]) + struct.pack(">Q", len(frame)) + frame
        self._write(wire)

    def receive(self) -> list[bytes]:
        """The next message; TimeoutError when none comes, ConnectionError when the peer is gone."""
        frames = []
        while True:
            flags, body = self._read_frame()
            if flags & _COMMAND:
                continue
            frames.append(body)
            if not flags & _MORE:
                return frames

    def set_timeout(self, timeout_s: float) -> None:
        self._connection.settimeout(timeout_s)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "ZmtpSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        self._connection.sendall(data)
        self.sent += data

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._connection.recv(count - len(data))
            if not chunk:
                raise ConnectionError("the ZMTP peer closed the connection")
            data += chunk
        self.received += data
        return bytes(data)

    def _read_frame(self) -> tuple[int, bytes]:
        flags = self._read(1)[0]
        size = struct.unpack(">Q", self._read(8))[0] if flags & _LONG else self._read(1)[0]
        return flags, self._read(size)


def replay(port: int, start_sequence: int = 0) -> list[list[bytes]]:
    """Every buffered batch from `start_sequence` on, as [topic, sequence, payload]."""
    with ZmtpSocket("DEALER", port) as dealer:
        return replay_on(dealer, start_sequence)


def replay_on(dealer: ZmtpSocket, start_sequence: int) -> list[list[bytes]]:
    dealer.send([b"", start_sequence.to_bytes(8, "big")])
    batches = []
    while True:
        _, *batch = dealer.receive()
        if batch[1] == REPLAY_END:
            return batches
        batches.append(batch)


def settled_sequence(port: int, known_sequence: int = -1) -> int:
    """The sequence of the last batch that the engine had queued for publishing when this was called
    (-1: none).

    vLLM's publisher thread answers one replay request, then publishes at most one queued batch, and
    so on. A single replay can therefore miss batches that the engine queued before it. Two equal
    answers in a row cannot: between them the queue was found empty. `known_sequence` (a batch
    already seen) keeps the answers short.
    """
    with ZmtpSocket("DEALER", port) as dealer:
        while True:
            batches = replay_on(dealer, known_sequence + 1)
            last = int.from_bytes(batches[-1][1], "big") if batches else known_sequence
            if last == known_sequence:
                # Nothing newer than what was known: once more, so that this answer too has a twin.
                if not replay_on(dealer, known_sequence + 1):
                    return last
                continue
            known_sequence = last
