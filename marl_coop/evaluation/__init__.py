"""What is measured of finished episodes and runs."""
