"""Passwords: hashed by argon2id, and refused after the same time whoever does not exist."""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from chatrlhf.errors import BadInputError
from storage import accounts
from storage.database import Database
from storage.records import Person

SHORTEST = 10
LONGEST = 200
HASHER = PasswordHasher()  # RFC 9106's second choice: argon2id, 64 MiB, 3 passes
_AT_ONCE = threading.BoundedSemaphore(2)  # each takes 64 MiB
_nobody: list[str] = []  # a hash of no password, made once


def hash_password(password: str, name: str) -> str:
    """The hash of a new password, or BadInputError where it cannot be one.

    A length is all that is asked for, as NIST SP 800-63B-4 advises: rules about kinds of characters
    lead to passwords that are guessed sooner.
    """
    password = _normal(password)
    if len(password) < SHORTEST:
        raise BadInputError(
            f"the password has {len(password)} characters; take {SHORTEST} or more, such as four "
            "words that do not belong together"
        )
    if len(password) > LONGEST or "\x00" in password:
        raise BadInputError(f"a password has at most {LONGEST} characters, and no NUL among them")
    if password.casefold() == name.strip().casefold() or len(set(password)) < 4:
        raise BadInputError("the password would be guessed at once; take four words, for example")
    with _AT_ONCE:
        return HASHER.hash(password)


def matching_person(db: Database, name: str, password: str) -> Person | None:
    """The person whose name and password these are, or None. Renews hashes of old parameters."""
    found = accounts.find_login(db, name)
    stored = _hash_of_nobody() if found is None else found[1]
    if not _fits(stored, password) or found is None:
        return None
    person = found[0]
    _renew(db, person, stored, password)
    return person


def is_password_of(db: Database, person: Person, password: str) -> bool:
    """Whether this is the person's password."""
    stored = accounts.password_hash_of(db, person.id)
    return stored is not None and _fits(stored, password)


def _fits(stored: str, password: str) -> bool:
    if len(password) > LONGEST:
        return False
    with _AT_ONCE:
        try:
            return HASHER.verify(stored, _normal(password))
        except (VerificationError, InvalidHashError):
            return False


def _renew(db: Database, person: Person, stored: str, password: str) -> None:
    if HASHER.check_needs_rehash(stored):
        with _AT_ONCE:
            renewed = HASHER.hash(_normal(password))
        accounts.rehash_password(db, person.id, renewed)


def _hash_of_nobody() -> str:
    if not _nobody:
        _nobody.append(HASHER.hash("nobody has this password"))
    return _nobody[0]


def _normal(password: str) -> str:
    """One spelling of each character, because keyboards differ in what they send."""
    try:
        password.encode()
    except UnicodeEncodeError as error:
        raise BadInputError("the password has half of a character; type it again") from error
    return unicodedata.normalize("NFC", password)
