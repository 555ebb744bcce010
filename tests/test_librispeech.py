"""LibriSpeech from a small folder in the layout of its archives: rows, splits, damage; and beside Common Voice."""

import shutil

import numpy as np
import pytest

from cltmlib import audio, params, subsets
from cltmlib.corpora import COLUMNS, dropped, from_params, librispeech, load_corpus
from cltmlib.errors import InputError
from cltmlib.testing import break_clip, common_voice_folder, librispeech_folder, sine_utterance
from tests.test_params import load as load_params
from tests.test_params import load_other


@pytest.fixture
def root(tmp_path):
    return librispeech_folder(tmp_path)


@pytest.fixture
def both(root):
    """A folder with a release of Common Voice, which has an English of its own, and LibriSpeech."""
    common_voice_folder(root.parent / "cv-corpus-22.0", ["de", "en", "no"], n_speakers=2, n_clips=2, seconds=0.6)
    return root.parent


def chapter(root, part):
    """The first chapter of a part, and the name of its transcript file."""
    folder = min(root.glob(f"{part}/*/*"))
    return folder, folder / f"{folder.parent.name}-{folder.name}.trans.txt"


def edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def test_every_clip_is_an_utterance_with_the_corpus_columns(root):
    dataset = librispeech.load(root)
    assert tuple(dataset.column_names) == COLUMNS and len(dataset) == 5 * 4 * 2 and dropped(dataset).empty
    row = dataset[0]
    folder, _ = chapter(root, "train-clean-100")
    assert row["utterance_id"] == f"en/{folder.parent.name}-{folder.name}-0000"
    assert row["language"] == "en" and row["speaker"] == folder.parent.name and row["duration_s"] == pytest.approx(0.6)
    assert row["sentence"].startswith("CHAPTER ") and row["sentence"].endswith(" IT WASN'T LINE 0")


def test_parts_become_splits(root):
    table = librispeech.load(root).to_pandas()
    part = table["path"].str.split("/").str[-4]
    found = {name: set(part[table["split"] == name]) for name in ("train", "dev", "test")}
    assert found == {
        "train": {"train-clean-100", "train-clean-360"}, "dev": {"dev-clean"}, "test": {"test-clean", "test-other"},
    }  # fmt: skip
    assert table.groupby("speaker")["split"].nunique().max() == 1


def test_single_parts_can_be_asked_for(root):
    table = librispeech.load(root, splits=["train-clean-360", "test"]).to_pandas()
    assert table.groupby("split").size().to_dict() == {"train": 8, "test": 16}
    assert len(librispeech.load(root, splits=["test", "test-clean"])) == 16  # named twice, read once


def test_the_folder_above_gives_the_same_rows(root):
    assert librispeech.load(root.parent).to_pandas().equals(librispeech.load(root).to_pandas())


def test_gender_is_that_of_the_list_though_names_hold_the_separator(root):
    table = librispeech.load(root).to_pandas()
    lines = [line.split("|") for line in (root / "SPEAKERS.TXT").read_text().splitlines() if line[0] != ";"]
    assert all(len(line) == 6 for line in lines)  # one | more than the format has
    assert dict(zip(table["speaker"], table["gender"], strict=True)) == {
        line[0].strip(): {"F": "female", "M": "male"}[line[1].strip()] for line in lines
    }


def test_an_unlisted_speaker_has_no_gender_and_is_left_out_where_it_is_required(root):
    speaker = chapter(root, "test-clean")[0].parent.name
    edit(root / "SPEAKERS.TXT", lambda lines: [line for line in lines if line.split("|")[0].strip() != speaker])
    table = librispeech.load(root).to_pandas()
    assert table["gender"].isna().sum() == 2 and set(table.loc[table["gender"].isna(), "speaker"]) == {speaker}
    strict = librispeech.load(root, required=["speaker", "gender"])
    assert len(strict) == len(table) - 2
    assert dropped(strict).to_dict("records") == [{"language": "en", "split": "test", "reason": "no gender", "n": 2}]


