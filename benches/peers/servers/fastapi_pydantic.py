"""FastAPI with the model and the response that its documentation shows."""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from work import binary, top_k

app = FastAPI()


class Inputs(BaseModel):
    attention_matrix: list[list[float]]
    sparsity_ratio: float = 0.8


@app.post("/top_k")
async def execute(inputs: Inputs) -> dict:
    result = top_k(inputs.model_dump())
    return {"status": "success", "data": {name: value.tolist() for name, value in result.items()}}


@app.post("/binary")
async def tensor(request: Request) -> Response:
    return Response(binary(await request.body()), media_type="application/octet-stream")


uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
