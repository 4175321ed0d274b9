"""Arms to compare with, not to use: the obvious bonuses and approval."""
