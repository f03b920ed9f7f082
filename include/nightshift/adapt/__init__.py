"""Make something of the chosen base: an index beside it, a prompt before it, an adapter inside it; then a system."""
