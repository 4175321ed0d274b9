"""Who is compared in `benchmarks/peers.py`: one file each, a function that runs in a process of its own."""
