"""A libzmq peer for the interoperability tests.

Prints one line a step, so that the test waits for lines instead of sleeping.
"""

import sys

import zmq


def say(*words: object) -> None:
    print(*words, flush=True)


def bound(kind: int) -> zmq.Socket:
    socket = zmq.Context.instance().socket(kind)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    say("port", port)
    return socket


def publish() -> None:
    """XPUB, which is a PUB that sees its subscriptions: sends once it has been told to."""
    socket = bound(zmq.XPUB)
    say("subscribed", socket.recv().hex())
    for line in sys.stdin:
        count, size = map(int, line.split())
        for i in range(count):
            socket.send_multipart([b"kv@a", i.to_bytes(8, "big"), bytes([i % 251]) * size])
            socket.send_multipart([b"other", b"", b"not subscribed"])
        say("sent", count)


def subscribe(address: str, topic: str) -> None:
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 50)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 1000)
    socket.setsockopt_string(zmq.SUBSCRIBE, topic)
    socket.connect(address)
    while True:
        frames = socket.recv_multipart()
        say("message", len(frames), frames[0].decode(), len(frames[-1]), sum(frames[-1]))


def answer() -> None:
    """A ROUTER that streams replies as an engine's replay socket does."""
    socket = bound(zmq.ROUTER)
    while True:
        identity, empty, start = socket.recv_multipart()
        first = int.from_bytes(start, "big")
        for i in range(first, first + 300):
            socket.send_multipart([identity, empty, i.to_bytes(8, "big"), b"x" * i])
        socket.send_multipart([identity, empty, b"\xff" * 8, b""])


def ask(kind: int, address: str) -> None:
    socket = zmq.Context.instance().socket(kind)
    socket.connect(address)
    for i in range(3):
        request = [str(i).encode()]
        socket.send_multipart(request if kind == zmq.REQ else [b"", *request])
        frames = socket.recv_multipart()
        say("reply", *(frame.decode() or "-" for frame in frames))


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    {
        "version": lambda: say("version", zmq.zmq_version()),
        "publish": publish,
        "subscribe": lambda: subscribe(*arguments),
        "answer": answer,
        "ask-dealer": lambda: ask(zmq.DEALER, *arguments),
        "ask-req": lambda: ask(zmq.REQ, *arguments),
    }[role]()
