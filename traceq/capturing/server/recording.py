"""A profile that is stopped whatever happens, if and only if it may have been started.

A start that was refused, or never reached the server, leaves somebody else's profile alone. One
whose reply was lost may have gone through: it is stopped, as a profile that nobody ends eats the
server's memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from traceq.capturing.server.arrival import Say
from traceq.capturing.server.engine import Engine, Order
from traceq.capturing.server.http import NoReplyError
from traceq.errors import CaptureError

LONGEST_STOP = 600.0
"""The least time a stop is given: the server packs and writes its traces before it replies."""

_UNDO = 60.0


class Profile:
    """A profile that was started."""

    def __init__(self, engine: Engine, timeout: float) -> None:
        self._engine = engine
        self._timeout = max(timeout, LONGEST_STOP)
        self.is_over = False

    def stop(self) -> bool:
        """Stop it; False: it had ended by itself, or never begun."""
        try:
            was_running = self._engine.stop(self._timeout)
        except CaptureError:
            self.is_over = True  # not tried twice: the server is gone, or will not
            raise
        # Not before: where this is interrupted, the request may not have gone out yet.
        self.is_over = True
        return was_running


@contextlib.contextmanager
def recording(engine: Engine, order: Order, timeout: float, notify: Say) -> Iterator[Profile]:
    """Start a profile. If the block fails or is interrupted before its end, stop it."""
    profile = Profile(engine, timeout)
    try:
        _start(engine, order, profile)
        yield profile
    except CaptureError as error:
        if not profile.is_over:
            error.hint = " ".join(filter(None, (error.hint, _undo(engine))))
        raise
    except BaseException:
        if not profile.is_over:
            notify("stopping the server's profile (interrupt again not to wait)")
            if (failed := _undo(engine)) is not None:
                notify(failed)
        raise


def _start(engine: Engine, order: Order, profile: Profile) -> None:
    try:
        engine.start(order)
    except CaptureError as error:
        profile.is_over = not (isinstance(error, NoReplyError) and error.sent)
        raise


def _undo(engine: Engine) -> str | None:
    """Stop it and take it back if it had not begun; says so where that did not work."""
    try:
        if not engine.stop(_UNDO):
            engine.disarm()
    except CaptureError as error:
        url = engine.client.address.base
        return (
            f"The profile could not be stopped ({error.message}): "
            f"if the server still runs, curl -X POST {url}/stop_profile"
        )
    return None
