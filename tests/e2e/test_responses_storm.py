"""Many responses at once, made, followed, cut, cancelled and deleted: nothing is left behind."""

import asyncio
import random

import openai

from tests.support.live import MODEL, eventually, live, test_settings

KINDS = ("whole", "stream", "cut", "background", "followed", "cut_background", "cancel", "delete")


async def one(sdk, kind, rnd):
    """One client's doings; its events are dense wherever it reads to the end."""
    make = sdk.responses.create
    asked = {"model": MODEL, "input": f"hello {kind}", "max_output_tokens": rnd.choice([5, 40])}
    if kind == "whole":
        await make(**asked)
    elif kind in ("stream", "cut", "followed", "cut_background"):
        behind = kind in ("followed", "cut_background")
        stream = await make(**asked, stream=True, background=behind)
        wanted = rnd.randrange(1, 20) if kind.startswith("cut") else 10_000
        await check_dense(stream, wanted)
        await stream.close()
    else:
        made = await make(**asked, background=True)
        await asyncio.sleep(rnd.random() / 5)
        if kind == "background":
            await check_dense(await sdk.responses.retrieve(made.id, stream=True), 10_000)
        elif kind == "cancel":
            await sdk.responses.cancel(made.id)
        else:
            await sdk.responses.delete(made.id)


async def check_dense(stream, wanted):
    number = -1
    async for event in stream:
        assert event.sequence_number == number + 1
        number = event.sequence_number
        if number >= wanted:
            return


def test_nothing_is_left_of_a_storm():
    """No live response, task, block or place; and the store is within its bytes."""
    rnd = random.Random(7)
    with live(test_settings(response_store_bytes=1_000_000)) as server:
        tasks = server.tasks()

        async def storm():
            async with openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as sdk:
                for _ in range(3):
                    kinds = [rnd.choice(KINDS) for _ in range(40)]
                    await asyncio.gather(*(one(sdk, kind, rnd) for kind in kinds))

        asyncio.run(storm())
        eventually(server.quiet)
        eventually(lambda: server.tasks() == tasks)
        assert server.load().blocks_used == 0
        metrics = server.process.parts.metrics.text().decode()
        stored = dict(x.split() for x in metrics.splitlines() if x.startswith("penstock_stored_"))
        assert 0 < float(stored["penstock_stored_response_bytes"]) <= 1_000_000
