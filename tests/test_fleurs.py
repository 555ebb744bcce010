"""FLEURS from Parquet files in the format of the Hub's convert branch: rows, clips, gaps, damage."""

from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from cltmlib import audio
from cltmlib.corpora import COLUMNS, dropped, fleurs, load_corpus
from cltmlib.corpora.languages import LANGUAGES
from cltmlib.errors import InputError
from cltmlib.testing import fleurs_folder


@pytest.fixture
def snapshot(tmp_path):
    return fleurs_folder(tmp_path / "snapshot")


@pytest.fixture
def load(snapshot, tmp_path):
    def load(languages=("en",), **options):
        return fleurs.load(languages, **{"root": snapshot, "cache_dir": tmp_path / "cache", **options})

    return load


def edit(path, change):
    """Apply ``change`` to the rows (dictionaries) of a Parquet file; the types stay."""
    table = parquet.read_table(path)
    rows = table.to_pylist()
    change(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)


def test_every_recording_is_an_utterance_with_the_corpus_columns(load):
    dataset = load(["en", "es"])
    assert tuple(dataset.column_names) == COLUMNS and len(dataset) == 2 * 3 * 4 * 2 and dropped(dataset).empty
    row = dataset[1]
    assert row["language"] == "en" and row["split"] == "train" and row["gender"] == "female" and row["speaker"] is None
    assert row["sentence"] == "En_Us: sentence 0." and row["duration_s"] == pytest.approx(0.2)
    assert row["utterance_id"] == f"en/{Path(row['path']).stem}"
    assert set(dataset["split"]) == {"train", "dev", "test"}


def test_sentence_ids_are_shared_by_languages_and_recordings_and_not_by_splits(load):
    table = load(["en", "es"]).to_pandas()
    assert (table.groupby("sentence_id").size() == 4).all()  # two recordings in each of two languages
    assert (table.groupby("sentence_id")["split"].nunique() == 1).all()


def test_clips_decode_to_the_samples_that_went_in(load, snapshot):
    row = load()[0]
    (stored,) = parquet.read_table(snapshot / "en_us/train/0000.parquet").slice(0, 1).to_pylist()
    assert Path(row["path"]).read_bytes() == stored["audio"]["bytes"]
    waveform = audio.decode(row["path"])
    assert waveform.dtype == np.float32 and len(waveform) == stored["num_samples"] == 3200


def test_other_gender_and_unknown_duration_are_null(load, snapshot):
    def change(rows):
        rows[0]["gender"], rows[1]["num_samples"], rows[2]["gender"] = 2, 0, None

    edit(snapshot / "en_us/train/0000.parquet", change)
    dataset = load(splits=["train"])
    assert dataset["gender"][:4] == [None, "female", None, "female"] and pd.isna(dataset["duration_s"][1])


@pytest.mark.parametrize(("layout", "n_files"), [("folders", 3), ("flat", 1), ("flat", 3)])
def test_both_layouts_of_the_branch_and_several_files_give_the_same_rows(tmp_path, layout, n_files):
    wanted = fleurs.load(["es"], fleurs_folder(tmp_path / "a", ["es_419"]), cache_dir=tmp_path / "cache")
    folder = fleurs_folder(tmp_path / "b", ["es_419"], n_files=n_files, layout=layout)
    found = fleurs.load(["es"], folder, cache_dir=tmp_path / "cache")
    columns = [column for column in COLUMNS if column != "path"]
    pd.testing.assert_frame_equal(found.to_pandas()[columns], wanted.to_pandas()[columns])


def test_clips_are_written_once_and_a_changed_file_is_unpacked_anew(load, snapshot, tmp_path):
    paths = load(splits=["train"])["path"][:]
    times = [Path(path).stat().st_mtime_ns for path in paths]
    assert load(splits=["train"])["path"][:] == paths and [Path(path).stat().st_mtime_ns for path in paths] == times
    copy = fleurs_folder(tmp_path / "copy", ["en_us"])  # the same files elsewhere are the same clips
    assert load(splits=["train"], root=copy)["path"][:] == paths
    edit(snapshot / "en_us/train/0000.parquet", lambda rows: rows[0].update(raw_transcription="Corrected."))
    changed = load(splits=["train"])
    assert changed["sentence"][0] == "Corrected." and changed["path"][0] != paths[0]


