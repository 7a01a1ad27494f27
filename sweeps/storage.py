"""The studies' database: Optuna's storage in an SQLite file, or on a PostgreSQL server for many machines."""

import random
import re
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from stages.common.errors import UserError

VARIABLE = "SWEEP_STORAGE"  # holds an address that shall stand in no list of processes
LOST = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)  # raised where the database does not answer
POSTGRES = "postgresql+psycopg"
# login; host, port, database and options. Whatever driver is named, psycopg is the one that is installed
SERVER = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(.*@)?((?:[\w.-]*|\[[\da-f:.]+\])(?::\d+)?/[^/?@;]+(?:\?[^@]*)?)", re.DOTALL
)


def parse(address: str) -> sqlalchemy.URL:
    """The database at ``address``; ``postgres://`` means PostgreSQL too.

    The last ``@`` ends the password, which may hold any character as it is. Only ``%`` and two hexadecimal
    digits stand for another one, as in all addresses.

    Raises:
        UserError: it is no such address, or could be read in two ways. Nothing of it is repeated.
    """
    if re.fullmatch(r"sqlite:///.+", address):
        return sqlalchemy.make_url(address)
    parts = (
        SERVER.fullmatch(address) if address.isprintable() else None
    )  # no surrogates, no control characters
    login, place = (parts[1] or "", parts[2]) if parts else ("", "")
    user, colon, password = login.removesuffix("@").partition(":")
    if not parts or re.search(r"[/?]", user) or re.search(r"\?.*=", password):
        raise UserError(
            "--storage is no address of a database: it must be like sqlite:///folder/studies.db or "
            "postgresql://user:password@host:5432/database, and a ? or @ that misleads written as %3F or %40"
        )
    url = sqlalchemy.make_url(f"{POSTGRES}://{place}")
    if any("password" in option.lower() for option in url.query):
        raise UserError("--storage has a password behind the ?: write it before the @, or into ~/.pgpass")
    return url.set(username=unquote(user) or None, password=unquote(password) if colon else None)


def connect(url: sqlalchemy.URL) -> tuple[RDBStorage, AbstractContextManager[object]]:
    """Optuna's storage at ``url``, and what to hold while a trial is taken there.

    SQLite has no SELECT FOR UPDATE, without which two workers can take one trial: they take turns by a lock
    file. Nothing is left on the server between two transactions, so that a pooler may share its connections.

    Raises:
        UserError: the database does not answer.
    """
    lock: AbstractContextManager[object] = nullcontext()
    options: dict[str, object] = {"pool_pre_ping": True}
    if url.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": 60}}
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{url.database}.lock")
    elif url.drivername == POSTGRES:
        options["connect_args"] = {"prepare_threshold": None}
        url = url.update_query_dict({"connect_timeout": "30"} | dict(url.query))
    attempts = 5  # of workers that come first at once, one makes the tables and the others fail
    while True:
        try:
            with lock:
                return RDBStorage(url.render_as_string(hide_password=False), options), lock
        except Exception as error:  # whatever a driver, SQLAlchemy and Optuna raise
            attempts -= 1
            if not attempts:
                raise refusal(url, error) from None
            time.sleep(random.uniform(0.1, 0.5))


def refusal(url: sqlalchemy.URL, error: BaseException) -> UserError:
    """What ``error`` says, in one line without the password."""
    error = error.__cause__ or error  # Optuna says less than the database
    words = str(getattr(error, "orig", None) or error)
    reason = " ".join(words.split("\n")[0].split())
    password = url.password or ""
    if password and (password in words or quote(password, safe="") in words):
        reason = "what it says has the password in it, and is not shown"
    shown = url.set(query={}).render_as_string()
    return UserError(f"--storage {shown}: {reason}: what is done is kept; mend this, then start again")
