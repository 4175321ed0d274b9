"""The reward terms, one file each."""