def test_an_interrupted_call_leaves_nothing_that_a_later_one_would_take_for_whole(load, tmp_path, monkeypatch):
    def interrupted(self, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(splits=["test"])
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(load(splits=["test"])) == 8


def test_rows_without_audio_and_repeated_clips_are_dropped_and_counted(load, snapshot):
    def change(rows):
        rows[0]["audio"]["bytes"], rows[1]["audio"] = None, None
        rows[3]["audio"]["path"] = rows[2]["audio"]["path"]

    edit(snapshot / "en_us/train/0000.parquet", change)
    first = parquet.read_table(snapshot / "en_us/train/0000.parquet").to_pylist()[4]["audio"]["path"]
    edit(snapshot / "en_us/test/0000.parquet", lambda rows: rows[0]["audio"].update(path=first))
    dataset = load()
    counts = {(row.split, row.reason): row.n for row in dropped(dataset).itertuples()}
    assert counts == {("train", "no audio"): 2, ("train", "duplicate clip"): 1, ("test", "duplicate clip"): 1}
    assert len(dataset) == 24 - 4


def test_a_broken_clip_keeps_its_row_and_is_named_when_decoded(load, snapshot):
    edit(snapshot / "en_us/validation/0000.parquet", lambda rows: rows[0]["audio"].update(bytes=b"x"))
    with pytest.raises(InputError, match="corrupt or not audio"):
        audio.decode(load(splits=["dev"])["path"][0])


def test_bad_input_is_named_in_one_sentence(load, snapshot, tmp_path):
    for name in ("af_za", "am_et", "ar_eg", "as_in", "ast_es"):
        fleurs_folder(snapshot, [name], n_sentences=1)
    (snapshot / "af_za/validation/0000.parquet").unlink()
    whole = (snapshot / "am_et/train/0000.parquet").read_bytes()
    (snapshot / "am_et/train/0000.parquet").write_bytes(whole[: len(whole) // 2])
    (snapshot / "ar_eg/train/0000.parquet").write_bytes(whole[:1000] + bytes(len(whole) - 2000) + whole[-1000:])
    (snapshot / "as_in/train/0000.parquet").rename(snapshot / "as_in/train/0001.parquet")
    table = parquet.read_table(snapshot / "ast_es/train/0000.parquet")
    parquet.write_table(table.drop_columns("gender"), snapshot / "ast_es/train/0000.parquet")
    edit(snapshot / "es_419/train/0000.parquet", lambda rows: [row.update(audio=None) for row in rows])
    for arguments, message in [
        ({"root": tmp_path / "none"}, "none does not exist"),
        ({"languages": ["ja"]}, "'ja': folder .*ja_jp does not exist; there are .*en_us"),
        ({"languages": ["eo"]}, "'eo' is not among the 102 of FLEURS; omit"),
        ({"languages": ["zh-TW"]}, "'zh-TW' is not .*did you mean 'zh-CN'"),
        ({"languages": [False]}, "bare no"),
        ({"languages": []}, "languages"),
        ({"splits": ["validated"]}, "Split 'validated'"),
        ({"languages": ["af"]}, "'af': .*no Parquet file of validation"),
        ({"languages": ["am"]}, "am_et/train/0000.parquet is not a whole"),
        ({"languages": ["ar"]}, "ar_eg/train/0000.parquet is not a whole"),
        ({"languages": ["as"]}, "'as': 1 of 2 Parquet files of train"),
        ({"languages": ["ast"]}, "0000.parquet has no column 'gender'"),
        ({"languages": ["es"], "splits": ["train"]}, "'es': no row .* has audio"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load(**arguments)
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_sentence(load, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        load()


def test_without_root_the_needed_files_come_from_the_hub_one_by_one(snapshot, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.update(options, name=name) or str(snapshot)
    )
    assert len(fleurs.load(["en"], splits=["dev"], cache_dir=tmp_path / "cache")) == 8
    assert asked["name"] == "google/fleurs" and asked["revision"] == "refs/convert/parquet"
    assert asked["repo_type"] == "dataset" and asked["max_workers"] == 1
    assert "en_us/validation/*.parquet" in asked["allow_patterns"]


def test_offline_is_one_sentence_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be downloaded .* give as root a folder") as caught:
        fleurs.load(["en"], cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_102_languages_have_common_voice_codes_of_the_study():
    assert set(fleurs.CONFIG_OF_LANGUAGE) <= set(LANGUAGES) and len(set(fleurs.CONFIG_OF_LANGUAGE.values())) == 102
    named = {"en": "en_us", "ja": "ja_jp", "es": "es_419", "ko": "ko_kr", "ru": "ru_ru", "zh-CN": "cmn_hans_cn"}
    named |= {
        "ast": "ast_es",
        "ky": "ky_kg",
        "gl": "gl_es",
        "kk": "kk_kz",
        "ca": "ca_es",
        "pt": "pt_br",
        "yue": "yue_hant_hk",
    }
    assert {code: fleurs.config_name(code) for code in named} == named


def test_fleurs_is_loaded_by_name(snapshot, tmp_path):
    assert len(load_corpus("fleurs", languages=["en"], root=snapshot, cache_dir=tmp_path / "cache")) == 24
