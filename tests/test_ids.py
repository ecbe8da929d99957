"""Salts and salted ids, against a digest computed by hand."""

import hashlib
import os
import subprocess
import sys

import pytest

from nkjax import ids

SALT = bytes(range(32))


def test_an_id_is_the_hmac_of_the_name():
    # RFC 2104 written out.
    inner = bytes(b ^ 0x36 for b in SALT.ljust(64, b"\0"))
    outer = bytes(b ^ 0x5C for b in SALT.ljust(64, b"\0"))
    name = "sub/Jörg 1.jpg"
    digest = hashlib.sha256(
        outer + hashlib.sha256(inner + name.encode("utf-8")).digest()
    ).hexdigest()
    assert ids.salted_id(SALT, name) == digest[:16]
    assert ids.salted_id(bytes(32), name) != digest[:16]


def test_a_name_that_is_no_text_has_an_id_too():
    name = os.fsdecode(b"\xff\xfe.jpg")
    assert len(ids.salted_id(SALT, name)) == 16


def test_salts_come_back_from_a_file(tmp_path):
    path = tmp_path / "salt.txt"
    path.write_text(SALT.hex() + "\n")
    assert ids.read_salt(path) == SALT
    assert len(ids.make_salt()) == 32 and ids.make_salt() != ids.make_salt()


@pytest.mark.parametrize("text", [b"", b"0f" * 31, b"0F" * 32, b"0f" * 33, b"\xff" * 64, b"g" * 64])
def test_what_is_no_salt_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "salt.txt"
    path.write_bytes(text)
    with pytest.raises(ids.BadSalt) as error:
        ids.read_salt(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_salt_is_refused_in_one_line(tmp_path):
    with pytest.raises(ids.BadSalt, match="no salt file"):
        ids.read_salt(tmp_path / "none.txt")


def test_a_fingerprint_is_of_the_salt_and_is_no_id():
    assert ids.fingerprint(SALT) == ids.fingerprint(bytes(range(32)))
    assert ids.fingerprint(SALT) != ids.fingerprint(bytes(32))
    assert SALT.hex()[:16] not in ids.fingerprint(SALT)


def test_ids_need_nothing_but_python():
    code = "import sys; from nkjax import ids; print('jax' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
