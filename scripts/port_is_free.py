"""Fail with one plain line when a server can't listen on a port of 127.0.0.1."""

import errno
import socket
import sys

text = sys.argv[1]
if not text.isdecimal() or not 0 < int(text) < 65536:
    sys.exit(f"PORT={text} is not a port; expected 1 to 65535")
port = int(text)
with socket.socket() as listener:
    # As servers do: connections that are only waiting out their end don't count.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            another = port + 1 if port < 65535 else port - 1
            sys.exit(f"port {port} is in use; stop what listens there, or choose another: make demo PORT={another}")
        sys.exit(f"port {port} can't be used: {error.strerror}")
