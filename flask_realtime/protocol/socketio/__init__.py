"""Socket.IO 5: namespaces, events, acknowledgements and rooms over many connections."""
