"""The Open Inference Protocol by Triton's asynchronous client, unmodified."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from support.dtypes import DTYPES, SHAPES
from support.equality import same_values
from support.samples import echo_registry
from support.servers import serving
from support.triton import InferenceServerException, assert_echoed, sample, tensor

aio = pytest.importorskip("tritonclient.http.aio", reason="tritonclient[http] is not installed")


@pytest.fixture(scope="module")
def server():
    with serving(echo_registry(), model_control=True) as client:
        yield client


@asynccontextmanager
async def connected(server, prefix=""):
    async with aio.InferenceServerClient(f"{server.base_url.host}:{server.base_url.port}{prefix}") as client:
        yield client


async def refused(call, match, status):
    with pytest.raises(InferenceServerException, match=match) as raised:
        await call
    assert raised.value.status() == status


def test_health_metadata_and_settings(server):
    async def run():
        async with connected(server) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("echo")
            assert await client.is_model_ready("echo", "7")
            assert not await client.is_model_ready("echo", "1")
            assert (await client.get_server_metadata())["name"] == "zerocost"
            assert (await client.get_model_metadata("echo"))["versions"] == ["7"]
            assert (await client.get_model_metadata("echo", "7"))["versions"] == ["7"]
            assert (await client.get_model_config("echo"))["name"] == "echo"
            assert (await client.get_inference_statistics("echo"))["model_stats"]
            assert (await client.get_inference_statistics())["model_stats"]
            assert await client.get_trace_settings()
            assert await client.get_log_settings()
            await refused(client.update_trace_settings(settings={}), "not offered", "501")
            await refused(client.update_log_settings({}), "not offered", "501")
            await refused(client.get_model_metadata("nothing"), "Request for unknown model", "404")
            await refused(client.get_model_metadata("echo", "8"), "Request for unknown model", "404")

    asyncio.run(run())


def test_shared_memory(server):
    async def run():
        async with connected(server) as client:
            for region in ("", "a"):
                assert await client.get_system_shared_memory_status(region) == []
                assert await client.get_cuda_shared_memory_status(region) == []
                await client.unregister_system_shared_memory(region)
                await client.unregister_cuda_shared_memory(region)
            await refused(client.register_system_shared_memory("a", "/etc/passwd", 8), "not offered", "501")
            await refused(client.register_cuda_shared_memory("a", b"handle", 0, 8), "not offered", "501")

    asyncio.run(run())


def test_loading_and_unloading(server, serve):
    async def run():
        async with connected(server) as client:
            await client.unload_model("scale", unload_dependents=True)
            states = {entry["name"]: entry["state"] for entry in await client.get_model_repository_index()}
            assert states["scale"] == states["both"] == "UNAVAILABLE"
            assert not await client.is_model_ready("scale")
            await client.load_model("scale")
            await client.load_model("both")
            assert await client.is_model_ready("both")
            await refused(client.load_model("nothing"), "failed to load", "400")
            await refused(client.load_model("scale", config="{}", files={"file:1/m.py": b""}), "failed to load", "400")
            await refused(client.unload_model("nothing"), "unknown model", "404")
        async with connected(serve(echo_registry())) as off:
            await refused(off.load_model("scale"), "switched off", "403")
            await refused(off.unload_model("scale"), "switched off", "403")

    asyncio.run(run())


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_datatype_and_rank(server, datatype, shape):
    async def run():
        name = f"x_{datatype}"
        async with connected(server) as client:
            for binary_in, binary_out in ((True, True), (True, False), (False, True), (False, False)):
                if datatype in ("FP16", "BF16") and not binary_in:
                    continue  # the client sends 16-bit floats as binary only
                array = sample(datatype, shape, binary=binary_in and binary_out)
                inputs = [tensor(name, array, datatype, binary=binary_in)]
                outputs = [aio.InferRequestedOutput(name, binary_data=binary_out)]
                result = await client.infer("echo", inputs, outputs=outputs, request_id="r1", model_version="7")
                assert_echoed(result, name, array)

    asyncio.run(run())


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compression(server, coding, binary):
    async def run():
        big = np.zeros((100, 100), dtype=np.float32)
        async with connected(server) as client:
            result = await client.infer(
                "echo",
                [tensor("x_FP32", big, "FP32", binary=binary)],
                outputs=[aio.InferRequestedOutput("x_FP32", binary_data=binary)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert same_values(big, result.as_numpy("x_FP32"))

    asyncio.run(run())


def test_timeouts_versions_and_errors(server):
    async def run():
        number = [tensor("x_FP32", np.ones((2, 2), np.float32), "FP32")]
        sleep = [tensor("how", np.array([b"sleep"], dtype=object), "BYTES")]
        async with connected(server) as client:
            await client.infer("echo", number, priority=3, timeout=60_000_000)
            await refused(client.infer("picky", sleep, timeout=100_000), "deadline", "504")
            await refused(client.infer("echo", number, model_version="8"), "unknown model", "404")
            await refused(client.infer("scale", number), "unexpected inference input", "400")
        async with connected(server, "/prefix") as client:
            await refused(client.get_server_metadata(), "Not Found", "404")

    asyncio.run(run())
