"""Who plays without a model: partners, demonstrators and the exploits that no reward may prefer."""
