"""What a run gives to others: its episodes as a data set, and its adapters with their cards."""
