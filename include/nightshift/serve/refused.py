"""A request that is not answered, in OpenAI's shape: the closed list of codes, and what each is sent as.

The message never repeats a key, a text that was masked, a path, or what an engine said. `code` is one of these and
never the number of the status.
"""

from __future__ import annotations

import json
import math
from typing import Any

INVALID, AUTHENTICATION, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
RATE, CONFLICT, TIMEOUT = "rate_limit_error", "conflict_error", "timeout_error"
OVERLOADED, SERVER = "overloaded_error", "server_error"
# code → status and type
CODES = {
    "invalid_json": (400, INVALID),
    "duplicate_key": (400, INVALID),
    "non_finite_number": (400, INVALID),
    "invalid_unicode": (400, INVALID),
    "missing_field": (400, INVALID),
    "invalid_value": (400, INVALID),
    "unknown_parameter": (400, INVALID),
    "unsupported_parameter": (400, INVALID),
    "context_length_exceeded": (400, INVALID),
    "content_policy_violation": (400, INVALID),
    "bad_request": (400, INVALID),  # not HTTP
    "missing_api_key": (401, AUTHENTICATION),
    "invalid_api_key": (401, AUTHENTICATION),
    "insufficient_scope": (403, PERMISSION),
    "model_not_found": (404, INVALID),
    "not_found": (404, INVALID),
    "method_not_allowed": (405, INVALID),
    "request_timeout": (408, TIMEOUT),
    "deploy_frozen": (409, CONFLICT),
    "conflict": (409, CONFLICT),
    "request_too_large": (413, INVALID),
    "unsupported_media_type": (415, INVALID),
    "rate_limit_exceeded": (429, RATE),
    "concurrency_limit": (429, RATE),
    "headers_too_large": (431, INVALID),
    "internal_error": (500, SERVER),
    "engine_error": (502, SERVER),
    "server_overloaded": (503, OVERLOADED),
    "not_ready": (503, OVERLOADED),
    "draining": (503, OVERLOADED),
    "dependency_unavailable": (503, OVERLOADED),
    "engine_timeout": (504, SERVER),
}
AGAIN_S = 5  # what Retry-After says unless it is known better, seconds


class Refused(Exception):
    """A request that is not answered.

    Args:
        code: one of CODES.
        message: a sentence for the caller.
        param: the field that is meant.
        again_s: after how many seconds another try makes sense, where the status says that one does.
        headers: more of the response's headers.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        again_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.param = code, param
        self.status, self.type = CODES[code]
        self.headers = dict(headers or {})
        if self.status == 401:
            self.headers["www-authenticate"] = "Bearer"
        if self.status in (429, 503):
            self.headers["retry-after"] = str(max(1, math.ceil(again_s if again_s is not None else AGAIN_S)))

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return json.dumps(self.body).encode()
