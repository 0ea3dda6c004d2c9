"""A TCP proxy before an engine's event socket that loses what a test tells it to lose."""

import contextlib
import socket
import threading

_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING_BYTES = 64


class LossyProxy:
    """Forwards ZMTP connections to `target_port`, message by message.

    `drop(n)` swallows the next n messages, as a publisher does above its high-water mark. `cut`
    breaks the connections and refuses new ones until `mend`, as a network does.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._to_drop = 0
        self._is_cut = False
        self.dropped = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self, messages: int) -> None:
        with self._lock:
            self._to_drop += messages

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        self.cut()
        # A plain close would leave the accept call of the other thread waiting for ever.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> "LossyProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                subscriber, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                engine = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:  # the engine is down, and so looks the proxy
                subscriber.close()
                continue
            with self._lock:
                if self._is_cut:
                    subscriber.close()
                    engine.close()
                    continue
                self._open |= {subscriber, engine}
            for pump, source, sink in (
                (self._forward_bytes, subscriber, engine),
                (self._forward_messages, engine, subscriber),
            ):
                threading.Thread(target=self._run, args=(pump, source, sink), daemon=True).start()

    def _run(self, pump, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            pump(source, sink)
        # Either direction's end ends both; the second to come finds the sockets closed already.
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        with self._lock:
            self._open -= {source, sink}

    @staticmethod
    def _forward_bytes(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)

    def _forward_messages(self, source: socket.socket, sink: socket.socket) -> None:
        reader = source.makefile("rb")
        sink.sendall(reader.read(_GREETING_BYTES))
        message = b""
        while head := reader.read(1):
            flags = head[0]
            size = reader.read(8 if flags & _LONG else 1)
            frame = head + size + reader.read(int.from_bytes(size, "big"))
            if flags & _COMMAND:
                sink.sendall(frame)
                continue
            message += frame
            if flags & _MORE:
                continue
            if not self._loses():
                sink.sendall(message)
            message = b""

    def _loses(self) -> bool:
        with self._lock:
            if not self._to_drop:
                return False
            self._to_drop -= 1
            self.dropped += 1
            return True
