"""What is really running: every bot against what it must run, and what its predictions look like."""
