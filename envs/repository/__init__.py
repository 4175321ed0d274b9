"""What playing on a git repository takes: the grammar of actions, working copies, merges, forecasts and verdicts."""
