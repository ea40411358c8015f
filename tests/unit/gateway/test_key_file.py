"""The file of API keys: what it says, and what is refused without showing a key."""

from hashlib import sha256

import pytest

from gateway.auth import KnownKey
from gateway.config import ConfigError, read_settings
from gateway.key_file import KeyFileError, known_keys
from gateway.limits import Quota
from gateway.setting_kinds import Secret
from gateway.settings import Settings

SECRET = "sk-never-shown"
DIGEST = sha256(b"sk-digest").hexdigest()


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "keys.yaml"
        path.write_text(text)
        return path

    return write


def test_a_key_has_what_the_file_gives_it_and_else_what_all_have(file):
    """By key or by digest, with weights and limits; 0 lifts a limit that others have."""
    path = file(
        f"""
keys:
  - {{name: chat, key: {SECRET}, weight: 2}}
  - {{name: batch, digest: {DIGEST}, weight: 0.5, tokens_per_minute: 9, max_concurrent: 8}}
  - {{name: free, digest: "sha256:{"Ab" * 32}", max_concurrent: 0, prompt_group: team-1}}
"""
    )
    settings = Settings(
        api_key=(Secret("sk-flat"),), api_key_file=path, key_tokens_per_minute=600,
        key_max_concurrent=3,
    )  # fmt: skip
    assert known_keys(settings) == (
        KnownKey(sha256(b"sk-flat").digest(), "", 1.0, Quota(600, 3)),
        KnownKey(sha256(SECRET.encode()).digest(), "chat", 2.0, Quota(600, 3)),
        KnownKey(bytes.fromhex(DIGEST), "batch", 0.5, Quota(9, 8)),
        KnownKey(bytes.fromhex("ab" * 32), "free", 1.0, Quota(600, 0), "team-1"),
    )


def test_json_is_read_as_well(file):
    """Which YAML is."""
    path = file('{"keys": [{"name": "a", "key": "sk-a"}]}')
    (key,) = known_keys(Settings(api_key_file=path))
    assert key == KnownKey(sha256(b"sk-a").digest(), "a")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "list"),
        ("keys: []", "list"),
        (f"keys: {SECRET}", "list"),
        ("keys: [{name: a, key: b}]\nmore: 1", "list"),
        (f"keys: [{SECRET}", "not valid YAML"),
        (f"keys: [{SECRET}]", "key 1 must hold"),
        (f"keys: [{{key: {SECRET}}}]", "key 1 needs a name"),
        (f"keys: [{{name: 'a b', key: {SECRET}}}]", "key 1 needs a name"),
        (f"keys: [{{name: a, key: {SECRET}, wait: 1}}]", "unknown fields: wait"),
        (f"keys: [{{name: a, key: {SECRET}, weight: 0}}]", "weight"),
        (f"keys: [{{name: a, key: {SECRET}, weight: true}}]", "weight"),
        (f"keys: [{{name: a, key: {SECRET}, weight: .nan}}]", "weight"),
        (f"keys: [{{name: a, key: {SECRET}, max_concurrent: -1}}]", "max_concurrent"),
        (f"keys: [{{name: a, key: {SECRET}, tokens_per_minute: 1.5}}]", "tokens_per_minute"),
        (f"keys: [{{name: a, key: {SECRET}, tokens_per_minute: yes}}]", "tokens_per_minute"),
        (f"keys: [{{name: a, key: {SECRET}, prompt_group: 7}}]", "prompt_group"),
        (f"keys: [{{name: a, key: {SECRET}, prompt_group: 'a b'}}]", "prompt_group"),
        (f"keys: [{{name: a, key: {SECRET}, prompt_group: ''}}]", "prompt_group"),
        (f"keys: [{{name: a, key: {SECRET}, prompt_group: null}}]", "prompt_group"),
        ("keys: [{name: a}]", "either"),
        ("keys: [{name: a, key: 123}]", "either"),
        ("keys: [{name: a, key: ''}]", "either"),
        ("keys: [{name: a, digest: abc}]", "either"),
        (f"keys: [{{name: a, key: {SECRET}, digest: {DIGEST}}}]", "either"),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: a, key: other}}]", "the same name"),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: b, key: {SECRET}}}]", "given twice"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(file, text, told):
    """By the place of the entry; no message has a key in it."""
    path = file(text)
    with pytest.raises(KeyFileError, match=told) as refused:
        known_keys(Settings(api_key_file=path))
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigError, match="--api-key-file"):
        read_settings({"api_key_file": str(path)}, environ={})


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """A typing mistake is not a server without keys."""
    with pytest.raises(ConfigError, match="cannot read"):
        read_settings({"api_key_file": str(tmp_path / "none.yaml")}, environ={})


def test_a_file_of_keys_is_keys(file):
    """A server that has one may listen beyond this machine, and be called from any page."""
    path = file("keys: [{name: a, key: sk-a}]")
    flags = {"api_key_file": str(path), "host": "0.0.0.0", "cors_origin": ["*"]}
    assert read_settings(flags, environ={}).api_key_file == path
