"""Episodes played with policies."""
