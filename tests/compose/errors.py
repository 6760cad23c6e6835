"""What can end the trial."""


class TrialFailed(Exception):
    """The trial cannot continue, or saw what must not be."""
