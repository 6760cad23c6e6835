"""What the stand-in images are built from."""
