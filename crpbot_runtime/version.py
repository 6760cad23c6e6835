"""The version of the client, as bots tell it the service and as its wheel carries it."""

VERSION = "0.1.0"
