"""Optuna's storage in a database that may go away for a while."""

import sys
from typing import NoReturn

import tenacity
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from sqlalchemy import event
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError

from stages.common.errors import UserError


def connect(url: str, heartbeat: int) -> _CachedStorage:
    """The storage at ``url``. Where the database goes away, it tries again for ten minutes.

    Each worker gives a sign of life every ``heartbeat`` seconds; after four missed ones it counts as dead.

    What is tried again is one transaction. If only its answer was lost, it is done twice and leaves a second
    copy of a waiting trial, or a trial that runs nowhere: the workers deal with both.

    Raises:
        UserError: the database does not answer at the start, or later for ten minutes.
    """
    sqlite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
    try:
        # of several workers that come first at once, one makes the tables and the others fail on them
        database = tenacity.Retrying(
            wait=tenacity.wait_random(0.1, 0.5), stop=tenacity.stop_after_attempt(5), reraise=True
        )(RDBStorage, url, options, heartbeat_interval=heartbeat, grace_period=4 * heartbeat)
    except Exception as error:  # whatever a driver, SQLAlchemy and Optuna raise
        raise UserError(f"--storage: {str(error).splitlines()[0]}") from None
    if sqlite:  # it has no SELECT FOR UPDATE, without which two workers can take one trial
        event.listen(database.engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    # raised by the database, by Optuna because of it, or by Optuna's rollback
    lost = (OperationalError, InterfaceError, PendingRollbackError)
    retry = tenacity.retry(
        retry=tenacity.retry_if_exception_type(lost) | tenacity.retry_if_exception_cause_type(lost),
        wait=tenacity.wait_random_exponential(max=5),
        stop=tenacity.stop_after_delay(600),
        before_sleep=lambda _: print("the database does not answer: trying again", file=sys.stderr),
        retry_error_callback=_give_up,
    )
    # around all that a study calls; what that calls in turn is tried again with it
    storage = _CachedStorage(database)
    for name in BaseStorage.__abstractmethods__ | {"record_heartbeat", "_get_stale_trial_ids"}:
        setattr(storage, name, retry(getattr(storage, name)))
    return storage


def _give_up(_: tenacity.RetryCallState) -> NoReturn:
    raise UserError("--storage: the database has not answered for ten minutes")
