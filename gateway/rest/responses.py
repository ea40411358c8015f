"""/v1/responses: create, fetch, follow, cancel, delete, list the input, count it."""

from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.durable.record import RunRecord
from gateway.durable.responses import Relower
from gateway.exchange import Exchange
from gateway.replies import json_response
from gateway.responses.recollection import Recollection
from gateway.responses.service import Responses
from gateway.rest.calls import CallRunner, Lowering, Origin, answer, context_of, notes
from gateway.rest.sse import TokenStreamResponse
from openai_compat.job import Prepared
from openai_compat.purpose import require_generation
from openai_compat.responses.lower import ResponseJob, count_tokens, lower_response
from openai_compat.responses.query import read_page, read_retrieval
from openai_compat.responses.stored import Key, Past
from openai_compat.served import CallContext, ServedModel

_PATH = "/v1/responses"


def routes(calls: CallRunner, responses: Responses, recollection: Recollection) -> APIRouter:
    """The routes. A response belongs to the API key that made it; to others it is not there."""
    router = APIRouter()

    @router.post(_PATH)
    async def create_response(request: Request) -> Response:
        lower = partial(_lower, keeps=responses.keeps)
        salt = Exchange.of(request.scope).salt
        asked, origin = await calls.recalled(request, partial(_recall, recollection, salt, lower))
        return await _created(asked, origin, request, calls, responses)

    @router.post(_PATH + "/input_tokens")
    async def count_input_tokens(request: Request) -> Response:
        salt = Exchange.of(request.scope).salt
        counted, _ = await calls.recalled(request, partial(_recall, recollection, salt, _count))
        return json_response(counted.body, headers=notes(counted.ignored))

    @router.get(_PATH + "/{response_id}")
    async def retrieve_response(request: Request, response_id: str) -> Response:
        key, asked = _key(request, response_id), read_retrieval(_query(request))
        if not asked.stream:
            return json_response(await responses.body(key))
        return TokenStreamResponse(await responses.follow(key, asked), calls.pace, {})

    @router.delete(_PATH + "/{response_id}")
    async def delete_response(request: Request, response_id: str) -> Response:
        await responses.delete(_key(request, response_id))
        told = {"id": response_id, "object": "response", "deleted": True}
        return json_response(msgspec.json.encode(told))

    @router.post(_PATH + "/{response_id}/cancel")
    async def cancel_response(request: Request, response_id: str) -> Response:
        return json_response(await responses.cancel(_key(request, response_id)))

    @router.get(_PATH + "/{response_id}/input_items")
    async def list_input_items(request: Request, response_id: str) -> Response:
        page = read_page(_query(request))
        return json_response(await responses.input_items(_key(request, response_id), page))

    return router


def relowering(calls: CallRunner, recollection: Recollection) -> Relower:
    """What makes a response again that was written down."""

    async def relower(record: RunRecord) -> ResponseJob:
        caller = record.caller
        context = context_of(record.stem, record.now, record.seed, caller)
        exchange = Exchange(f"req-{record.stem}", "POST", 0.0, caller=caller)
        recall = partial(_recall, recollection, caller.salt, partial(_lower, keeps=True))
        return await calls.again(Origin(record.body, context), exchange, recall)

    return relower


async def _recall(
    recollection: Recollection, salt: bytes, lower: Any, body: dict[str, Any]
) -> tuple[Lowering[Any], int]:
    past = await recollection.past(body, salt)
    return partial(lower, past=past), past.size


def _lower(
    body: dict[str, Any], model: ServedModel, context: CallContext, *, past: Past, keeps: bool
) -> ResponseJob:
    require_generation(model)
    return lower_response(body, model, context, past, keeps=keeps)


def _count(
    body: dict[str, Any], model: ServedModel, context: CallContext, *, past: Past
) -> Prepared:
    require_generation(model)
    return count_tokens(body, model, context, past)


async def _created(
    asked: ResponseJob, origin: Origin, request: Request, calls: CallRunner, responses: Responses
) -> Response:
    exchange = Exchange.of(request.scope)
    headers = notes(asked.job.ignored)
    if asked.delivery.background:
        context, shown = origin.context, asked.renderer.body()
        record = RunRecord(
            context.id, context.now, context.seed, exchange.caller, shown, origin.body
        )
        follower = await responses.background(asked, record, exchange, calls.start)
        if asked.delivery.stream:
            return TokenStreamResponse(follower, calls.pace, headers)
        return json_response(await responses.body(follower.key), headers=headers)
    call = await responses.foreground(asked, exchange, calls.start)
    if asked.delivery.stream:
        return TokenStreamResponse(call, calls.pace, headers)
    return json_response(await answer(call, request), headers=headers)


def _key(request: Request, response_id: str) -> Key:
    return Key(Exchange.of(request.scope).salt, response_id)


def _query(request: Request) -> list[tuple[str, str]]:
    return request.query_params.multi_items()
