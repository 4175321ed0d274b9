"""A team that needs a shared memory."""
