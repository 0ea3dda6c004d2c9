"""A libzmq peer for the interoperability tests.

Prints one line a step, so that the test waits for lines instead of sleeping.
"""

import struct
import sys
import time

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


def engine(events_port: str, replay_port: str) -> None:
    """PUB and ROUTER as vLLM has them: `publish` sends an event, `keep` only buffers it."""
    context = zmq.Context.instance()
    events, replay = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
    ports = []
    for socket, port in ((events, events_port), (replay, replay_port)):
        socket.bind(f"tcp://127.0.0.1:{port}")
        ports.append(socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    say("ports", *ports)
    # Not buffered: a line that Python has read already would not wake the poller.
    commands = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    buffer: list[bytes] = []
    poller = zmq.Poller()
    poller.register(replay, zmq.POLLIN)
    poller.register(commands, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if replay in ready:
            identity, empty, start = replay.recv_multipart()
            first = int.from_bytes(start, "big")
            for number, payload in enumerate(buffer[first:], first):
                replay.send_multipart([identity, empty, b"kv", number.to_bytes(8, "big"), payload])
            replay.send_multipart([identity, empty, b"", b"\xff" * 8, b""])
        if commands.fileno() in ready:
            command = commands.readline().strip()
            if not command:
                return
            number = len(buffer).to_bytes(8, "big")
            # [time, [["BlockStored", [number], nil, [1, 2], 2, nil]], 0]
            stored = b"\x96\xabBlockStored\x91\xcf" + number + b"\xc0\x92\x01\x02\x02\xc0"
            buffer.append(b"\x93\xcb" + struct.pack(">d", time.time()) + b"\x91" + stored + b"\x00")
            if command == b"publish":
                events.send_multipart([b"kv", number, buffer[-1]])


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    {
        "version": lambda: say("version", zmq.zmq_version()),
        "publish": publish,
        "subscribe": lambda: subscribe(*arguments),
        "answer": answer,
        "engine": lambda: engine(*arguments),
        "ask-dealer": lambda: ask(zmq.DEALER, *arguments),
        "ask-req": lambda: ask(zmq.REQ, *arguments),
    }[role]()
