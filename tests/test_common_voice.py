from pathlib import Path

import datasets
import pandas as pd
import pytest

from cltmlib.corpora import COLUMNS, common_voice, describe, dropped, from_rows, load_corpus
from cltmlib.errors import InputError
from cltmlib.testing import common_voice_folder, read_tsv, utterance_rows, write_tsv

REAL_MINI = Path(__file__).parents[2] / "shared/corpora/real-mini"


@pytest.fixture
def release(tmp_path):
    return common_voice_folder(tmp_path / "cv", n_speakers=2, n_clips=2, seconds=0.1)


def edit(path, change):
    """Apply ``change`` (in place) to the table in ``path``."""
    table = read_tsv(path)
    write_tsv(path, result if (result := change(table)) is not None else table)


def reasons(dataset):
    return {(row.split, row.reason): row.n for row in dropped(dataset).itertuples()}


def test_every_row_of_a_complete_release_is_an_utterance(release):
    dataset = common_voice.load(release, ["no", "de"])
    assert tuple(dataset.column_names) == COLUMNS
    assert len(dataset) == 2 * 3 * 2 * 2 * 2 and dropped(dataset).empty
    row = dataset[0]
    assert row["utterance_id"] == "no/no_train_female0_0" and row["language"] == "no" and row["gender"] == "female"
    assert Path(row["path"]).is_file() and row["duration_s"] == pytest.approx(0.1)
    assert row["sentence"] == 'she said "yes' and len(row["sentence_id"]) == 64


def test_mp3_clips_get_a_duration_from_their_header(tmp_path):
    root = common_voice_folder(tmp_path, ["de"], n_speakers=1, n_clips=1, seconds=0.5, suffix=".mp3")
    assert common_voice.load(root, ["de"])["duration_s"][:] == pytest.approx([0.5] * 6, abs=0.1)


def test_durations_file_wins_over_headers_and_headers_fill_its_gaps(release):
    (release / "de/clip_durations.tsv").write_text(
        "clip\tduration[ms]\nde_train_female0_0.wav\t4200\nde_train_female0_1.wav\t0\n"
    )
    seconds = common_voice.load(release, ["de"], splits=["train"])["duration_s"]
    assert seconds[:3] == pytest.approx([4.2, 0.1, 0.1])


def test_unreadable_header_gives_a_null_duration_and_keeps_the_row(release):
    (release / "de/clips/de_train_female0_0.wav").write_bytes(b"no audio")
    dataset = common_voice.load(release, ["de"], splits=["train"])
    assert len(dataset) == 8 and pd.isna(dataset["duration_s"][0])


def test_old_and_new_gender_labels_mean_the_same_and_others_are_null(release):
    def relabel(table):
        table["gender"] = ["female", "female_feminine", "male", "male_masculine", "other", "", "non-binary", "intersex"]
        table["client_id"] = [f"s{number}" for number in range(8)]

    edit(release / "de/train.tsv", relabel)
    dataset = common_voice.load(release, ["de"], ["train"], required=["speaker"])
    assert dataset["gender"][:] == ["female", "female", "male", "male", None, None, None, None]
    kept = common_voice.load(release, ["de"], ["train"])
    assert len(kept) == 4 and reasons(kept) == {("train", "no gender"): 4}


def test_each_dropped_row_is_counted_under_its_first_reason(release):
    def damage(table):
        table.loc[0, ["client_id", "gender"]] = ""
        table.loc[1, "gender"] = "male_masculine"  # the same speaker is female in other rows of dev
        table.loc[2, "client_id"] = table.loc[3, "client_id"] = "somebody"
        table.loc[2, "gender"], table.loc[3, "gender"] = "female", "male"
        table.loc[4, "path"] = "lost.mp3"
        table.loc[5, "path"] = table.loc[7, "path"]
        (release / "de/clips" / table.loc[6, "path"]).write_bytes(b"")

    edit(release / "de/train.tsv", damage)
    with open(release / "de/train.tsv", "a") as file:
        file.write("\t".join(["extra"] * 14) + "\n")
    dataset = common_voice.load(release, ["de"], ["train", "dev"])
    assert reasons(dataset) == {
        ("train", "malformed row"): 1, ("train", "duplicate clip"): 1, ("train", "no speaker"): 1,
        ("train", "speaker with two genders"): 2, ("train", "clip file missing"): 1, ("train", "clip file empty"): 1,
    }  # fmt: skip
    assert len(dataset) == 8 + 2


def test_report_survives_filtering_and_concatenation(release):
    edit(release / "de/dev.tsv", lambda table: table.assign(gender=["", *table["gender"][1:]]))
    german = common_voice.load(release, ["de"]).select(range(3))
    both = datasets.concatenate_datasets([german, common_voice.load(release, ["no"])])
    assert reasons(german) == reasons(both) == {("dev", "no gender"): 1}


def test_byte_order_mark_windows_lines_and_huge_fields_are_read(release):
    path = release / "de/train.tsv"
    edit(path, lambda table: table.assign(sentence="long " * 40_000))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    dataset = common_voice.load(release, ["de"], ["train"])
    assert len(dataset) == 8 and len(dataset["sentence"][0]) == 200_000


