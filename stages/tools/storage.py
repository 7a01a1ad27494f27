"""Optuna's storage in a database that may go away for a while."""

import os
import sys

import optuna
import tenacity
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from stages.study.errors import UserError

HEARTBEAT = int(os.environ.get("SWEEP_HEARTBEAT", "30"))  # seconds; four missed ones: the worker is dead


def connect(url: str) -> optuna.storages.RDBStorage:
    """The storage at ``url``. Where the database goes away, it tries again for ten minutes.

    What is tried again is one transaction. Where only the answer to it was lost it is done twice, and
    leaves a second copy of a waiting trial, or a trial that runs nowhere: the workers deal with both.

    Raises:
        UserError: it does not answer at all.
    """
    lite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if lite else {"pool_pre_ping": True}
    try:
        # of several workers that come first at once, one makes the tables and the others fail on them
        storage = tenacity.retry(
            retry=tenacity.retry_if_exception_type(DatabaseError),
            wait=tenacity.wait_random(0.1, 0.5),
            stop=tenacity.stop_after_attempt(5),
            reraise=True,
        )(optuna.storages.RDBStorage)(url, options, heartbeat_interval=HEARTBEAT, grace_period=4 * HEARTBEAT)
    except (ImportError, SQLAlchemyError) as error:
        raise UserError(f"--storage: {str(error).splitlines()[0]}") from None
    if lite:  # it has no SELECT FOR UPDATE, without which two workers can take one trial
        event.listen(storage.engine, "connect", lambda link, _: setattr(link, "isolation_level", None))
        event.listen(storage.engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    again = tenacity.retry(
        retry=tenacity.retry_if_exception(lambda e: OperationalError in (type(e), type(e.__cause__))),
        wait=tenacity.wait_random_exponential(max=5),
        stop=tenacity.stop_after_delay(600),
        before_sleep=lambda _: print("the database does not answer: trying again", file=sys.stderr),
        reraise=True,
    )
    for name in (
        *optuna.storages.BaseStorage.__abstractmethods__,
        "record_heartbeat",
        "_get_stale_trial_ids",
    ):
        setattr(storage, name, again(getattr(storage, name)))
    return storage
