"""The endpoint: keys, and a gateway in front of the engine that answers."""
