"""How numbers are kept in the cache that the web processes share."""

from redis.exceptions import DataError


class IntegerSerializer:
    """Stores integers only. What is read from Redis is never unpickled: another program may have written it."""

    def dumps(self, value: int) -> int:
        """Raises TypeError for anything but an integer."""
        if type(value) is not int:
            raise TypeError(f"The shared cache stores integers, and this is {type(value).__name__}.")
        return value

    def loads(self, data: bytes) -> int:
        """Raises DataError when the stored bytes are not an integer."""
        try:
            return int(data)
        except ValueError:
            raise DataError(f"the shared cache holds {data[:40]!r} where an integer belongs") from None
