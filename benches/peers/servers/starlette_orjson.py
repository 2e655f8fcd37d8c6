"""Starlette with orjson and nothing else."""

import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from work import binary, top_k


async def execute(request: Request) -> Response:
    answer = {"status": "success", "data": top_k(orjson.loads(await request.body()))}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def tensor(request: Request) -> Response:
    return Response(binary(await request.body()), media_type="application/octet-stream")


app = Starlette(
    routes=[Route("/top_k", execute, methods=["POST"]), Route("/binary", tensor, methods=["POST"])],
)
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
