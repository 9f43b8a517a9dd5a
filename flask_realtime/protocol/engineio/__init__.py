"""Engine.IO 4: one connection, over polling, WebSocket, or from one to the other."""
