"""What a person must be told without having asked."""
