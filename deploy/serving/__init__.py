"""What a bot is told and why it can believe it: snapshot, signature, keys, and the highest revision ever signed."""