def test_without_the_list_of_speakers_genders_are_null_unless_required(root):
    (root / "SPEAKERS.TXT").unlink()
    assert set(librispeech.load(root)["gender"]) == {None}
    with pytest.raises(InputError, match=r"SPEAKERS\.TXT does not exist; unpack it"):
        librispeech.load(root, required=["gender"])


def test_clips_decode_to_the_samples_that_went_in(root):
    row = librispeech.load(root)[0]
    np.testing.assert_allclose(audio.decode(row["path"]), sine_utterance(0.6, 210.0), atol=2**-15)


def test_files_that_are_none_of_the_corpus_are_passed_over(root):
    rows = librispeech.load(root).to_pandas()
    folder, transcripts = chapter(root, "dev-clean")
    (folder / f"._{transcripts.name}").write_bytes(b"\xff\xfe")
    (folder / "._14-7000-0000.flac").write_bytes(b"\0")
    (folder.parent / "empty").mkdir()
    (root / "dev-clean" / "README.TXT").write_text("x")
    assert librispeech.load(root).to_pandas().equals(rows)


def _without_transcripts(root):
    chapter(root, "dev-clean")[1].unlink()
    return r"File .*dev-clean.*\.trans\.txt does not exist; unpack"


def _without_clip(root):
    clip = min(chapter(root, "dev-clean")[0].glob("*.flac"))
    clip.unlink()
    return rf"\.trans\.txt has a transcript of {clip.stem}, but {clip.stem}\.flac is not beside it"


def _without_line(root):
    edit(chapter(root, "dev-clean")[1], lambda lines: lines[:1])
    return r"Clip .*-0001\.flac has no line in .*\.trans\.txt"


def _with_two_lines(root):
    edit(chapter(root, "dev-clean")[1], lambda lines: [*lines, lines[0]])
    return r"\.trans\.txt has two transcripts of .*-0000; get it again"


def _with_other_text(root):
    chapter(root, "dev-clean")[1].write_bytes(b"\xff\xfe\xff")
    return r"\.trans\.txt cannot be read as UTF-8 text"


def _with_a_speaker_twice(root):
    edit(root / "SPEAKERS.TXT", lambda lines: [*lines, "14 | M | dev-clean | 1.0 | Somebody\n"])
    return r"SPEAKERS\.TXT lists speaker 14 twice"


def _with_another_list(root):
    edit(root / "SPEAKERS.TXT", lambda lines: ["what is this\n"])
    return r"SPEAKERS\.TXT: the line 'what is this' is not of the form 'ID \| SEX"


def _with_a_renamed_speaker(root):
    speaker = chapter(root, "train-clean-100")[0].parent
    speaker.rename(root / "test-clean" / chapter(root, "train-clean-360")[0].parent.name)
    return r"-\d+\.trans\.txt does not exist"  # its files are called after the other


def _with_a_speaker_of_two_splits(root):
    speaker = chapter(root, "train-clean-100")[0].parent
    shutil.copytree(speaker, root / "test-clean" / speaker.name)
    return rf"Speaker {speaker.name} is in several splits of .*LibriSpeech \(train, test\)"


def _with_a_broken_clip(root):
    clip = min(chapter(root, "dev-clean")[0].glob("*.flac"))
    break_clip(clip, "corrupt")
    return rf"Clip .*{clip.name} is not a readable FLAC file; get it again"


def _without_parts(root):
    for part in root.glob("*-*"):
        shutil.rmtree(part)
    return r"holds no part of LibriSpeech; there should be some of train-clean-100, "


def _without_a_split(root):
    (root / "dev-clean").rename(root / "elsewhere")
    return r"Split 'dev': .*LibriSpeech has no folder dev-clean or dev-other; unpack it or leave the split out"


def _with_nothing_in_it(root):
    for part in root.glob("*-*"):
        shutil.rmtree(part)
        part.mkdir()
    return r"No transcript is in train-clean-100, .* of .*LibriSpeech; unpack the archives anew"


