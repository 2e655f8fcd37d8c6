"""MLServer: a custom runtime behind its Open Inference REST server."""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from work import top_k


class Runtime(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        matrix = NumpyCodec.decode_input(payload.inputs[0])
        if self.name == "top_k":
            matrix = top_k({"attention_matrix": matrix, "sparsity_ratio": 0.8})["processed_attention"]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("result", matrix)])


async def main(port: int) -> None:
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0, debug=False
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name=name, implementation=Runtime) for name in ("top_k", "binary")])


asyncio.run(main(int(sys.argv[1])))
