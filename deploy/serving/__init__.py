"""What bots get and how they verify it: snapshot, signature, keys, and the log of the highest signed revision."""
