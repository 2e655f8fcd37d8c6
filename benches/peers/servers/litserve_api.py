"""LitServe: one worker, requests decoded from JSON."""

import sys

import litserve
from work import top_k


class Work(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: dict) -> dict:
        return request

    def predict(self, inputs: dict) -> dict:
        return top_k(inputs)

    def encode_response(self, output: dict) -> dict:
        return {"status": "success", "data": {name: value.tolist() for name, value in output.items()}}


if __name__ == "__main__":
    server = litserve.LitServer(Work(api_path="/top_k"), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="warning")
