"""The report: one release compared with another, for the page, its file, the API and the command."""
