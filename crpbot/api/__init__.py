"""The API as a whole: addresses, errors, filters, pagination, parsing, OpenAPI document."""
