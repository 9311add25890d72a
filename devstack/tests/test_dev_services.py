"""`./dev services`: the embedded database and broker, started, killed, refused, and left behind."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devstack.tests.dev_process import (
    ROOT,
    clean_environment,
    descendants,
    dev,
    is_alive,
    processes_of,
    wait_until,
)

pytestmark = [pytest.mark.stack]

READY = r"^services ready: \. (.*)$"
BUSY = (
    "select count(md5((a * b)::text)) from generate_series(1, 30000::bigint) a, generate_series(1, 1000000::bigint) b"
)


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder with a short path, as sockets need one."""
    with tempfile.TemporaryDirectory(prefix="oc-") as folder:
        yield Path(folder) / "data"


def services(data: Path) -> tuple[str, ...]:
    return ("services", "--without-cluster", "--data", str(data))


def variables(data: Path) -> dict[str, str]:
    lines = (data / "env").read_text(encoding="utf-8").splitlines()
    return {name: value.strip("'") for name, value in (line.removeprefix("export ").split("=", 1) for line in lines)}


def query(data: Path, statement: str) -> object:
    with psycopg.connect(variables(data)["DATABASE_URL"]) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def answers(data: Path) -> bool:
    try:
        return query(data, "select 1") == 1
    except psycopg.OperationalError:
        return False


def test_data_survives_a_clean_stop_and_nothing_stays_behind(data: Path) -> None:
    with dev(*services(data)) as first:
        first.wait_for(READY)
        query(data, "create table kept (word text)")
        query(data, "insert into kept values ('safe')")
        started = descendants(first.pid)
        assert first.stop() == 0
    assert [pid for pid in started if is_alive(pid)] == []
    with dev(*services(data)) as second:
        second.wait_for(READY)
        assert query(data, "select word from kept") == "safe"
        assert second.stop(signal.SIGINT) == 0
    assert processes_of(data) == {}


def test_everything_in_the_data_folder_is_private(data: Path) -> None:
    with dev(*services(data)) as running:
        running.wait_for(READY)
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        for path in data.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        password = variables(data)["REDIS_URL"].split(":")[2].split("@")[0]
        assert not [line for line in processes_of(data).values() if password in line]


@pytest.mark.parametrize("program", ["bin/postgres", "valkey-server", "devstack.guard"])
def test_a_killed_server_is_back_within_five_seconds(data: Path, program: str) -> None:
    with dev(*services(data)) as running:
        running.wait_for(READY)
        killed = running.child(program)
        os.kill(killed, signal.SIGKILL)
        wait_until("the killed process is gone", lambda: not is_alive(killed), 5)
        wait_until("another one runs", lambda: running.child(program) != killed, 5)
        wait_until("the database answers", lambda: answers(data), 5)


def test_a_busy_backend_does_not_keep_a_killed_database_away(data: Path) -> None:
    with dev(*services(data)) as running:
        running.wait_for(READY)
        with contextlib.closing(psycopg.connect(variables(data)["DATABASE_URL"])) as connection:
            backend = connection.info.backend_pid
            connection.pgconn.send_query(BUSY.encode())
            os.kill(running.child("bin/postgres"), signal.SIGKILL)
            wait_until("the busy backend is gone", lambda: not is_alive(backend), 5)
            wait_until("the database answers", lambda: answers(data), 5)


def test_killing_the_supervisor_leaves_no_orphan(data: Path) -> None:
    with dev(*services(data)) as running:
        running.wait_for(READY)
        with contextlib.closing(psycopg.connect(variables(data)["DATABASE_URL"])) as connection:
            connection.pgconn.send_query(BUSY.encode())
            started = descendants(running.pid)
            os.kill(running.pid, signal.SIGKILL)
            running.finish()
            wait_until("all are gone", lambda: not any(is_alive(pid) for pid in started), 10)
    assert processes_of(data) == {}


def test_killing_supervisor_and_guard_together_does_not_prevent_the_next_start(data: Path) -> None:
    with dev(*services(data)) as running:
        running.wait_for(READY)
        guard = running.child("devstack.guard")
        os.kill(guard, signal.SIGKILL)
        os.kill(running.pid, signal.SIGKILL)
        running.finish()
    with dev(*services(data)) as second:
        second.wait_for(READY)
        assert query(data, "select 1") == 1


def test_a_second_one_on_the_same_folder_is_refused_by_name(data: Path) -> None:
    with dev(*services(data)) as first:
        first.wait_for(READY)
        with dev(*services(data)) as second:
            assert second.finish() == 1
        assert f"OpenCrane already runs on {data} (process {first.pid})" in second.text
        assert answers(data)


def test_a_long_path_moves_the_sockets_and_cleans_them_up(data: Path) -> None:
    deep = data / ("long-" * 30)
    with dev(*services(deep)) as running:
        running.wait_for(READY)
        assert answers(deep)
        sockets = variables(deep)["DATABASE_URL"].partition("host=")[2]
        assert stat.S_IMODE(os.stat(sockets).st_mode) == 0o700
        assert running.stop() == 0
    assert not os.path.exists(sockets)


