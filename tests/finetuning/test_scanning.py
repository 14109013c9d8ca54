from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.formats import ChatExample, ClassificationExample, Message, TextExample
from finetuning.scanning import FindingKind, mask, mask_example, scan, scan_example

# Put together here, so that no other scanner takes this file for a leak.
OPENAI = "sk-" + "proj-a8Kd73hZpQ0xLm2VbT9w"
GITHUB = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nAbc=\n-----END RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("<müller@bücher.example>, a@b.de", "<[EMAIL]>, [EMAIL]"),
        ("Call +49 (0)151 2345-6789 now", "Call [PHONE] now"),
        ("Call +1 415 555 2671, or 00442079460958.", "Call [PHONE], or [PHONE]."),
        ("(415) 555-2671 / 415-555-2671", "[PHONE] / [PHONE]"),
        ("Tel. 0151 23456789 oder 030/1234567", "Tel. [PHONE] oder [PHONE]"),
        ("IBAN DE89 3704 0044 0532 0130 00 THANKS", "IBAN [IBAN] THANKS"),
        ("GB82WEST12345698765432, NL91-ABNA-0417-1643-00", "[IBAN], [IBAN]"),
        ("Card 4111 1111 1111 1111 2025", "Card [CARD] 2025"),
        ("5500-0000-0000-0004; 378282246310005; 3782 822463 10005", "[CARD]; [CARD]; [CARD]"),
        ("from 192.168.1.17, 8.8.8.8.", "from [IP], [IP]."),
        ("at 2001:db8::ff00:42:8329 today", "at [IP] today"),
        (f"export KEY={OPENAI}", "export KEY=[API_KEY]"),
        (f"{AWS}\n{GITHUB}", "[API_KEY]\n[TOKEN]"),
        (f"Cookie: {JWT};", "Cookie: [TOKEN];"),
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer [TOKEN]"),
        ('{"password": "hunter2-and-more"}', '{"password": "[PASSWORD]"}'),
        ("postgres://app:s3cr3t@db.example:5432/x", "postgres://app:[PASSWORD]@db.example:5432/x"),
        (f"My key:\n{PEM}\nKeep it.", "My key:\n[PRIVATE_KEY]\nKeep it."),
        (PEM[:50], "[PRIVATE_KEY]"),
    ],
)
def test_what_is_private_is_masked(text, masked):
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Meet @alice at 10:30:45 on 2024-01-15, room 12.",
        "foo@bar and user@localhost and a@b.c1",
        "Order 4111 1111 1111 1112 is no card, 0000 0000 0000 0000 neither.",
        "pi is 3.14159265358979323846, e is 2.718281828459045",
        "0.123456789012345 and 1,000,000,000 and 12345678901234567890123",
        "Version 1.2.3, 300.1.1.1, 1.2.3.4.5 and 127.0.0.1 and ::1",
        "std::vector, a::b, Foo::Bar and de:ad",
        "DE89 3704 0044 0532 0130 01 has a wrong digit",
        "password: please choose something memorable",
        "The password must be long. secret = whatever",
        "sk-learn and sk-something-that-is-only-words-here",
        "1999-2004, 10-20-30, 1/2/2003",
        "https://example.org:8080/path@here",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_is_not_private_stays(text):
    assert scan(text) == []


def test_findings_say_where_not_what():
    text = "é a@b.de"
    (finding,) = scan(text)
    assert (finding.kind, text[finding.start : finding.end]) == (FindingKind.EMAIL, "a@b.de")
    assert not finding.kind.is_secret and FindingKind.API_KEY.is_secret


def test_every_text_of_an_example_is_scanned_and_masked():
    example = ChatExample((Message("user", "I am a@b.de"), Message("assistant", "Hello a@b.de, 8.8.8.8!", 0)))
    assert scan_example(example) == {FindingKind.EMAIL: 2, FindingKind.IP: 1}
    assert mask_example(example) == ChatExample(
        (Message("user", "I am [EMAIL]"), Message("assistant", "Hello [EMAIL], [IP]!", 0))
    )
    assert mask_example(ClassificationExample("a@b.de", "x")) == ClassificationExample("[EMAIL]", "x")
    assert scan_example(TextExample("plain")) == {}


pieces = st.sampled_from(
    [
        "a@b.de",
        "@",
        "+49 151 23456789",
        "DE89370400440532013000",
        "4111111111111111",
        "8.8.8.8",
        "2001:db8::1:2",
        OPENAI,
        GITHUB,
        JWT,
        PEM,
        "-----BEGIN PRIVATE KEY-----",
        "password=a1b2c3d4",
        " ",
        ".",
        "-",
        ":",
        "0",
        "1",
        "é",
        "[EMAIL]",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_findings_are_in_order_and_masking_leaves_the_rest(text):
    findings = scan(text)
    assert all(0 <= finding.start < finding.end <= len(text) for finding in findings)
    assert all(left.end <= right.start for left, right in pairwise(findings))
    masked = mask(text)
    for left, right in zip([None, *findings], [*findings, None], strict=True):
        assert text[left.end if left else 0 : right.start if right else None] in masked


UNITS = """a 1 @ a@ a. a.@ 1- 1. 1: +1 +49 0151- (0 - -----BEGIN DE89 A1 eyJ eyJa. eyJaaaaaaaa.eyJ
sk- sk_ ghp_ ://a: ://"""
REPEATED = [
    *UNITS.split(),
    "password:",
    "password: ",
    " ",
    "a:",
    "1 ",
    "1111 ",
    "Bearer ",
    "a@a.",
    "f:",
    "\n",
    PEM[:31],
    "-----END ",
    "é",
]


@pytest.mark.parametrize("unit", REPEATED)
def test_no_repetition_makes_a_scan_slow(unit):
    """A quadratic scan of a million characters would not end today."""
    text = unit * (1_000_000 // len(unit))
    assert len(mask(text + " a@b.de")) > 0
