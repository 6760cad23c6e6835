"""The cloud that machines come from."""
