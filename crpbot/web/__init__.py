"""Common to every request: size limits, middleware, static files, error pages, health."""