def test_somebody_elses_folder_is_left_alone(data: Path) -> None:
    data.mkdir(mode=0o755)
    (data / "letter.txt").write_text("dear", encoding="utf-8")
    with dev(*services(data)) as running:
        assert running.finish() == 1
    assert "is not empty and no OpenCrane data folder" in running.text
    assert os.listdir(data) == ["letter.txt"]
    assert stat.S_IMODE(data.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("postgres/PG_VERSION", "12\n", "was made by PostgreSQL 12, but this OpenCrane brings 18"),
        ("postgres/PG_VERSION", None, "is damaged: it has no readable PG_VERSION"),
        ("postgres/global/pg_control", None, "postgres does not start: "),
        ("secrets.json", "{", "secrets.json cannot be read"),
        ("secrets.json", None, "holds a database but not its secrets.json"),
        ("opencrane.json", '{"format": 99}', "was written by another version of OpenCrane"),
    ],
)
def test_a_damaged_folder_is_refused_with_a_sentence(data: Path, file: str, content: str | None, sentence: str) -> None:
    with dev(*services(data)) as first:
        first.wait_for(READY)
        assert first.stop() == 0
    if content is None:
        (data / file).unlink()
    else:
        (data / file).write_text(content, encoding="utf-8")
    with dev(*services(data)) as second:
        assert second.finish() == 1
    assert sentence in second.lines[-1], second.text
    assert "Traceback" not in second.text


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["up", "--nonsense"], ["up", "--port", "70000"], ["up", "extra"], ["lint", "extra"]]
)
def test_a_wrong_command_line_ends_with_usage_and_status_two(arguments: list[str]) -> None:
    with dev(*arguments) as running:
        assert running.finish() == 2
    assert "usage: ./dev COMMAND" in running.text


def test_a_folder_that_is_no_environment_is_not_emptied_to_make_one(data: Path) -> None:
    data.mkdir()
    (data / "letter.txt").write_text("dear", encoding="utf-8")
    with dev("services", env={"OPENCRANE_VENV": str(data)}) as running:
        assert running.finish() == 1
    assert running.lines == [f"dev: {data} is not empty and no virtual environment; name another folder"]
    assert os.listdir(data) == ["letter.txt"]


def test_an_old_python_is_named_in_a_sentence(data: Path) -> None:
    data.mkdir()
    (data / "python3").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (data / "python3").chmod(0o755)
    for tool in ("sh", "dirname", "readlink"):
        (data / tool).symlink_to(f"/usr/bin/{tool}")
    result = subprocess.run(
        [ROOT / "dev", "help"], env={"PATH": str(data)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "OpenCrane needs Python 3.11 or newer" in result.stderr


AS_NOBODY = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--")


def environment_for_everybody(folder: Path) -> Path | None:
    """An environment with our packages and a Python that other users can run; None where there is none."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    for python in (sys.executable, "/usr/bin/python3"):
        environment = folder / "venv"
        shutil.rmtree(environment, ignore_errors=True)
        if subprocess.run([python, "-m", "venv", "--without-pip", environment], check=False).returncode != 0:
            continue
        own = environment / "lib" / Path(packages).parent.name / "site-packages"
        if not own.exists():
            continue  # another Python version than ours
        own.rmdir()
        own.symlink_to(packages)
        shutil.copy(Path(packages).parents[2] / ".opencrane-stamp", environment)
        # Through a shell: the kernel would still let root's setpriv start what nobody cannot.
        runs = '"$0" -c "import psycopg" && test -r "$1"'
        probe = ["/bin/sh", "-c", runs, str(environment / "bin" / "python"), str(ROOT / "dev")]
        if subprocess.run([*AS_NOBODY, *probe], capture_output=True, check=False).returncode == 0:
            return environment
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests already run as a normal user")
def test_a_normal_user_can_run_it(data: Path) -> None:
    folder = data.parent
    folder.chmod(0o755)
    environment = environment_for_everybody(folder)
    if environment is None:
        pytest.skip("NOT TESTED as a normal user: others may not read this checkout, or no Python for them is here")
    own = folder / "own"
    own.mkdir()
    shutil.chown(own, "nobody")
    env = clean_environment() | {
        "HOME": "/nonexistent",
        "PATH": "/usr/bin:/bin",
        "OPENCRANE_VENV": str(environment),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with dev(*services(own / "data"), env=env, prefix=AS_NOBODY) as running:
        running.wait_for(READY)
        assert (own / "data" / "secrets.json").owner() == "nobody"
        assert Path(f"/proc/{running.child('bin/postgres')}").owner() == "nobody"
        started = descendants(running.pid)
        assert running.stop() == 0
    assert [pid for pid in started if is_alive(pid)] == []
