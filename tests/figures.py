"""What the tests of the counters share."""


def flat(value, path=""):
    """Return nested numbers as one dict: ``{"handlers.calls": 3}``."""
    if not isinstance(value, dict):
        return {path: value}
    found = {}
    for key, inner in value.items():
        found.update(flat(inner, f"{path}.{key}" if path else key))
    return found
