"""What eSpeak NG would say, as IPA: sentences in, phonemes out.

Run as ``python -m cltmlib.corpora.phonemes`` by `cltmlib.unsupervised.phones_of`, with a job as JSON on standard input:
voice, sentences. Never imported into a notebook, so that a crash of the C library takes only this process down. It ends
with code 3 where there is no such voice.
"""

import ctypes
import json
import sys
from pathlib import Path

_IPA, _SEPARATED, _UTF8, _NO_AUDIO, _DONT_EXIT = 2, ord("_") << 8, 1, 1, 0x8000


def transcribe(job: dict) -> list[str] | None:
    """Phonemes of each sentence, ``_`` between them; None where there is no such voice."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    folder = Path(espeakng_loader.get_data_path()).parent
    if library.espeak_Initialize(_NO_AUDIO, 0, str(folder).encode(), _DONT_EXIT) < 0:
        raise RuntimeError("eSpeak NG did not start")
    if library.espeak_SetVoiceByName(job["voice"].encode()) != 0:
        return None
    translate = library.espeak_TextToPhonemes
    translate.restype = ctypes.c_char_p
    found = []
    for sentence in job["sentences"]:
        buffer = ctypes.create_string_buffer(sentence.encode() + b"\0")
        pointer, clauses = ctypes.c_void_p(ctypes.addressof(buffer)), []
        while pointer.value:  # one clause at a time; null at the end of the text
            clause = translate(ctypes.byref(pointer), _UTF8, _SEPARATED | _IPA)
            clauses.append((clause or b"").decode())
        found.append(" ".join(clauses))
    return found


if __name__ == "__main__":
    transcribed = transcribe(json.loads(sys.stdin.buffer.read().decode("utf-8")))
    if transcribed is None:
        sys.exit(3)
    sys.stdout.buffer.write(json.dumps(transcribed).encode("utf-8"))
