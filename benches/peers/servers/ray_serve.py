"""Ray Serve: one replica behind its HTTP proxy."""

import sys
import time

import orjson
from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from work import binary, top_k


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Work:
    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(b"ready")
        body = await request.body()
        if request.url.path == "/binary":
            return Response(bytes(binary(body)), media_type="application/octet-stream")
        answer = {"status": "success", "data": top_k(orjson.loads(body))}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config={"log_level": "ERROR"})
serve.run(Work.bind(), route_prefix="/")
while True:
    time.sleep(1)
