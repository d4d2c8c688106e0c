"""Keys and signatures are ML-DSA-65, each for one purpose, and files of keys are private."""

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.identity import (
    AUTH_CONTEXT,
    CHALLENGE_CONTEXT,
    ENROLL_CONTEXT,
    RECEIPT_CONTEXT,
    UPDATE_CONTEXT,
    BadSignature,
    KeyUnreadable,
    SigningKey,
    fingerprint_of,
    require_algorithm,
    verify,
)

CONTEXTS = [ENROLL_CONTEXT, RECEIPT_CONTEXT, CHALLENGE_CONTEXT, AUTH_CONTEXT, UPDATE_CONTEXT]


@pytest.fixture(scope="module")
def key():
    return SigningKey.generate()


def test_a_signature_is_good_for_its_key_message_and_context(key):
    signature = key.sign(b"message", UPDATE_CONTEXT)

    verify(key.public_key, signature, b"message", UPDATE_CONTEXT)
    assert (len(key.public_key), len(signature)) == (1952, 3309)


@pytest.mark.parametrize("used", CONTEXTS)
@pytest.mark.parametrize("asked", CONTEXTS)
def test_a_signature_made_for_one_purpose_is_worth_nothing_for_another(key, used, asked):
    signature = key.sign(b"message", used)

    if used == asked:
        verify(key.public_key, signature, b"message", asked)
    else:
        with pytest.raises(BadSignature):
            verify(key.public_key, signature, b"message", asked)


def test_the_contexts_are_all_different():
    assert len(set(CONTEXTS)) == len(CONTEXTS)


@pytest.mark.parametrize("place", [0, 1000, 3308])
def test_one_flipped_bit_is_noticed(key, place):
    signature = bytearray(key.sign(b"message", AUTH_CONTEXT))
    signature[place] ^= 1

    with pytest.raises(BadSignature):
        verify(key.public_key, bytes(signature), b"message", AUTH_CONTEXT)


@pytest.mark.parametrize("public_key", [b"", b"short", b"\0" * 1952])
def test_what_is_no_key_verifies_nothing(key, public_key):
    with pytest.raises(BadSignature):
        verify(public_key, key.sign(b"message", AUTH_CONTEXT), b"message", AUTH_CONTEXT)


@pytest.mark.parametrize("signature", [b"", b"short", b"\0" * 3309])
def test_what_is_no_signature_is_refused(key, signature):
    with pytest.raises(BadSignature):
        verify(key.public_key, signature, b"message", AUTH_CONTEXT)


def test_the_same_message_is_never_signed_twice_the_same(key):
    assert key.sign(b"message", AUTH_CONTEXT) != key.sign(b"message", AUTH_CONTEXT)


def test_a_saved_key_comes_back_the_same(key, tmp_path):
    path = tmp_path / "folder" / "key.pem"

    key.save(path)
    loaded = SigningKey.load(path)

    assert loaded.public_key == key.public_key
    assert loaded.fingerprint == fingerprint_of(key.public_key)
    verify(key.public_key, loaded.sign(b"message", AUTH_CONTEXT), b"message", AUTH_CONTEXT)


def test_a_key_file_is_private_and_alone(key, tmp_path):
    key.save(tmp_path / "key.pem")

    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_a_key_file_is_never_replaced(key, tmp_path):
    path = tmp_path / "key.pem"
    key.save(path)

    with pytest.raises(FileExistsError):
        SigningKey.generate().save(path)

    assert SigningKey.load(path).public_key == key.public_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_file_open_to_others_is_not_read(key, tmp_path, mode):
    path = tmp_path / "key.pem"
    key.save(path)
    path.chmod(mode)

    with pytest.raises(KeyUnreadable, match="chmod 600"):
        SigningKey.load(path)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_file_is_named(tmp_path, content):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyUnreadable, match=r"key\.pem"):
        SigningKey.load(path)


def test_a_key_of_another_algorithm_is_refused(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)

    with pytest.raises(KeyUnreadable, match="not an ML-DSA-65 key"):
        SigningKey.load(path)


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(KeyUnreadable, match=r"key\.pem"):
        SigningKey.load(tmp_path / "key.pem")


def test_this_installation_has_the_algorithm():
    require_algorithm()
