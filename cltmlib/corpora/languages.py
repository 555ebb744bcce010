"""Languages of the study: Common Voice locale code, English name, family.

The 54 languages of the gender-recognition study keep the family mapping of its authors (cltm-framework, Pol Buitrago
Esteve, CC BY 4.0), because their within-family figures depend on it: Indo-European branches count as families of their
own, Armenian is plain "Indo-European", Estonian is apart from "Uralic". The other locales follow that wording.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from cltmlib.errors import InputError

# family -> "code name; code name". The authors' table calls `lt` "Latgalian", which is `ltg`: `lt` is Lithuanian.
_LANGUAGES_OF_FAMILY = {
    "Afro-Asiatic (Berber)": "kab Kabyle; zgh Tamazight",
    "Afro-Asiatic (Chadic)": "ha Hausa",
    "Afro-Asiatic (Cushitic)": "om Oromo; so Somali",
    "Afro-Asiatic (Semitic)": "am Amharic; ar Arabic; he Hebrew; mt Maltese; ti Tigrinya; tig Tigre",
    "Austroasiatic": "km Khmer; sat Santali; vi Vietnamese",
    "Austronesian": "ceb Cebuano; fil Filipino; id Indonesian; jv Javanese; mi Maori; ms Malay",
    "Constructed": "eo Esperanto; ia Interlingua; tok Toki Pona",
    "Creole": "ht Haitian; kea Kabuverdianu",
    "Dravidian": "kn Kannada; ml Malayalam; ta Tamil; te Telugu",
    "Indo-European": "hy-AM Armenian",
    "Indo-European (Albanian)": "sq Albanian",
    "Indo-European (Baltic)": "lt Lithuanian; ltg Latgalian; lv Latvian",
    "Indo-European (Celtic)": "br Breton; cy Welsh; ga-IE Irish",
    "Indo-European (Germanic)": (
        "af Afrikaans; da Danish; de German; en English; fy-NL Western Frisian; is Icelandic; lb Luxembourgish; "
        "nb Norwegian Bokmål; nb-NO Norwegian Bokmål; nl Dutch; nn-NO Norwegian Nynorsk; no Norwegian; sv-SE Swedish; "
        "yi Yiddish"
    ),
    "Indo-European (Hellenic)": "el Greek",
    "Indo-European (Indo-Aryan)": (
        "as Assamese; bn Bangla; dv Divehi; gu Gujarati; hi Hindi; mr Marathi; ne-NP Nepali; or Odia; pa-IN Punjabi; "
        "sd Sindhi; skr Saraiki; ur Urdu"
    ),
    "Indo-European (Iranian)": (
        "ckb Central Kurdish; fa Persian; kmr Kurmanji Kurdish; os Ossetian; ps Pashto; tg Tajik; zza Zaza"
    ),
    "Indo-European (Romance)": (
        "an Aragonese; ast Asturian; ca Catalan; es Spanish; fr French; gl Galician; it Italian; lij Ligurian; "
        "oc Occitan; pt Portuguese; rm-sursilv Romansh Sursilvan; rm-vallader Romansh Vallader; ro Romanian; "
        "sc Sardinian"
    ),
    "Indo-European (Slavic)": (
        "be Belarusian; bg Bulgarian; bs Bosnian; cs Czech; dsb Lower Sorbian; hr Croatian; hsb Upper Sorbian; "
        "mk Macedonian; pl Polish; ru Russian; sk Slovak; sl Slovenian; sr Serbian; uk Ukrainian"
    ),
    "Japonic": "ja Japanese",
    "Kartvelian": "ka Georgian",
    "Koreanic": "ko Korean",
    "Kra-Dai": "lo Lao; th Thai",
    "Language isolate": "eu Basque",
    "Mongolic": "mn Mongolian",
    "Niger-Congo": (
        "bas Basaa; dag Dagbani; dav Taita; dyu Dyula; ff Fula; ig Igbo; kam Kamba; lg Ganda; ln Lingala; "
        "nr Southern Ndebele; nso Northern Sotho; ny Chichewa; rw Kinyarwanda; sn Shona; ss Swati; st Southern Sotho; "
        "sw Swahili; tn Tswana; ts Tsonga; tw Twi; umb Umbundu; ve Venda; wo Wolof; xh Xhosa; yo Yoruba; zu Zulu"
    ),
    "Nilotic": "kln Kalenjin; luo Luo",
    "Northeast Caucasian": "ce Chechen",
    "Northwest Caucasian": "ab Abkhazian; ady Adyghe; kbd Kabardian",
    "Quechuan": "quy Ayacucho Quechua",
    "Sino-Tibetan": (
        "cnh Hakha Chin; my Burmese; nan-tw Taiwanese Minnan; yue Cantonese; zh-CN Chinese (China); "
        "zh-HK Chinese (Hong Kong); zh-TW Chinese (Taiwan)"
    ),
    "Tupian": "gn Guarani",
    "Turkic": (
        "az Azerbaijani; ba Bashkir; cv Chuvash; kk Kazakh; ky Kyrgyz; sah Sakha; tk Turkmen; tr Turkish; tt Tatar; "
        "ug Uyghur; uz Uzbek"
    ),
    "Uralic": "hu Hungarian; mdf Moksha; mhr Meadow Mari; mrj Hill Mari; myv Erzya",
    "Uralic (Finnic)": "et Estonian; fi Finnish; vot Votic",
    "Uto-Aztecan": "nhi Western Sierra Puebla Nahuatl",
}

# Order of the authors' figures: by family, then name.
GENDER_STUDY_CODES = tuple(
    "kab ar mt id eo ta hy-AM lt lv cy nl en de sv-SE fy-NL bn dv ur ckb kmr fa ca fr gl it pt ro es be cs pl ru sl uk "
    "ja ka th eu mn lg rw sw ab yue zh-CN zh-HK zh-TW ky tr ug uz hu mhr et".split()
)
SPEAKER_STUDY_CODES = tuple(
    code for code in GENDER_STUDY_CODES if code not in "mt id lt lv fy-NL dv sl ja mn et".split()
)
RECOGNITION_STUDY_CODES = tuple("eo en de ca fr es be ug mhr".split())


@dataclass(frozen=True)
class Language:
    """A Common Voice locale ``code`` with its English ``name`` and its ``family`` in the authors' wording."""

    code: str
    name: str
    family: str


