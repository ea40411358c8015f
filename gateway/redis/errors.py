"""What a call to Redis may raise. Whoever calls goes on without an answer.

RedisUnusable            there is no answer to go by
  RedisDown              it does not answer, or not in time, or takes no writes
    Unanswered           it was asked all the same: what was asked may be done, now or later
  FunctionsMissing       it lacks the functions that `penstock redis-setup` puts there
  RedisRefused           it answered with an error: a permission, a key of another type
"""

from asyncio import Future

from redis.exceptions import ResponseError


class RedisUnusable(Exception):  # noqa: N818 - a state more than an error: callers go on without
    """There is no answer to go by. `retryable`: the same call may succeed in seconds."""

    retryable = False


class RedisDown(RedisUnusable):
    """It does not answer in time, or not at all; the same while calls are not even tried."""

    retryable = True


class Unanswered(RedisDown):
    """It was asked, and nothing was heard of it: the command may be done, or be done yet.

    `over` ends when it is under way no more; without it that is so already.
    """

    def __init__(self, words: str, over: Future[None] | None = None) -> None:
        super().__init__(words)
        self.over = over


class FunctionsMissing(RedisUnusable):
    """A function that this version calls is not there."""


class RedisRefused(RedisUnusable):
    """It answered with an error that trying again does not change."""


def in_a_line(error: BaseException) -> str:
    """What went wrong, in a line. Of what a server answers, its code: the rest may quote a call."""
    if not isinstance(error, ResponseError):
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    code = str(error).partition(" ")[0]
    return f"{type(error).__name__} {code}" if code.isupper() else type(error).__name__
