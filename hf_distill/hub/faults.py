"""Why the Hub could not be written to, in a few words.

Knows: the errors of the Hub's client. Does not know: what was to be written.
"""

from __future__ import annotations

from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

FAULTS = (HTTPError, LocalTokenNotFoundError, ConnectionError, TimeoutError)


def fault(error: BaseException | None) -> BaseException | None:
    """Find why the Hub could not be written to, in an error or in what caused it; None: another kind of error.

    Args:
        error: any.

    Example:
        >>> fault(ConnectionError("no route")), fault(ValueError("a bug"))
        (ConnectionError('no route'), None)
    """
    while error is not None and not isinstance(error, FAULTS):
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """Say in a few words what the Hub answered.

    Args:
        error: as ``fault`` finds it.

    Example:
        >>> reason(ConnectionError("no route"))
        'no route'
    """
    if isinstance(error, HfHubHTTPError):
        said = " ".join((error.server_message or error.response.reason_phrase or "").split()).rstrip(".")
        return f"the Hub answered {error.response.status_code}: {said}" if said else f"{error.response.status_code}"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
