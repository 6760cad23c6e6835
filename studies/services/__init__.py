"""What a person or program can ask of studies."""
