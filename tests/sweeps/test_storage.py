"""Addresses of databases, and what a worker says of one that does not answer."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from stages.common.errors import UserError
from sweeps.storage import connect, parse, refusal
from tests.project import ROOT, command


@pytest.mark.parametrize(
    ("address", "password", "host", "database"),
    [
        ("postgresql://user:secret@host:5432/db", "secret", "host", "db"),
        ("postgres://user:secret@host/db", "secret", "host", "db"),
        ("postgresql://user:p@ss@host/db", "p@ss", "host", "db"),
        ("postgresql://user:p/a:s?s#@host/db", "p/a:s?s#", "host", "db"),
        ("postgresql://user:100%@host/db?sslmode=require", "100%", "host", "db"),
        ("postgresql://user:p%40s%2Fs@host/db", "p@s/s", "host", "db"),
        ("postgresql://user@host/db", None, "host", "db"),
        ("postgresql://host/db", None, "host", "db"),
        ("postgresql://user:@host/db", "", "host", "db"),
        ("postgresql+psycopg2://user:secret@host/db", "secret", "host", "db"),
        ("postgresql://user:secret@[::1]:5432/db", "secret", "::1", "db"),
        ("sqlite:////home/a@b:c/studies.db", None, None, "/home/a@b:c/studies.db"),
    ],
)
def test_an_address(address: str, password: str | None, host: str | None, database: str) -> None:
    url = parse(address)
    assert (url.password, url.host, url.database) == (password, host, database)
    assert url.username == ("user" if "user" in address else None)
    assert url.drivername == ("sqlite" if address.startswith("sqlite") else "postgresql+psycopg")
    assert parse(url.render_as_string(hide_password=False)) == url
    assert "sslmode" not in address or url.query["sslmode"] == "require"


@pytest.mark.parametrize(
    "address",
    [
        *("", "studies.db", "user:secret@host", "x://user:secret@host/db", "://secret@", "sqlite://"),
        "mysql://user:secret@host/db",
        "postgresql://host/db?user=a@b&password=secret",
        "postgresql://host/db?password=se@cret",
        "postgresql://host:5432/db?password=se@cr/et",
        "postgresql://host/db?password=secret",
        "postgresql://user:secret@host/db?password=secret&password=secret",
        "postgresql://user:secret@host:port/db",
        "postgresql://user:secret@host/db;password=secret",
        "postgresql://user:secret\udcff@host/db",
    ],
)
def test_what_is_no_address_is_not_repeated(address: str) -> None:
    with pytest.raises(
        UserError, match=r"^--storage (is no address of a database: it must be like|has a password behind)"
    ) as refused:
        parse(address)
    assert not re.search("secret|cret|et$", str(refused.value))


@pytest.mark.parametrize("password", ["p@ss/w%rd", "p%40ss", "b"])
def test_no_part_of_a_password_is_printed(password: str) -> None:
    """Neither by an address that is misread, nor by a server that repeats it, nor among the processes."""
    url = parse(f"postgresql://someone:{password}@127.0.0.1:1/db")
    with pytest.raises(UserError, match="refused") as refused:
        connect(url)
    words = str(refused.value)
    assert words.count("\n") == 0
    assert words.startswith("--storage postgresql+psycopg://someone:***@127.0.0.1:1/db")
    said = OperationalError("", None, Exception(f"login as {url.password} failed"))
    error = StorageInternalError("without a reason")
    error.__cause__ = said
    assert "and is not shown" in str(refusal(url, error))
    error.__cause__ = OperationalError("", None, Exception("no such user\nmore"))
    assert str(refusal(url, error)).startswith(f"--storage {url}: no such user: ")


def test_the_address_may_stand_in_a_variable(tmp_path: Path) -> None:
    words = ("-m", "sweeps", "status", "x")
    result = command(ROOT, sys.executable, *words, SWEEP_STORAGE="postgres://a:b@127.0.0.1:1/db")
    assert result.returncode == 1
    assert result.stderr.startswith("error: --storage postgresql+psycopg://a:***@127.0.0.1:1/db")


def test_workers_that_come_first_at_once_all_find_the_tables(tmp_path: Path) -> None:
    code = "import sys; from sweeps.storage import connect, parse; connect(parse(sys.argv[1]))"
    args = [sys.executable, "-W", "ignore", "-c", code, f"sqlite:///{tmp_path}/studies.db"]
    first = [subprocess.Popen(args, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate()[1] for process in first]
    assert [process.returncode for process in first] == [0, 0, 0], errors
