"""What several scripts of benchmarks/ share."""
