"""Parallel sentences from the Unicode CLDR: one language-independent plan, realised in any locale.

A plan is a template and the codes and numbers that fill it: ``("measure", "PK", 361, "length-centimeter", "SA")``. Its
text comes from CLDR names (`babel`) and spelled-out numbers (`num2words`, else CLDR's own rules in `unicode-rbnf`), so
the same plan is the same sentence in every language and no text corpus has to be shipped.

Every name used exists in every supported locale, in that locale's script: what one locale lacks is dropped for all,
since a missing CLDR name falls back to English without notice and would break parallelism.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from babel import Locale

from cltmlib.errors import InputError

Plan = tuple[str | int, ...]
TEMPLATES = ("measure", "two_measures", "price", "journey", "languages", "meeting", "date")
COUNTS = ("count",)  # a domain that small recognisers can learn: a number below 100 and a unit, 1274 sentences

# Named by hand, not all of CLDR: whole, everyday units that can be counted and are spoken without symbols.
UNITS = (
    "length-kilometer length-meter length-centimeter mass-kilogram mass-gram volume-liter duration-minute "
    "duration-hour duration-day duration-week duration-month duration-year duration-second"
).split()
CURRENCIES = "USD EUR GBP JPY RUB CNY INR BRL CHF TRY MXN CAD AUD KRW SEK".split()


@dataclass(frozen=True)
class Voice:
    """How one language is written and spoken.

    Attributes:
        locale: CLDR locale of its names.
        espeak: eSpeak NG voice.
        numbers: language of `num2words`, or None where only `unicode-rbnf` spells its numbers.
    """

    locale: str
    espeak: str
    numbers: str | None


def _same(code: str, numbers: bool = True) -> Voice:
    return Voice(code, code, code if numbers else None)


# Languages with an eSpeak NG voice of their own, complete CLDR names and spelled-out numbers, measured clean.
VOICES: dict[str, Voice] = {
    **{code: _same(code) for code in "ar ca cs cy de eo es fa hu id it lt lv nl pl pt ro ru sk sl tr uk".split()},
    **{code: _same(code, numbers=False) for code in "el et hi ka ky sw ta".split()},
    "bn": _same("bn"),
    "en": Voice("en", "en-us", "en"),
    "fr": Voice("fr", "fr", "fr"),
    "hy-AM": Voice("hy", "hy", None),
    "ja": Voice("ja", "ja", "ja"),
    "ko": _same("ko"),
    "sv-SE": Voice("sv", "sv", "sv"),
    "zh-CN": Voice("zh_Hans", "cmn", None),
}


def voice(language: str) -> Voice:
    """The voice of ``language``.

    Raises:
        InputError: the synthetic corpus does not speak it.
    """
    if language not in VOICES:
        raise InputError(
            f"The synthetic corpus does not speak {language!r}; choose among {', '.join(sorted(VOICES))}, "
            "or use corpus common_voice."
        )
    return VOICES[language]


def spell(number: int, language: str) -> str:
    """``number`` in words of ``language``: ``spell(361, "de")`` is ``"dreihunderteinundsechzig"``."""
    numbers = voice(language).numbers
    if numbers is not None:
        from num2words import num2words

        text = num2words(number, lang=numbers)
    else:
        text = _rbnf(voice(language).locale.partition("_")[0]).format_number(number).text
    return text.replace("\u00ad", "").replace(",", "")  # CLDR puts soft hyphens into long number words


@functools.cache
def _rbnf(language: str):
    from unicode_rbnf import RbnfEngine

    return RbnfEngine.for_language(language)


@functools.cache
def _locale(language: str) -> Locale:
    return Locale.parse(voice(language).locale)


def _unit_pattern(locale: Locale, unit: str, number: int) -> str:
    """CLDR pattern such as ``"{0} Kilometer"``, long where there is one.

    Babel 2.18's ``format_unit`` returns raw ids ("5 duration-minute") where a locale's long form is an alias.
    """
    patterns = locale._data["unit_patterns"].get(unit, {})
    plural = locale.plural_form(number)
    for length in ("long", "short", "narrow"):
        form = patterns.get(length) or {}
        pattern = form.get(plural) or form.get("other")
        if pattern:
            return pattern
    raise KeyError(f"{locale} has no CLDR pattern for {unit}")


def _names(locale: Locale, kind: str) -> dict:
    return {
        "territory": locale.territories,
        "language": locale.languages,
        "currency": locale.currencies,
        # "format" forms: babel's "stand-alone" ones depend on which locale was used first.
        "month": locale.months["format"]["wide"],
        "weekday": locale.days["format"]["wide"],
    }[kind]


def _speakable(text: str, locale: Locale) -> bool:
    """Words only, and in the locale's own script: eSpeak hands Latin words inside other scripts to an English voice."""
    latin_script = "LATIN" in unicodedata.name(_names(locale, "weekday")[0][0])
    for character in text:
        if character.isspace() or character in "-'’·\u200c" or unicodedata.category(character)[0] == "M":
            continue
        if character.isdigit():
            continue  # realise() spells digits
        if not character.isalpha() or (not latin_script and "LATIN" in unicodedata.name(character, "")):
            return False
    return True


