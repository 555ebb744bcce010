"""What must survive: kills, full disks, damaged files, a second run at the same time."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dummy_training import make_plan, train

from cltmlib import sweep
from cltmlib.errors import InputError

DRIVER = str(Path(__file__).with_name("dummy_training.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def start_driver(folder, sleep_s=0.05):
    words = [str(folder / name) for name in ("runs.sqlite", "table.csv", "log")]
    return subprocess.Popen(
        [sys.executable, DRIVER, *words, str(sleep_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def n_finished(folder):
    if not (folder / "runs.sqlite").is_file():
        return 0
    try:
        store = sweep.RunStore.read(folder / "runs.sqlite")
    except InputError:  # not yet a table in it
        return 0
    with store:
        return len(store)


def test_killed_sweep_resumes_with_nothing_lost_and_nothing_repeated(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert start_driver(whole).wait(60) == 0

    random_source, finished_before, n_kills = random.Random(2), set(), 0
    for _ in range(6):
        before = n_finished(killed)
        driver = start_driver(killed)
        # Anywhere in the start-up, or a random while after a further training has finished.
        if n_kills % 2:
            wait_until(lambda n=before, d=driver: n_finished(killed) > n or d.poll() is not None)
        time.sleep(random_source.uniform(0, 0.3))
        children = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        driver.send_signal(signal.SIGKILL)
        n_kills += driver.wait(10) == -signal.SIGKILL
        assert wait_until(lambda c=children: not any(p.is_running() and p.status() != "zombie" for p in c)), children
        if n_finished(killed):
            with sweep.RunStore.read(killed / "runs.sqlite") as store:
                keys = {key for (key,) in store._connection.execute("SELECT key FROM trainings")}
            assert finished_before <= keys
            finished_before = keys
    assert n_kills >= 2 and finished_before

    log = killed / "log"
    log.write_text("")
    assert start_driver(killed).wait(60) == 0
    repeated = set(log.read_text().split()) & finished_before
    assert not repeated
    assert (killed / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()


def test_full_disk_is_one_sentence_and_keeps_what_is_finished(tmp_path):
    plan = make_plan(["de", "ca", "tr", "hu"], [0, 1], {"padding": "x" * 3000})
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages + 8}")  # SQLite's own SQLITE_FULL, as on a full disk
        with pytest.raises(InputError, match="disk is full"):
            sweep.run(plan.trainings, train, store, n_workers=1)
        n_kept = len(store)
    assert 0 < n_kept < len(plan.trainings)
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        assert len(store) == n_kept
        assert len(sweep.run(plan.trainings, train, store, n_workers=1)) == len(plan.trainings)


def test_second_run_on_the_same_store_is_refused_at_once(tmp_path):
    driver = start_driver(tmp_path, sleep_s=1)
    assert wait_until((tmp_path / "runs.sqlite").is_file)
    clock = time.monotonic()
    with pytest.raises(InputError, match="Another run is using"):
        sweep.RunStore(tmp_path / "runs.sqlite")
    assert time.monotonic() - clock < 1
    second = start_driver(tmp_path)
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 1 and output.count("\n") == 1 and "Another run is using" in output
    driver.kill()
    driver.wait()
    sweep.RunStore(tmp_path / "runs.sqlite").close()  # the lock went with the process


@pytest.mark.parametrize("damage", ["text", "header", "page", "other"])
def test_damaged_store_is_one_sentence_and_is_left_alone(tmp_path, damage):
    path = tmp_path / "runs.sqlite"
    with sweep.RunStore(path) as store:
        sweep.run(make_plan(["de", "ca", "tr"], [0], {"padding": "x" * 3000}).trainings, train, store, n_workers=1)
    content = bytearray(path.read_bytes())
    if damage == "text":
        content[:] = b"not a database at all, but long enough to have a header of a hundred bytes or more " * 20
    elif damage == "header":
        content[:16] = bytes(16)
    elif damage == "page":
        content[4096 : 3 * 4096] = bytes(2 * 4096)
    path.write_bytes(content)
    if damage == "other":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE recipes (name TEXT)")
        other.close()
    content = path.read_bytes()
    for opened in (sweep.RunStore, sweep.RunStore.read):
        with pytest.raises(InputError, match=r"damaged|no run store of this version"):
            opened(path)
    assert path.read_bytes() == content


def test_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        sweep.RunStore(tmp_path / "file" / "runs.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        sweep.RunStore(tmp_path / "folder.sqlite")
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        store._connection.execute("PRAGMA query_only=ON")  # SQLite's own SQLITE_READONLY
        with pytest.raises(InputError, match="cannot be written"):
            sweep.run(make_plan(["de", "ca"], [0]).trainings, train, store, n_workers=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        sweep.RunStore(tmp_path / "runs.sqlite")


def test_missing_store_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="There is no run store"):
        sweep.RunStore.read(tmp_path / "runs.sqlite")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_refused_training_stops_the_sweep_with_its_sentence(tmp_path, n_workers):
    trainings = make_plan(["de", "ca", "tr"], [0], {"fail": "ca seed 0"}).trainings
    trainings.sort(key=lambda training: training.label == "ca seed 0")
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        with pytest.raises(InputError, match="ca seed 0 cannot be done: mend it"):
            sweep.run(trainings, train, store, n_workers=n_workers)
        assert len(store) >= len(trainings) - 2  # one may still have been under way in the other worker
    assert not multiprocessing.active_children()


def test_lost_worker_is_one_sentence_and_keeps_what_is_finished(tmp_path):
    trainings = make_plan(["de", "ca", "tr"], [0], {"die": "tr+tr' seed 0"}).trainings
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        with pytest.raises(InputError, match=r"tr\+tr' seed 0.*exit code 7.*kept"):
            sweep.run(trainings, train, store, n_workers=2)
        assert len(store) >= 6
