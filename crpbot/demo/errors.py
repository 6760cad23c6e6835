class DemoFailed(Exception):
    """The demo cannot continue. The message says what happened, what to do, and which log to read."""


class Interrupted(BaseException):
    """A signal asked the demo to end."""
