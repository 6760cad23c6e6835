"""What surrounds every request: limits, middleware, static files, error pages, health."""
