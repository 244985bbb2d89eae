"""What the hub refuses, or fails to do, as one sentence: whom it concerns, what it answered, and what to do.

A request that can never succeed is an `InputError`: no such repository, no access. If the hub or the network fails, it is a
`WorkError`, because the same command can succeed later.
"""

from dataclasses import dataclass

from demur.core.errors import DemurError, InputError, WorkError

KEPT = "what has arrived is kept, and the same command goes on from there"
_LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


@dataclass(frozen=True)
class Asked:
    """What a request asks for, as messages name it.

    Attributes:
        host: the host that is asked, for example `huggingface.co`.
        repository: the repository, for example `owner/name`.
        page: the address of its page, where access is granted.
        file: the file in it; None for the list of its files.
        revision: the branch, tag or commit that was asked for; None for the default.
    """

    host: str
    repository: str
    page: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"the list of files of {self.repository!r}" if self.file is None else f"{self.file!r} of {self.repository!r}"


class Transient(Exception):
    """A failure after which the same request may succeed.

    Attributes:
        said: what happened, as a sentence goes on after the name of the host: "did not answer for 10 s".
        wait: how many seconds the hub asks to wait; None if it does not say.
    """

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.said, self.wait = said, wait


def given_up(asked: Asked, last: Transient, tries: int) -> WorkError:
    """The error after the last try."""
    times = "" if tries == 1 else f" ({tries} tries)"
    later = f"; it asks to wait {last.wait:.0f} s" if last.wait else ""
    return WorkError(f"{asked} could not be fetched: {asked.host} {last.said}{times}{later}; {KEPT}")


def refusal(asked: Asked, status: int, code: str, said: str) -> DemurError:
    """The error for an answer that repeating the request does not change.

    Args:
        asked: what was asked for.
        status: the HTTP status.
        code: the hub's own code, `X-Error-Code`; empty if the answer has none.
        said: the hub's own words, `X-Error-Message`; empty if the answer has none.
    """
    repository, host = asked.repository, asked.host
    if code == "GatedRepo":
        return InputError(
            f"{repository!r} is gated, and {'this account has no access' if status == 403 else 'nobody is logged in'}; ask "
            f"for access at {asked.page}, then {_LOG_IN}"
        )
    if code == "RevisionNotFound":
        return InputError(f"{repository!r} on {host} has no revision {asked.revision!r}; check its spelling at {asked.page}")
    if code == "EntryNotFound":
        return InputError(f"{host} holds no {asked.file!r} in {repository!r} although its list of files names it")
    if code == "RepoNotFound" or status == 404:
        return InputError(f"there is no {repository!r} on {host}, or it is private; check the spelling, or {_LOG_IN}")
    why = f" ({' '.join(said.split())[:160]})" if said else ""
    if status == 401:
        return InputError(
            f"{host} does not accept the login for {repository!r}{why}; log in with 'hf auth login' or set HF_TOKEN"
        )
    if status == 403:
        return InputError(f"{host} refuses access to {repository!r}{why}; see {asked.page}")
    return WorkError(f"{asked} could not be fetched: {host} answers with status {status}{why}; {KEPT}")
