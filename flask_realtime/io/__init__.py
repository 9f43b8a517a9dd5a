"""What waits for clients: sockets, threads, loops. Nothing here knows a packet type of Engine.IO or Socket.IO."""
