"""One release against another: what the page, its file, its JSON and its command all show."""
