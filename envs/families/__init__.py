"""Task families: each draws endless instances of one contract that two parts must share. One file per family."""
