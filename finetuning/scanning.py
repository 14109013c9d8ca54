"""Personal data and secrets in texts: found by their shape and check digits, masked by kind. Not a promise to find all.

Every pattern is bounded or consumes what it looks at, so a scan takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from finetuning.formats.examples import Example, example_texts, replace_texts


class FindingKind(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    IBAN = "iban"
    CARD = "card"
    IP = "ip"
    API_KEY = "api_key"
    TOKEN = "token"  # noqa: S105
    PASSWORD = "password"  # noqa: S105
    PRIVATE_KEY = "private_key"

    @property
    def is_secret(self) -> bool:
        return self in (self.API_KEY, self.TOKEN, self.PASSWORD, self.PRIVATE_KEY)

    @property
    def mask(self) -> str:
        return f"[{self.name}]"


@dataclass(frozen=True, slots=True)
class Finding:
    """Where something was found, in code points; never what."""

    kind: FindingKind
    start: int
    end: int


DIGITS = "0123456789"
Detector = Callable[[str], Iterator[Finding]]

IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK"), 20),
    **dict.fromkeys(("CH", "CR", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
}

_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w@])",
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,27}")
_CARD = re.compile(
    r"(?<![\d.])(?<!\d[ -])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?!\d)",
)
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_PHONE = re.compile(
    r"""(?<![\w.,+/-])(?:
        (?:\+|(?<!\d[ ])00)[1-9]\d{0,2}(?:[ ]?\(0?\d{1,4}\))?(?:[ ./-]{0,2}\d){6,12}      # international
      | \(\d{3}\)[ ]?\d{3}[-. ]\d{4} | \d{3}([-. ])\d{3}\1\d{4}                 # North America
      | (?<!\d[ ])\(?0[1-9]\d{1,4}\)?[ ]?[/ -][ ]?\d{2,}(?:[ -]?\d){3,9}   # national, with its trunk zero
    )(?![\w-]|[.,]\d)""",
    re.VERBOSE,
)
_API_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        sk-[A-Za-z0-9_-]{16,} | [rs]k_(?:live|test)_[A-Za-z0-9]{16,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9]) | AIza[A-Za-z0-9_-]{35}
    )""",
    re.VERBOSE,
)
_TOKEN = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        gh[pousr]_[A-Za-z0-9]{30,} | github_pat_[A-Za-z0-9_]{20,} | glpat-[A-Za-z0-9_-]{16,}
      | hf_[A-Za-z0-9]{30,} | npm_[A-Za-z0-9]{30,} | pypi-[A-Za-z0-9_-]{50,} | xox[abeoprs]-[A-Za-z0-9-]{10,}
      | (?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    )""",
    re.VERBOSE,
)
_BEARER = re.compile(r"(?<!\w)[Bb]earer[ ]{1,3}([A-Za-z0-9._~+/=-]{20,})")
_PASSWORD = re.compile(
    r"""(?<![A-Za-z0-9])(?:password|passwd|passwort|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token)
        ["']?[ \t]{0,3}[:=][ \t]{0,3}["']?([^\s"',;<>\[\]]{8,200})""",
    re.VERBOSE | re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"://[^\s/:@]{1,100}:([^\s/@]{1,200})@")
_KEY_START = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def scan(text: str) -> list[Finding]:
    """What was found, in order and without overlaps; where two claim a place, the one that begins earlier."""
    found = [finding for detector in DETECTORS for finding in detector(text)]
    found.sort(key=lambda finding: finding.start)  # stable: of two that begin together, the earlier detector's
    kept: list[Finding] = []
    for finding in found:
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def mask(text: str, findings: Iterable[Finding] | None = None) -> str:
    """The text with `[EMAIL]` and the like in the place of what was found."""
    parts, position = [], 0
    for finding in scan(text) if findings is None else findings:
        parts += [text[position : finding.start], finding.kind.mask]
        position = finding.end
    return "".join((*parts, text[position:]))


def scan_example(example: Example) -> Counter[FindingKind]:
    """How often each kind stands in an example's texts."""
    return Counter(finding.kind for text in example_texts(example) for finding in scan(text))


def mask_example(example: Example) -> Example:
    return replace_texts(example, [mask(text) for text in example_texts(example)])


def _by_pattern(
    kind: FindingKind,
    pattern: re.Pattern[str],
    *,
    needs: str = "",
    group: int = 0,
    check: Callable[[str], bool] | None = None,
) -> Detector:
    """A detector of what a pattern matches; texts with no character of `needs` are passed over at once."""

    def find(text: str) -> Iterator[Finding]:
        if needs and not any(character in text for character in needs):
            return
        for match in pattern.finditer(text):
            if check is None or check(match[group]):
                yield Finding(kind, *match.span(group))

    return find


def _find_ibans(text: str) -> Iterator[Finding]:
    """A match may run on into the next words; the country says how long the number is."""
    if not any(digit in text for digit in DIGITS):
        return
    for match in _IBAN.finditer(text):
        wanted = IBAN_LENGTHS.get(match[0][:2], 0)
        end = match.start()
        for character in match[0]:
            wanted -= character not in " -"
            end += 1
            if wanted <= 0:
                break
        if wanted == 0 and not text[end : end + 1].isalnum() and _has_iban_checksum(text[match.start() : end]):
            yield Finding(FindingKind.IBAN, match.start(), end)


def _has_iban_checksum(text: str) -> bool:
    plain = text.replace(" ", "").replace("-", "")
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_address(text: str) -> bool:
    """An address of somebody: not this machine's own, not nobody's."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _is_long_address(text: str) -> bool:
    """Three groups or more and a digit: `a::b` is also how programs name things."""
    groups = [group for group in text.split(":") if group]
    return len(groups) >= 3 and any(character.isdigit() for character in text) and _is_address(text)


def _looks_secret(text: str) -> bool:
    """A made-up value mixes letters and digits; a sentence after "password:" mostly does not."""
    return any(character.isdigit() for character in text) and any(character.isalpha() for character in text)


def _is_api_key(text: str) -> bool:
    return any(character.isdigit() or character.isupper() for character in text)


def _find_private_keys(text: str) -> Iterator[Finding]:
    """From BEGIN to END; a key without its END is masked to the end of the text."""
    start = _KEY_START.search(text)
    while start:
        end = _KEY_END.search(text, start.end())
        finish = end.end() if end else len(text)
        yield Finding(FindingKind.PRIVATE_KEY, start.start(), finish)
        start = _KEY_START.search(text, finish)


DETECTORS: tuple[Detector, ...] = (
    _find_private_keys,
    _by_pattern(FindingKind.API_KEY, _API_KEY, check=_is_api_key),
    _by_pattern(FindingKind.TOKEN, _TOKEN),
    _by_pattern(FindingKind.TOKEN, _BEARER, needs=DIGITS, group=1, check=_looks_secret),
    _by_pattern(FindingKind.PASSWORD, _PASSWORD, needs=":=", group=1, check=_looks_secret),
    _by_pattern(FindingKind.PASSWORD, _URL_PASSWORD, needs="@", group=1),
    _by_pattern(FindingKind.EMAIL, _EMAIL, needs="@"),
    _find_ibans,
    _by_pattern(FindingKind.CARD, _CARD, needs=DIGITS, check=_is_card),
    _by_pattern(FindingKind.IP, _IPV4, needs=DIGITS, check=_is_address),
    _by_pattern(FindingKind.IP, _IPV6, needs=":", check=_is_long_address),
    _by_pattern(FindingKind.PHONE, _PHONE, needs=DIGITS),
)
