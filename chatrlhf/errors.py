"""The errors that reach people.

Every message says what happened, which value, and what to do next.

    ChatRLHFError
    |-- BadInputError            HTTP 422: the request can never work as sent
    |   |-- ContextOverflowError     the prompt does not fit the context
    |   `-- SettingsError            a setting has a value it cannot have
    |-- SignInError              HTTP 401: nobody is signed in, or by a wrong key
    |   `-- WrongPasswordError       the name or the password is wrong
    |-- ForbiddenError           HTTP 403: the person's role does not allow it
    |-- TooManyAttemptsError     HTTP 429: wrong passwords came too fast
    |-- NotFoundError            HTTP 404: no such conversation, turn, reply, version, round
    |-- ConflictError            HTTP 409: the stored state does not allow it
    |-- OverloadedError          HTTP 503: the queue is full
    |   `-- LoadingError             the model still loads, or could not be loaded
    |-- ModelError               a base model cannot be had or loaded
    |   |-- UnknownModelError        no such name in the catalog
    |   `-- NoSpaceError             the disk has no room for the model
    |-- VersionError             an adapter version is corrupt or does not fit the base
    |-- StorageError             the database cannot be opened, read or written
    |   `-- DataFolderBusyError      another server uses this data folder
    `-- RoundError               a training round cannot go on
        `-- RoundSkippedError        nothing to train on yet
"""

from __future__ import annotations


class ChatRLHFError(Exception):
    """Base of all errors whose message is written for a person.

    ``code`` is the stable word that API clients see; ``http_status`` the status they get.
    """

    code = "error"
    http_status = 500


class BadInputError(ChatRLHFError):
    """The request can never work as sent."""

    code = "bad_input"
    http_status = 422


class ContextOverflowError(BadInputError):
    """The prompt does not fit the context of the model."""

    code = "context_overflow"


class SettingsError(BadInputError):
    """A setting has a value it cannot have."""

    code = "bad_settings"


class SignInError(ChatRLHFError):
    """Nobody is signed in, or the session or key is no longer good."""

    code = "not_signed_in"
    http_status = 401


class WrongPasswordError(SignInError):
    """The name or the password is wrong."""

    code = "wrong_password"


class ForbiddenError(ChatRLHFError):
    """The role of the person does not allow the request."""

    code = "forbidden"
    http_status = 403


class TooManyAttemptsError(ChatRLHFError):
    """Wrong passwords came too fast; ``retry_after`` says when to try again, in seconds."""

    code = "too_many_attempts"
    http_status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFoundError(ChatRLHFError):
    """There is no such row."""

    code = "not_found"
    http_status = 404


class ConflictError(ChatRLHFError):
    """The stored state does not allow the request."""

    code = "conflict"
    http_status = 409


class OverloadedError(ChatRLHFError):
    """The engine cannot take the request now; the same request may work later."""

    code = "overloaded"
    http_status = 503


class LoadingError(OverloadedError):
    """The model still loads, or could not be loaded."""

    code = "loading"


class ModelError(ChatRLHFError):
    """A base model cannot be had or loaded."""

    code = "model"


class UnknownModelError(ModelError):
    """The catalog has no such model."""

    code = "unknown_model"


class NoSpaceError(ModelError):
    """The disk has no room for the model."""

    code = "no_space"


class VersionError(ChatRLHFError):
    """An adapter version is corrupt or does not fit the base."""

    code = "bad_version"
    http_status = 409


class StorageError(ChatRLHFError):
    """The database cannot be opened, read or written."""

    code = "storage"


class DataFolderBusyError(StorageError):
    """Another server uses this data folder."""

    code = "data_folder_busy"


class RoundError(ChatRLHFError):
    """A training round cannot go on."""

    code = "round"


class RoundSkippedError(RoundError):
    """There is nothing to train on yet."""

    code = "round_skipped"
