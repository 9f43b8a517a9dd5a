"""WebSocket (RFC 6455, RFC 7692): bytes to messages and back."""