def test_unbalanced_quotes_do_not_swallow_rows(release):
    quotes = ['"open', 'close"', '"', "'", '""', 'a "b" c', '"""', "NA"]
    edit(release / "de/train.tsv", lambda table: table.assign(sentence=quotes))
    assert common_voice.load(release, ["de"], ["train"])["sentence"][:] == quotes


def test_release_without_sentence_ids_gives_equal_ids_to_equal_sentences(release):
    sentences = ["a", "b", "a", "", "", "c", "c", "d"]
    edit(release / "de/train.tsv", lambda table: table.drop(columns="sentence_id").assign(sentence=sentences))
    ids = common_voice.load(release, ["de"], ["train"])["sentence_id"]
    assert ids[0] == ids[2] != ids[1] and ids[3] is None


def test_validated_adds_only_rows_that_no_earlier_split_has(release):
    edit(release / "de/train.tsv", lambda table: table.iloc[:-1])
    dataset = common_voice.load(release, ["de"], ["train", "dev", "test", "validated"])
    assert len(dataset) == 24 and dataset["split"][-1] == "validated"
    assert reasons(dataset) == {("validated", "duplicate clip"): 23}


def test_folder_above_a_single_release_is_accepted(release):
    inside = release.parent / "download/cv-corpus-22.0-2025-06-20"
    inside.parent.mkdir()
    release.rename(inside)
    assert len(common_voice.load(inside.parent, ["de"])) == 24
    common_voice_folder(inside.parent / "other", ["de"], 1, 1, 0.1)
    with pytest.raises(InputError, match="several releases"):
        common_voice.load(inside.parent, ["de"])


def test_bad_input_is_named_in_one_sentence(release, tmp_path):
    (tmp_path / "bare").mkdir()
    edit(release / "no/train.tsv", lambda table: table.drop(columns="gender"))
    (release / "no/dev.tsv").unlink()
    (release / "no/test.tsv").write_bytes(b"")
    edit(release / "de/dev.tsv", lambda table: table.assign(gender=""))
    for arguments, message in [
        ((tmp_path / "none", ["de"]), "none does not exist"),
        ((tmp_path / "bare", ["de"]), "no locale folder"),
        ((release / "de", ["de"]), "folder above"),
        ((release, ["xx"]), "'xx' is not in .*there are de, no"),
        ((release, [False]), "bare no"),
        ((release, []), "languages"),
        ((release, ["de", "de"]), "each once"),
        ((release, ["no"], ["train"]), "no/train.tsv has no column 'gender'"),
        ((release, ["no"], ["dev"]), "no/dev.tsv does not exist"),
        ((release, ["no"], ["test"]), "no/test.tsv is not a table"),
        ((release, ["de"], ["invalid"]), "Split 'invalid'"),
        ((release, ["de"], ["dev"]), r"'de': no row .* \(dev: no gender 8\)"),
        ((release, ["de"], ["dev"], ["age"]), "Required column 'age'"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            common_voice.load(*arguments)
        assert "\n" not in str(caught.value)
    assert len(common_voice.load(release, ["no"], ["train"], required=["speaker"])) == 8


def test_corpora_are_loaded_by_name_and_unknown_ones_are_named(release):
    assert len(load_corpus("common_voice", root=release, languages=["de"])) == 24
    with pytest.raises(InputError, match=r"'comon_voice' is not known.*'common_voice', .*'synthetic'"):
        load_corpus("comon_voice")
    with pytest.raises(InputError, match=r"'common_voice': missing a required argument: 'root'; it takes root, lang"):
        load_corpus("common_voice", languages=["de"])


def test_corpus_table_counts_clips_speakers_and_hours():
    rows = utterance_rows(["ta", "de"], n_speakers=3, n_clips=2)
    rows.loc[rows["speaker"] == "ta_train_male0", ["gender", "duration_s"]] = [None, float("nan")]
    table = describe(from_rows(rows))
    assert list(table.index) == ["ta", "de"] and table.loc["ta", "name"] == "Tamil"
    counts = ["n_utterances", "n_female", "n_male", "n_speakers", "n_female_speakers", "n_male_speakers"]
    assert table.loc["ta", counts].tolist() == [36, 18, 16, 18, 9, 8]
    assert table.loc["ta", "hours"] == pytest.approx(34 / 3600)
    assert describe(from_rows(rows), per_split=True).loc[("ta", "train"), "n_male"] == 4


def test_rows_of_another_shape_are_refused():
    rows = utterance_rows(["de"], 1, 1)
    for bad in [rows.drop(columns="split"), pd.concat([rows, rows]), rows.assign(gender="f")]:
        with pytest.raises(ValueError):
            from_rows(bad)


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="../shared/corpora/real-mini is absent")
def test_real_speech_is_read_with_the_counts_of_its_readme():
    dataset = common_voice.load(REAL_MINI, common_voice.locales(REAL_MINI))
    table = describe(dataset)
    assert len(table) == 12 and len(dataset) == 2193 and dropped(dataset)["n"].sum() == 2311 - 2193
    assert table.loc["ko", ["n_female", "n_male", "n_speakers"]].tolist() == [126, 84, 15]
    assert table.loc["th", "hours"] * 60 == pytest.approx(15.4, abs=0.5)
