"""Ids that do not give away what they stand for: salted hashes of names.

File names and subject ids may name patients, so outputs call pictures and children by these.
"""

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path


class BadSalt(ValueError):
    """A salt file that cannot be used; the message is one line with file, rule and remedy."""


def read_salt(path) -> bytes:
    """Read the salt, 32 bytes, that an earlier run wrote; raises BadSalt."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise BadSalt(f"{path}: no salt file ({' '.join(str(error).split())})") from None
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise BadSalt(f"{path}: a salt is 64 hex digits; give private/salt.txt of another run")
    return bytes.fromhex(text)


def make_salt() -> bytes:
    """Make a salt that nobody can guess, 32 bytes."""
    return secrets.token_bytes(32)


def tidy(name: str) -> str:
    """Return an id in its one spelling: NFC, single blanks, no character that cannot be seen."""
    seen = "".join(c for c in name if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def salted_id(salt: bytes, name: str) -> str:
    """Return the id of a name: 16 hex digits that do not give it away."""
    return hmac.new(salt, os.fsencode(name), hashlib.sha256).hexdigest()[:16]


def fingerprint(salt: bytes) -> str:
    """Return 16 hex digits by which a salt is known again, without telling it."""
    return hmac.new(salt, b"nkjax salt", hashlib.sha256).hexdigest()[:16]