LANGUAGES: dict[str, Language] = {
    code: Language(code, name, family)
    for family, entries in _LANGUAGES_OF_FAMILY.items()
    for code, name in (entry.strip().split(" ", 1) for entry in entries.split(";"))
}


def check_code(code: object) -> str:
    """Return ``code`` if it is a string; name the YAML trap if a bare ``no`` arrived as False.

    Raises:
        InputError: ``code`` is not a string.
    """
    if code is False:
        raise InputError('Language False: YAML reads a bare no as False, so write the Norwegian code in quotes: "no".')
    if not isinstance(code, str) or not code:
        raise InputError(f'Language {code!r} is not a code: give Common Voice codes in quotes, such as "zh-CN".')
    return code


def language(code: str) -> Language:
    """Look up a language by its Common Voice locale code.

    Raises:
        InputError: the code is unknown (the message suggests close ones) or is not a string.

    Example:
        >>> language("hy-AM")
        Language(code='hy-AM', name='Armenian', family='Indo-European')
    """
    if check_code(code) in LANGUAGES:
        return LANGUAGES[code]
    close = _close_codes(code)
    new = "add a new one to cltmlib/corpora/languages.py."
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else new
    raise InputError(f"Language {code!r} is not known: {hint}")


def families(codes: Iterable[str]) -> dict[str, str]:
    """Map each code to its family, in the order given.

    Raises:
        InputError: as ``language``.

    Example:
        >>> families(["de", "ta"])
        {'de': 'Indo-European (Germanic)', 'ta': 'Dravidian'}
    """
    return {code: language(code).family for code in codes}


def _close_codes(code: str) -> list[str]:
    """Known codes like this one: same base ("zh" -> "zh-CN"), English name ("Polish" -> "pl") or few letters off."""
    wanted = code.lower().replace("_", "-")
    code_of = {entry.name.lower(): entry.code for entry in LANGUAGES.values()}
    code_of |= {known.lower(): known for known in LANGUAGES}
    if wanted in code_of:
        return [code_of[wanted]]
    same_base = [known for known in LANGUAGES if known.lower().split("-")[0] == wanted.split("-")[0]]
    near = [code_of[key] for key in difflib.get_close_matches(wanted, code_of, n=3, cutoff=0.6)]
    return list(dict.fromkeys(same_base or near))[:3]
