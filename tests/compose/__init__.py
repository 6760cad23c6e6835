"""`make compose-trial`: docker-compose.yml and the Dockerfile, really run by a private container engine."""
