"""The OpenAPI document: the errors that every operation can answer."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin

from common.api_fields import NOT_BLANK
from crpbot.api.problems import CONTENT_TYPE, build_document

# status: (meaning, an example of `detail`)
MEANINGS = {
    400: ("The request is wrong; `errors` names the fields.", "reason: This field may not be blank."),
    401: (
        "No token or session, or one that is unknown, expired or revoked.",
        "This token is unknown, expired or revoked. Ask an administrator for another.",
    ),
    403: (
        "It needs another role or scope; or, for a signed-in person, the CSRF token.",
        "victor may not approve a release: that needs the approver role (held: viewer).",
    ),
    404: ("The object does not exist.", "There is no release 99."),
    409: (
        "The request is valid, but not in the current state.",
        "The pointer moved since you looked: you saw revision 7, it is 8 (odd predictions). Look again.",
    ),
    411: (
        "The body was sent without its length.",
        "Send the body with a Content-Length; a chunked one is not read.",
    ),
    413: (
        "The body is larger than allowed.",
        "A request here may have 262,144 bytes, and this one has 300,000.",
    ),
    415: ("The body has an unsupported type.", 'Unsupported media type "text/plain" in request.'),
    429: (
        "Too many requests of this kind, or too many refused ones from this address; retry after `Retry-After`"
        " seconds.",
        "Too many requests: try again in 17 seconds, and less often.",
    ),
    503: (
        "The service cannot answer now; retry after `Retry-After` seconds.",
        "There is no pointer yet. An approver must inherit the release the bot runs today.",
    ),
}


class Problem(serializers.Serializer[Any]):
    """An error (RFC 9457)."""

    type = serializers.CharField(help_text="`about:blank`: the status gives the kind.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened and what to do, for a person.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="The errors of each field.",
    )


class ProblemSchema(AutoSchema):
    """Adds the errors to every operation.

    A view sets `can_conflict` when its POST or PATCH depends on the state, `reads_query` when it is not a list but takes
    query parameters, and `names_object` when its body names what may not exist.
    """

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for status in sorted(self._list_statuses()):
            answer = OpenApiResponse(Problem, MEANINGS[status][0], [_example(status)])
            bodies[str(status)] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                answer, str(status), [CONTENT_TYPE], direction
            )
        return bodies

    def _get_parameters(self) -> list[dict[str, Any]]:
        """Query parameters must not be empty."""
        parameters: list[dict[str, Any]] = super()._get_parameters()
        for parameter in parameters:
            if parameter["in"] == "query" and parameter["schema"] == {"type": "string"}:
                parameter["schema"] = NOT_BLANK
            elif parameter["schema"].get("type") == "array":
                parameter["schema"] = {**parameter["schema"], "minItems": 1}
        return parameters

    def get_summary(self) -> str | None:
        """The first sentence of the description."""
        first, _, _ = (self.get_description() or "").replace("\n", " ").partition(". ")
        return first.rstrip(".") or None

    def _list_statuses(self) -> set[int]:
        is_writing = self.method in ("POST", "PATCH")
        writes = {400, 411, 413, 415} if is_writing else set()
        reads_query = isinstance(self.view, ListModelMixin) or getattr(self.view, "reads_query", False)
        lists = {400} if reads_query else set()
        names_object = "{" in self.path or getattr(self.view, "names_object", False)
        details = {404} if names_object else set()
        conflicts = {409} if is_writing and getattr(self.view, "can_conflict", False) else set()
        return {401, 403, 429, 503, *writes, *lists, *details, *conflicts}


def _example(status: int) -> OpenApiExample:
    field = {"errors": {"reason": ["This field may not be blank."]}} if status == 400 else {}
    return OpenApiExample(f"{status}", {**build_document(status, MEANINGS[status][1]), **field})
