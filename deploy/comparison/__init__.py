"""One release against another: what the report's page, its file, its JSON and its command all show."""
