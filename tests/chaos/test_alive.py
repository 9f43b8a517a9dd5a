"""The harness itself: a server that starts, answers and stops."""

from e2e.raw import WebSocket


def test_a_client_is_served(start, row):
    server = start()
    client = WebSocket(server)
    client.send("40")
    while not client.receive().startswith("40"):
        pass
    row(0, "a client is served", "yes")
    client.close()
