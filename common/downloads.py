"""Sending a file as a response, in chunks that do not block the event loop."""

from collections.abc import AsyncIterator
from typing import Protocol

from asgiref.sync import sync_to_async
from django.http import FileResponse

CHUNK_BYTES = 64 * 1024


class ByteStream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


class AsyncFileChunks:
    """An open file in chunks that do not block the event loop, closed at its end or with the response."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.close = stream.close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await sync_to_async(self.stream.read, thread_sensitive=False)(CHUNK_BYTES):
                yield chunk
        finally:
            self.stream.close()


def send_file(
    request: object, stream: ByteStream, *, size: int, name: str, content_type: str
) -> FileResponse:
    """A response that is saved as `name`. It closes the stream."""
    is_asgi = hasattr(request, "scope")
    response = FileResponse(AsyncFileChunks(stream) if is_asgi else stream, content_type=content_type)
    response["Content-Length"] = size
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
