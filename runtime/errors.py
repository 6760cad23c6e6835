"""What can go wrong between a bot and the service. Every message says what happened and what to do; none holds a token."""


class ClientError(Exception):
    """The root of everything the runtime raises or reports as a `problem`."""


class Misconfigured(ClientError):
    """An address, token, key or folder that cannot be used: nothing was asked of the service yet."""


class UnknownCoin(ClientError):
    """A decision was asked for a coin that the bot, or the live release, does not carry: a mistake in the bot."""


class ServiceUnavailable(ClientError):
    """No usable answer: the network, a timeout, a 5xx, or a service that has no pointer yet."""


class NotAuthorised(ClientError):
    """The service did not accept the token."""


class NotTaken(ClientError):
    """The service understood what the bot reported, and does not take it: sending the same again is no use."""


class Superseded(ClientError):
    """A download was given up, since the pointer meanwhile names something else."""


class AnswerExpired(ClientError):
    """What came was signed too long ago: something keeps repeating an old answer, or a clock is wrong."""


class Refused(ClientError):
    """An answer that must not be followed; the set in use stays as it was."""


class EnvelopeRefused(Refused):
    """What came is not signed by a key that this bot trusts, or is no envelope at all."""


class StreamRefused(Refused):
    """What comes on the stream is no stream of events; the bot asks again and again instead."""


class SnapshotRefused(Refused):
    """The snapshot is not the document it should be."""


class RevisionRefused(Refused):
    """The snapshot's revision is lower than one seen before, or the same with other content."""


class FileRefused(Refused):
    """A downloaded file whose size or digest is not the announced one."""


class SetRefused(Refused):
    """A coin's bundle cannot be trusted or loaded, and with it the whole set."""


class CacheFailed(ClientError):
    """The cache folder could not be read or written."""