DAMAGE = [value for name, value in list(globals().items()) if name.startswith(("_with_", "_without_"))]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_one_sentence_that_names_it(root, damage):
    message = damage(root)
    with pytest.raises(InputError, match=message) as caught:
        librispeech.load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "nowhere"}, "Corpus folder nowhere does not exist; give the folder LibriSpeech"),
        ({"splits": ["validated"]}, "Split 'validated' is not one of train, dev, test, train-clean-100"),
        ({"splits": []}, "Parameter splits is"),
        ({"splits": ["train-other-500"]}, "Split 'train-other-500': .* has no folder train-other-500"),
        ({"languages": ["en", "de"]}, "Language 'de' is not in LibriSpeech, which is all English"),
        ({"languages": [False]}, "a bare no as False"),
        ({"required": ["age"]}, "Required column 'age' is not one of speaker, gender"),
    ],
)
def test_wrong_arguments_are_named(root, options, message):
    with pytest.raises(InputError, match=message):
        librispeech.load(**{"root": root, **options})


def test_beside_common_voice_english_is_from_librispeech_and_the_rest_is_not(both):
    options = {"corpus": "common_voice+librispeech", "corpus_dir": str(both), "languages": ["no", "en", "de"]}
    dataset = from_params(options)
    table = dataset.to_pandas()
    assert tuple(dataset.column_names) == COLUMNS and set(table["language"]) == {"no", "en", "de"}
    is_book = table["path"].str.contains("LibriSpeech")
    assert (is_book == (table["language"] == "en")).all() and is_book.sum() == 40
    alone = from_params({**options, "languages": ["no", "de"]}).to_pandas()
    assert alone.equals(table[~is_book].reset_index(drop=True))
    assert from_params({**options, "languages": ["en"]}).to_pandas().equals(librispeech.load(both).to_pandas())


def test_what_either_corpus_left_out_stays_on_record_and_required_holds_for_both(both):
    speaker = chapter(both / "LibriSpeech", "test-clean")[0].parent.name
    list_file = both / "LibriSpeech/SPEAKERS.TXT"
    edit(list_file, lambda lines: [line for line in lines if line.split("|")[0].strip() != speaker])
    break_clip(min((both / "cv-corpus-22.0/de/clips").iterdir()), "empty")
    options = {"corpus": "common_voice+librispeech", "corpus_dir": str(both), "languages": ["de", "en"]}
    report = dropped(from_params(options)).set_index("language")
    assert report.loc["de", "reason"] == "clip file empty" and report.loc["en", "reason"] == "no gender"
    assert set(dropped(from_params(options, required=["speaker"]))["language"]) == {"de"}


def test_subsets_are_drawn_across_the_two_corpora(both, tmp_path):
    corpus = load_corpus("common_voice+librispeech", root=both, languages=["en", "de"])
    design = subsets.ByClass(samples_per_speaker=2)
    data = subsets.prepare(corpus, ["en", "de"], 2, [0], tmp_path / "waveforms", design, n_workers=1)
    assert data.skipped.empty and {u.split("/")[0] for u in data.subsets[0]["en"].first} == {"en"}
    assert data.summary()["D clips"].to_dict() == {"en": 4, "de": 4}


def test_parameters_alone_choose_the_corpus_and_say_what_they_lack():
    assert load_params(corpus="common_voice+librispeech", corpus_dir="speech").corpus == "common_voice+librispeech"
    with pytest.raises(InputError, match="name the folder that holds your Common Voice release and LibriSpeech"):
        load_params(corpus="common_voice+librispeech")
    with pytest.raises(InputError, match="'corpus' is 'librispeech', which is English alone"):
        load_params(corpus="librispeech", corpus_dir="LibriSpeech")
    with pytest.raises(InputError, match="name the folder LibriSpeech, for example with -p corpus_dir LibriSpeech"):
        load_params(corpus="librispeech")
    assert load_other("06_unsupervised_asr", corpus="librispeech", corpus_dir="x", language="en").language == "en"
    with pytest.raises(InputError, match="'corpus' of notebook 05_potsa_ablations is 'librispeech'"):
        load_other("05_potsa_ablations", corpus="librispeech", corpus_dir="x")
    assert set(params.TABLE["corpus"].choices) == {
        "common_voice", "common_voice+librispeech", "fleurs", "librispeech", "synthetic",
    }  # fmt: skip
