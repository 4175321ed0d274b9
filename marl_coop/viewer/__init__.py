"""A run for the eye: one HTML file with its JSON twin, and an episode in the terminal. Loads no torch."""
