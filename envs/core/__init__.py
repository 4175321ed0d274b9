"""What every environment is: tasks, records, phases, the grammar of replies, who is right and who knows it."""
