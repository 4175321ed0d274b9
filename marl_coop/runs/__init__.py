"""What runs leave on disk: their folders, and the records in them. Loads no torch."""