@functools.cache
def inventory() -> dict[str, tuple[str, ...]]:
    """Codes whose names every supported locale has in its own script: kind -> sorted codes."""
    codes = {
        "territory": [
            c for c in _locale("en").territories if len(c) == 2 and c.isalpha() and c not in ("ZZ", "XA", "XB")
        ],
        "language": [c for c in _locale("en").languages if len(c) == 2],
        "currency": list(CURRENCIES),
        "unit": list(UNITS),
    }
    for language in VOICES:
        locale = _locale(language)
        for kind, kept in codes.items():
            codes[kind] = [code for code in kept if _has(locale, kind, code)]
    return {kind: tuple(sorted(kept)) for kind, kept in codes.items()}


def _has(locale: Locale, kind: str, code: str) -> bool:
    if kind == "unit":
        try:
            return all(
                _speakable(_unit_pattern(locale, code, n).replace("{0}", ""), locale) for n in (1, 2, 5, 21, 100)
            )
        except KeyError:
            return False
    name = _names(locale, kind).get(code)
    return bool(name) and len(name) <= 24 and _speakable(name, locale)


def draw_plan(rng, split: str | None = None, templates: Sequence[str] = TEMPLATES) -> Plan:
    """Draw one plan of these ``templates`` with numpy generator ``rng``; with ``split``, one that belongs to it.

    A plan belongs to exactly one split (by its hash: 80 % train, 10 % dev, 10 % test), so test sentences are unseen.
    """
    while True:
        plan = _draw(rng, templates)
        if split is None or plan_split(plan) == split:
            return plan


def _draw(rng, templates: Sequence[str]) -> Plan:
    codes = inventory()

    def pick(kind: str) -> str:
        return str(codes[kind][rng.integers(len(codes[kind]))])

    def number(high: int = 1000) -> int:
        return int(rng.integers(2, high))

    template = templates[rng.integers(len(templates))]
    body: tuple[str | int, ...] = {
        "measure": lambda: (pick("territory"), number(), pick("unit")),
        "count": lambda: (number(100), pick("unit")),
        "two_measures": lambda: (number(100), pick("unit"), number(100), pick("unit")),
        "price": lambda: (number(), pick("currency"), pick("territory")),
        "journey": lambda: (int(rng.integers(7)), number(), "length-kilometer", number(60), "duration-minute"),
        "languages": lambda: (pick("language"), pick("language"), pick("language")),
        "meeting": lambda: (int(rng.integers(7)), pick("language"), pick("territory")),
        "date": lambda: (int(rng.integers(1, 29)), int(rng.integers(1, 13)), pick("territory")),
    }[template]()
    return (template, *body)


def plan_id(plan: Plan) -> str:
    """Identifier of a plan, the same in every language (``sentence_id`` of the corpus)."""
    return hashlib.blake2b("|".join(map(str, plan)).encode(), digest_size=8).hexdigest()


def plan_split(plan: Plan) -> str:
    """The split a plan belongs to."""
    return (("train",) * 8 + ("dev", "test"))[int(plan_id(plan), 16) % 10]


def realise(plan: Plan, language: str) -> str:
    """The sentence of ``plan`` in ``language``, without digits.

    Example:
        >>> realise(("measure", "PK", 361, "length-centimeter"), "de")
        'Pakistan, dreihunderteinundsechzig Zentimeter'
    """
    locale = _locale(language)

    def name(kind: str, code: str | int) -> str:
        return _names(locale, kind)[code]

    def measure(number: int, unit: str) -> str:
        return _unit_pattern(locale, unit, number).replace("{0}", f" {number} ")

    def listed(*parts: str) -> str:
        patterns = locale.list_patterns["standard"]
        if len(parts) == 2:
            return patterns["2"].format(*parts)
        return patterns["start"].format(parts[0], patterns["end"].format(*parts[1:]))

    comma = "、" if language == "ja" else "，" if language == "zh-CN" else "، " if language in ("ar", "fa") else ", "
    template, *v = plan
    parts = {
        "measure": lambda: (name("territory", v[0]), measure(v[1], v[2])),
        "count": lambda: (measure(v[0], v[1]),),
        "two_measures": lambda: (listed(measure(v[0], v[1]), measure(v[2], v[3])),),
        "price": lambda: (f"{v[0]} {name('currency', v[1])}", name("territory", v[2])),
        "journey": lambda: (name("weekday", v[0]), measure(v[1], v[2]), measure(v[3], v[4])),
        "languages": lambda: (listed(*(name("language", code) for code in v)),),
        "meeting": lambda: (name("weekday", v[0]), name("language", v[1]), name("territory", v[2])),
        "date": lambda: (f"{v[0]} {name('month', v[1])}", name("territory", v[2])),
    }[template]()
    text = re.sub(r"\d+", lambda digits: spell(int(digits.group()), language), comma.join(parts))
    text = re.sub(r"\([^)]*\)", "", text)  # Welsh writes "a(c)"
    text = " ".join(text.replace("\u200f", "").split())
    if language in ("ja", "zh-CN"):
        text = text.replace(" ", "")
    return re.sub(r"\s+([,،])", r"\1", text)


def spoken(text: str, language: str) -> str:
    """What eSpeak is given: the text itself, but kana for Japanese (eSpeak reads kanji as "Chinese letter")."""
    if language != "ja":
        return text
    import pykakasi

    return "".join(word["kana"] for word in pykakasi.kakasi().convert(text))
