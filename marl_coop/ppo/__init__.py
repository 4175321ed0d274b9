"""Multi-agent PPO."""
