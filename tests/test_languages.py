import csv
from pathlib import Path

import pytest

from cltmlib.corpora.languages import (
    GENDER_STUDY_CODES,
    LANGUAGES,
    RECOGNITION_STUDY_CODES,
    SPEAKER_STUDY_CODES,
    families,
    language,
)
from cltmlib.errors import InputError

REFERENCE = Path(__file__).parents[1] / "cltmlib/cltm/reference"


def test_studies_have_the_papers_numbers_of_languages():
    assert (len(GENDER_STUDY_CODES), len(SPEAKER_STUDY_CODES), len(RECOGNITION_STUDY_CODES)) == (54, 44, 9)
    assert set(SPEAKER_STUDY_CODES) | set(RECOGNITION_STUDY_CODES) <= set(GENDER_STUDY_CODES) <= set(LANGUAGES)


def test_families_are_the_authors_own_but_for_the_name_of_lithuanian():
    with open(REFERENCE / "families.csv", encoding="utf-8") as file:
        theirs = {row["code"]: (row["name"], row["family"]) for row in csv.DictReader(file)}
    assert tuple(theirs) == GENDER_STUDY_CODES
    ours = {code: (LANGUAGES[code].name, LANGUAGES[code].family) for code in theirs}
    assert {code for code in theirs if ours[code] != theirs[code]} == {"lt"}
    assert ours["lt"] == ("Lithuanian", theirs["lt"][1])


@pytest.mark.parametrize(
    "codes, file_name", [(SPEAKER_STUDY_CODES, "sv_mhubert.csv"), (RECOGNITION_STUDY_CODES, "asr_mhubert.csv")]
)
def test_study_codes_are_the_columns_of_the_published_matrix(codes, file_name):
    header = (REFERENCE / file_name).read_text(encoding="utf-8").splitlines()[0]
    assert tuple(header.split(",")[1:]) == codes


def test_twenty_four_families_in_the_gender_study():
    assert len(set(families(GENDER_STUDY_CODES).values())) == 24


@pytest.mark.parametrize(
    "code, hint",
    [("zh", "'zh-CN'"), ("hy", "'hy-AM'"), ("ZH-cn", "'zh-CN'"), ("zh_TW", "'zh-TW'"), ("german", "'de'"),
     ("sv", "'sv-SE'"), ("qq", "languages.py"), (False, "bare no"), (3, "in quotes"), ("", "in quotes")],
)  # fmt: skip
def test_unknown_code_is_answered_with_a_hint(code, hint):
    with pytest.raises(InputError, match="Language") as caught:
        language(code)
    assert hint in str(caught.value)
