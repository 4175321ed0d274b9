"""One frozen base with routed adapters."""
