"""A WebSocket server on 127.0.0.1 that echoes every message: python echo.py PORT [--deflate]

Port 0 takes a free one. The first line printed is ``listening on 127.0.0.1:PORT``.
"""

import argparse
import contextlib
import socket
import socketserver

from peer import accept

HEAD_LIMIT = 16 * 1024  # bytes of the opening handshake's request


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # some clients, and some of the tests, leave without a word
            self.serve()

    def serve(self):
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(65536)
            if not data or len(head) > HEAD_LIMIT:
                return
            head += data
        end = head.index(b"\r\n\r\n") + 4
        peer, response = accept(head[:end], self.server.deflate)
        self.request.sendall(response)
        data = head[end:]
        while peer is not None and not peer.closed:
            _, out = peer.feed(data) if data else ([], b"")
            self.request.sendall(out)
            if peer.closed:
                self.leave()
            elif not (data := self.request.recv(65536)):
                return

    def leave(self):
        """Close so that no reset overtakes the close frame: end our side, then read until the client ends its own."""
        self.request.shutdown(socket.SHUT_WR)
        self.request.settimeout(2)
        with contextlib.suppress(TimeoutError):
            while self.request.recv(65536):
                pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, deflate):
        self.deflate = deflate
        super().__init__(("127.0.0.1", port), Handler)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--deflate", action="store_true", help="accept permessage-deflate")
    options = parser.parse_args()
    with Server(options.port, options.deflate) as server:
        print("listening on {}:{}".format(*server.server_address), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
