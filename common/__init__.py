"""Shared by all apps: errors, commands, API fields, forms, pages, formatting, plotting, read-only admin."""
