"""Backups: the database's rows and the stored files as of one audit head, and how they come back."""
