"""``python -m example_app``: serve the example app and say what to open."""

import argparse
import os
import socket
import sys

from . import MissingBundle, create_app, socketio


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m example_app", description="The example app of flask_realtime.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT", "5000"),
        help="port to listen on (default: the variable PORT, or 5000)",
    )
    parser.add_argument("--debug", action="store_true", help="reload when a file changes, show errors in the browser")
    return parser.parse_args(arguments)


def why_not(host: str, port: int) -> str | None:
    """Say in plain words why a server can't listen there, or return None when it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # as servers do: a connection that is just closing is no obstacle
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return f"Cannot listen on {host} port {port}: {reason}. Choose another one with --port."
    return None


def main() -> int:
    """Run the app until Ctrl-C.

    Returns:
        The exit status: 0 after Ctrl-C, 1 when the app could not start.
    """
    options = parse()
    try:
        app = create_app()
    except MissingBundle as error:
        print(error, file=sys.stderr)
        return 1
    # The reloader starts this program a second time, with the listening socket already open.
    if os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        problem = why_not(options.host, options.port)
        if problem:
            print(problem, file=sys.stderr)
            return 1
        host = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
        host = f"[{host}]" if ":" in host else host
        print(f"Open http://{host}:{options.port} in two browser windows.", flush=True)
    socketio.run(app, host=options.host, port=options.port, debug=options.debug, allow_unsafe_werkzeug=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
