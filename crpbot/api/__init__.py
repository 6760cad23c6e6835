"""The API as a whole: urls, errors, filters, pages, parsing, its OpenAPI document."""
