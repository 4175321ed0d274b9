"""Python read as data: what was changed, by whom, and what it means."""
