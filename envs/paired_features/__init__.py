"""Two features of one generated package."""
