"""The protocols. Nothing here waits: no thread, socket or clock; it is called, and calls what it was given."""
