"""What every artifact must keep, as a test mixin: inherit it and say how the artifact is made.

class TestMine(ArtifactContract):
    def make(self) -> Artifact:
        return MyArtifact()
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

import zerocost
from support.equality import same
from zerocost import ArtifactCommunicationService, ArtifactRegistry, ArtifactValidator, ExecutionContext


def context(name="under_test", **metadata):
    return ExecutionContext(name, "test", "zero_cost", metadata)


class ArtifactContract:
    """Every method is a test. Override ``make`` and, where the schema's example does not do, ``example``."""

    used = "a_name"
    """What ``artifact_used`` says when the artifact is called as ``a_name``."""

    def make(self):
        raise NotImplementedError

    def example(self, artifact):
        return ArtifactValidator(seed=7).generate_test_input(artifact.get_schema())

    def required(self, artifact):
        """The inputs that the example needs."""
        return artifact.get_schema()["required"]

    def test_the_validator_finds_nothing(self):
        assert ArtifactValidator().validate_artifact(self.make()) == (True, "Valid artifact")

    def test_it_describes_itself(self):
        artifact = self.make()
        assert artifact.get_description() not in ("", "No description provided")
        schema = artifact.get_schema()
        assert json.loads(json.dumps(schema)) == schema, "a schema must be plain JSON"
        assert schema["properties"]
        for name, subschema in schema["properties"].items():
            assert subschema.get("description") or subschema.get("x-in-process"), f"{name} has no description"

    def test_it_returns_what_it_declares(self):
        artifact = self.make()
        result = artifact.execute(self.example(artifact), context("a_name"))
        declared = artifact.get_schema()["x-outputs"]
        assert set(result) <= set(declared)
        assert artifact.get_schema()["x-main"]["output"] in result
        assert result["artifact_used"] == self.used

    def test_it_refuses_an_undeclared_key_by_name(self):
        artifact = self.make()
        data = {**self.example(artifact), "no_such_input": 1}
        with pytest.raises(zerocost.UndeclaredInput, match="no_such_input"):
            artifact.execute(data, context())
        assert not artifact.validate_input(data)

    def test_a_missing_input_is_named(self):
        artifact = self.make()
        required = self.required(artifact)
        assert required
        for name in required:
            data = {key: value for key, value in self.example(artifact).items() if key != name}
            with pytest.raises(ValueError, match=f"{name} required"):
                artifact.execute(data, context())
            assert [pointer for pointer, _ in artifact.input_errors(data)] == [f"/{name}"]

    def test_the_same_input_gives_the_same_bits(self):
        first, second = self.make(), self.make()
        data = self.example(first)
        assert same(first.execute(data, context()), second.execute(data, context()))

    def test_a_call_by_name_and_a_chain_give_the_same(self):
        direct = self.make()
        data = self.example(direct)
        expected = direct.execute(data, context())
        registry = ArtifactRegistry()
        registry.register_artifact("under_test", self.make(), "test")
        service = ArtifactCommunicationService(registry)
        assert same(service.call_artifact("under_test", data, context()), expected)
        registry.register_artifact("under_test", self.make(), "test", replace=True)
        assert same(service.chain_artifacts([{"artifact": "under_test"}], data), expected)

    def test_threads_do_not_disturb_each_other(self):
        artifact = self.make()
        data = self.example(artifact)
        expected = artifact.execute(data, context())
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: artifact.execute(data, context()), range(32)))
        assert all(same(result, expected) for result in results)
