"""BentoML: a service with NumPy arrays in and out; raw bytes through an ASGI app mounted beside it."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from work import binary as binary_work
from work import top_k as top_k_work


async def tensor(request: Request) -> Response:
    return Response(binary_work(await request.body()), media_type="application/octet-stream")


@bentoml.asgi_app(Starlette(routes=[Route("/binary", tensor, methods=["POST"])]))
@bentoml.service(workers=1, traffic={"max_concurrency": 64})
class Service:
    @bentoml.api
    async def top_k(self, attention_matrix: np.ndarray, sparsity_ratio: float) -> np.ndarray:
        return top_k_work({"attention_matrix": attention_matrix, "sparsity_ratio": sparsity_ratio})[
            "processed_attention"
        ]


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    port = sys.argv[1]
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_service:Service", "--port", port]
    os.chdir(Path(__file__).resolve().parent)
    os.execv(sys.executable, [*command, "--host", "127.0.0.1"])
