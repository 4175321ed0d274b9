"""CooperBench."""
