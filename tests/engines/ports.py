"""TCP ports from the system for child processes, with no moment in which others could take them."""

import contextlib
import socket


class PortRange:
    """`count` neighbouring ports that stay ours until `close`.

    Each is held by a socket that is bound but does not listen. With SO_REUSEADDR on both sides,
    which vLLM's HTTP server and ZeroMQ set, Linux lets a server bind and listen beside such a
    socket, while `bind(0)` and outgoing connections elsewhere avoid the port. So a server can die
    and come back on it as often as a test likes.
    """

    def __init__(self, count: int = 1) -> None:
        self._held: list[socket.socket] = []
        for _ in range(100):
            held = self._hold(0)
            self.first = held.getsockname()[1]
            self._held = [held]
            try:
                for port in range(self.first + 1, self.first + count):
                    self._held.append(self._hold(port))
            except OSError:  # a neighbour is taken: start over elsewhere
                self.close()
                continue
            return
        raise OSError(f"found no {count} neighbouring free ports in 100 tries")

    @staticmethod
    def _hold(port: int) -> socket.socket:
        with contextlib.ExitStack() as undo:
            held = socket.socket()
            undo.callback(held.close)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("0.0.0.0", port))
            undo.pop_all()
        return held

    def close(self) -> None:
        for held in self._held:
            held.close()
        self._held = []
