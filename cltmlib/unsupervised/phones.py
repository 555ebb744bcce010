"""Phones of written sentences, by eSpeak NG, from text alone; and the alphabet of labels they become."""

import collections
import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence

import pandas as pd

from cltmlib.errors import InputError

OTHER = "other"
_NOT_A_PHONE = re.compile(r"\([^)]*\)|[ˈˌː'ˑ͡-]|\d")  # switches of voice "(en)", stress, length, tone numbers


def espeak_voice(language: str) -> str:
    """eSpeak NG's voice for a locale code of Common Voice: that of the synthetic corpus, else the code's language."""
    from cltmlib.corpora.sentences import VOICES

    return VOICES[language].espeak if language in VOICES else language.split("-")[0]


def phones_of(sentences: Sequence[str], language: str) -> list[list[str]]:
    """Phones of each sentence in IPA, without stress, length and tone.

    Args:
        sentences: texts, one line each.
        language: locale code of Common Voice.

    Returns:
        One list per sentence; empty where a sentence has nothing to speak.

    Raises:
        InputError: eSpeak NG does not speak the language.

    Example:
        >>> phones_of(["uno dos"], "es")
        [['u', 'n', 'o', 'ð', 'o', 's']]
    """
    from cltmlib.corpora.sentences import spoken

    texts = [spoken(sentence, language) for sentence in sentences]
    job = json.dumps({"voice": espeak_voice(language), "sentences": texts})
    command = [sys.executable, "-m", "cltmlib.corpora.phonemes"]
    done = subprocess.run(command, input=job, capture_output=True, text=True, encoding="utf-8")
    if done.returncode == 3:
        raise InputError(
            f"Parameter 'language' is {language!r}, for which eSpeak NG has no voice {espeak_voice(language)!r}: "
            "choose a language that it speaks."
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"eSpeak NG failed on the sentences of {language!r} (exit code {done.returncode}): {last}")
    return [split_phones(text) for text in json.loads(done.stdout)]


def split_phones(text: str) -> list[str]:
    """Phones of eSpeak NG's IPA, in which ``_`` and spaces stand between them.

    Example:
        >>> split_phones("b_w_ˈe_n_o_s  ð_ˈi__a_s (en)tʃ")
        ['b', 'w', 'e', 'n', 'o', 's', 'ð', 'i', 'a', 's', 'tʃ']
    """
    parts = _NOT_A_PHONE.sub("", text).replace("_", " ").split()
    return [part for part in (unicodedata.normalize("NFC", part) for part in parts) if part]


def alphabet(sentences: Sequence[Sequence[str]], n_phones: int) -> list[str]:
    """The ``n_phones - 1`` most frequent phones of a text, and ``OTHER`` for the rest, if there is a rest.

    Raises:
        InputError: the text holds fewer than two phones, or ``n_phones`` is below 2.
    """
    counts = collections.Counter(phone for sentence in sentences for phone in sentence)
    if n_phones < 2 or len(counts) < 2:
        raise InputError(
            f"Parameter 'n_phones' is {n_phones} and the text holds {len(counts)} different phones: both must be at "
            "least 2."
        )
    ranked = sorted(counts, key=lambda phone: (-counts[phone], phone))
    return ranked if len(ranked) <= n_phones else [*ranked[: n_phones - 1], OTHER]


def to_labels(phones: Sequence[str], known: Sequence[str]) -> list[int]:
    """Positions in the alphabet; unknown phones are ``OTHER``, or left out where the alphabet has no such label.

    Example:
        >>> to_labels(["a", "x", "b"], ["b", "a", "other"])
        [1, 2, 0]
    """
    position = {phone: k for k, phone in enumerate(known)}
    labels = (position.get(phone, position.get(OTHER)) for phone in phones)
    return [label for label in labels if label is not None]


def phone_table(sentences: Sequence[Sequence[str]], known: Sequence[str]) -> pd.DataFrame:
    """How often each label of the alphabet occurs: columns phone, n, share."""
    labels = [label for sentence in sentences for label in to_labels(sentence, known)]
    counts = pd.Series(labels).value_counts().reindex(range(len(known)), fill_value=0)
    return pd.DataFrame({"phone": list(known), "n": counts, "share": counts / counts.sum()})
