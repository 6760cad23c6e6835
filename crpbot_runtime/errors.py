"""Errors between a bot and the service. Every message says what happened and what to do; none contains a token.

`ClientError` is the root of all; `Refused` is an answer that must not be followed. What is wrong with candles is a
`mlcore.errors.MlcoreError`. No method of a client raises anything else.
"""


class ClientError(Exception):
    """The root of everything that the client raises or reports as a `problem`."""


class Misconfigured(ClientError):
    """An invalid address, token, key or name. The service was not contacted."""


class UnknownCoin(ClientError):
    """The bot asked for a coin that it does not trade, or that its release does not carry: a mistake in the bot."""


class ServiceUnavailable(ClientError):
    """No usable answer: the network, a timeout, a 5xx, or a service that has no pointer yet."""


class NotAuthorised(ClientError):
    """The service did not accept the token."""


class ReportRejected(ClientError):
    """The service read a report and rejected it. Sending the same again would be useless."""


class RequestRejected(ClientError):
    """The service read a request and rejected it; the message holds its reason."""


class DownloadAborted(ClientError):
    """A download was aborted, because the pointer names another release by now."""


class UntimelySnapshot(ClientError):
    """By this machine's clock the snapshot is not of now. It may confirm what is in use, and never changes it."""


class SnapshotExpired(UntimelySnapshot):
    """The snapshot was signed too long ago: something repeats an old answer, or a clock is wrong."""


class SignedInFuture(UntimelySnapshot):
    """The snapshot was signed in the future: this machine's clock is behind, or the service's is ahead."""


class Refused(ClientError):
    """An answer that must not be followed. The models in use stay."""


class EnvelopeRefused(Refused):
    """The answer is not signed by a key that this bot trusts, or is no envelope."""


class SignerUnknown(EnvelopeRefused):
    """None of the keys that signed the envelope is trusted: another service, or its keys were changed."""


class KeysRefused(Refused):
    """A set of keys does not follow from the keys that this bot trusts. It goes on trusting those."""


class StreamRefused(Refused):
    """The answer is not a stream of events; the bot polls instead."""


class SnapshotRefused(Refused):
    """The snapshot is malformed, or lacks a coin that the bot trades."""


class RevisionRefused(Refused):
    """The snapshot's revision is lower than one seen before, or the same with other content."""


class FileRefused(Refused):
    """The size or digest of a downloaded file is not the announced one."""


class SetRefused(Refused):
    """A coin's bundle cannot be trusted or loaded, so the whole set is refused."""


class CacheFailed(ClientError):
    """The cache folder could not be read or written."""
