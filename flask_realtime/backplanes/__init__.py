"""What waits for brokers."""
