"""zmq_proxy.py PUSH_PORT SUB_PORT: give what comes on one port to everybody who listens on the other."""

import sys

import zmq


def run(push_port, sub_port, host="127.0.0.1"):
    context = zmq.Context()
    receiver, publisher = context.socket(zmq.PULL), context.socket(zmq.PUB)
    for socket in (receiver, publisher):
        socket.setsockopt(zmq.SNDHWM, 100_000)
        socket.setsockopt(zmq.RCVHWM, 100_000)
    receiver.bind(f"tcp://{host}:{push_port}")
    publisher.bind(f"tcp://{host}:{sub_port}")
    zmq.proxy(receiver, publisher)


if __name__ == "__main__":
    run(*map(int, sys.argv[1:3]), *sys.argv[3:4])
