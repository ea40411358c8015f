"""An event loop that runs as far as a test says, at a time that the test says."""

import asyncio


class SteppedLoop(asyncio.SelectorEventLoop):
    """Never waits: what is due runs in `turn`, and the clock stands until `pass_time`."""

    def __init__(self):
        super().__init__()
        self._now = 0.0

    def time(self):
        return self._now

    def turn(self, count=1):
        """So many rounds of what is ready."""
        for _ in range(count):
            self.call_soon(self.stop)
            self.run_forever()

    def within(self, function, *args):
        """What a function answers that needs a running loop, beside what is ready."""

        async def call():
            return function(*args)

        task = self.create_task(call())
        self.turn()
        return task.result()

    def pass_time(self, seconds):
        """The clock moves, and what is due then runs."""
        self._now += seconds
        self.turn(2)

    @property
    def timers(self):
        """What is yet to come."""
        return [timer for timer in self._scheduled if not timer.cancelled()]

    def end(self):
        """Cancel what is left, and close."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.turn(6)
        self.close()
