"""Secrets do not get into prompts, the database or pages; what is none stays."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.repo.secrets import Finding, without_secrets

# Made here from pieces, so that no scanner takes this file for a leak.
RANDOM = "q7Zt2Lx9" + "Wm4Kc8Vb" + "N3pR6sDf" + "H5jY1uTe" + "G0aQoXiE"
GITHUB = "gh" + "p_" + RANDOM[:36]
AWS = "AK" + "IA" + "QWERTZU7IOPASDF2"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
END = "-----END RSA " + "PRIVATE KEY-----"

SECRETS = [
    (f'token = "{GITHUB}"', GITHUB, "GitHub Token"),
    (f"export GH_TOKEN={GITHUB}", GITHUB, "GitHub Token"),
    (f"// used to be {GITHUB}, now gone", GITHUB, "GitHub Token"),
    (f"aws_access_key_id = {AWS}", AWS, "AWS Access Key"),
    (f'aws_secret_key: "{RANDOM}"', RANDOM, "AWS Access Key"),
    (f'url = "postgres://app:{RANDOM[:12]}@db.internal/rows"', RANDOM[:12], "Basic Auth Credentials"),
    ('const stripe = "sk_' + f'live_{RANDOM[:24]}";', "sk_" + f"live_{RANDOM[:24]}", "Stripe Access Key"),
    (f'password = "{RANDOM[:10]}!"', RANDOM[:10] + "!", "Secret Keyword"),
    (f"'db_password' => '{RANDOM[:16]}',", RANDOM[:16], "Secret Keyword"),
    (f'String apiKey = "{RANDOM[:32]}";', RANDOM[:32], "Secret Keyword"),
    (f'  client_secret: "{RANDOM[:20]}"', RANDOM[:20], "Secret Keyword"),
    (f'api_key: str = "{RANDOM[:20]}"', RANDOM[:20], "Secret Keyword"),
    (f'set_password("{RANDOM[:20]}")', RANDOM[:20], "Secret Keyword"),
]


@pytest.mark.parametrize(("line", "value", "kind"), SECRETS)
def test_a_secret_is_replaced_by_as_many_bytes(line, value, kind):
    source = f"# Größe\n{line}\nx = 1\n".encode()
    cleaned, findings = without_secrets(source)
    assert value.encode() not in cleaned
    assert len(cleaned) == len(source)
    assert (2, kind) in findings
    assert cleaned.replace(b"SECRET_REMOVED"[: len(value)].ljust(len(value), b"_"), value.encode()) == source


@pytest.mark.parametrize(
    "template", ["{0}\n{1}\n{2}\n{3}\n", 'KEY = """{0}\n{1}\n{2}\n{3}"""\n', 'k = "{0}\\n{1}\\n{2}\\n{3}";\n']
)
def test_the_lines_of_a_private_key_are_replaced(template):
    body = RANDOM[:32], RANDOM[5:37]
    source = ("import x\n" + template.format(KEY, *body, END) + "y = 2\n").encode()
    cleaned, findings = without_secrets(source)
    assert not any(line.encode() in cleaned for line in body)
    assert (len(cleaned), cleaned.count(b"\n")) == (len(source), source.count(b"\n"))
    assert [one.kind for one in findings] == ["Private Key"]


@pytest.mark.parametrize(
    "line",
    [
        'tokenizer = load("company/model-v2.1-chat")',
        'password = "your password here"',
        'password = os.environ["APP_PASSWORD_2"]',
        "password = get_password(user_1)",
        'token = "{user_token_1}"',
        'secret = "${SECRET_1_VALUE}"',
        'TOKEN_TYPE = "urn:ietf:params:oauth:token-type:jwt"',
        'ACCESS_TOKEN_URL = "https://example.org/oauth2/token"',
        'AWS = "AKIAIOSFODNN7EXAMPLE"',
        'postgres = "postgres://user:password@localhost/db"',
        'postgres = "postgres://{user}:{password}@{host}/db"',
        'sha = "da39a3ee5e6b4b0d3255bfef95601890afd80709"',
        'secret_id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"',
        'KEYWORD_TOKENS = ["class1", "function2"]',
        'token_kind = "identifier_2"',
        'NAMES = ["CU_P2P_TOKENS", "hipPointerAttributeP2pTokens"]',
        "eye = eyJust.a.name",
    ],
)
def test_what_is_no_secret_stays(line):
    assert without_secrets(f"{line}\n".encode()) == (f"{line}\n".encode(), ())


def test_what_is_found_names_line_and_kind_and_no_value():
    source = "\n".join(line for line, _, _ in SECRETS).encode()
    _, findings = without_secrets(source)
    assert findings == tuple(Finding(number, kind) for number, (_, _, kind) in enumerate(SECRETS, 1))
    assert not any(value in repr(findings) for _, value, _ in SECRETS)


def test_looking_opens_no_socket():
    """Importing a client of HTTP binds one, and the library that knows the formats imports such a client."""
    program = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: sys.exit(event) if event.startswith('socket') else None)\n"
        "from rotary_batch.repo.secrets import without_secrets\n"
        "assert without_secrets(sys.stdin.buffer.read())[1]\n"
        "assert 'requests' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=f'token = "{GITHUB}"'.encode(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_long_line_is_looked_at_around_the_words():
    source = ("x" * 100_000 + f' token="{GITHUB}" ' + "y" * 100_000 + f' password="{RANDOM[:16]}"').encode()
    cleaned, findings = without_secrets(source)
    assert GITHUB.encode() not in cleaned
    assert RANDOM[:16].encode() not in cleaned
    assert {one.kind for one in findings} == {"GitHub Token", "Secret Keyword"}


@given(st.binary(max_size=300), st.sampled_from(SECRETS), st.binary(max_size=300))
def test_any_bytes_keep_their_size_and_a_second_look_finds_nothing(before, secret, after):
    source = before + b"\n" + secret[0].encode() + b"\n" + after
    cleaned, _ = without_secrets(source)
    assert len(cleaned) == len(source)
    assert secret[1].encode() not in cleaned
    assert without_secrets(cleaned) == (cleaned, ())
