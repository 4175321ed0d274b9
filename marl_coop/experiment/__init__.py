"""One experiment from a configuration."""
