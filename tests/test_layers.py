"""The direction of imports: errors → core → artifacts and models → services → api → cli, without circles."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from support.processes import run_code

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "zerocost"

BELOW = {
    "errors": set(),
    "core": {"errors"},
    "artifacts": {"errors", "core"},
    "models": {"errors", "core"},
    "client": {"errors", "core"},
    "engine": {"errors", "core"},
    "services": {"errors", "core", "artifacts", "models"},
}
"""What each layer may import besides itself."""

WINGS = [
    {"api.settings", "api.thread_pool"},
    {"api.wire"},
    {"api.routing", "api.server"},
    {"api.telemetry"},
    {"api.calls", "api.artifact_api"},
    {"api.server_metrics", "api.edge", "api.pages"},
    {"api.v2"},
    {"api.openapi"},
    {"api.routes"},
]
"""The wings of the server from the ground up: each may import those before it, and what the services may."""

for _index, _wings in enumerate(WINGS):
    for _wing in _wings:
        BELOW[_wing] = {"services", *BELOW["services"]}.union(*WINGS[:_index])

ROOTS = {"", "__main__", "api", "api.application", "cli"}
"""What puts everything together, and may import anything."""


def layer_of(module):
    """``zerocost.api.wire.body`` belongs to ``api.wire``, ``zerocost.core.arrays`` to ``core``, the root to nothing."""
    parts = module.removesuffix(".__init__").split(".")
    return ".".join(parts[1:3] if parts[1:2] == ["api"] else parts[1:2])


def imports_of(path):
    """Every zerocost module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "zerocost")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "zerocost":
            # ``from zerocost.api import routes`` imports a module, ``from zerocost.errors import X`` a name of one.
            for alias in node.names:
                inside = PACKAGE.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = inside.is_dir() or inside.with_suffix(".py").exists() or node.module == "zerocost"
                yield f"{node.module}.{alias.name}" if is_module else node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_no_layer_imports_what_stands_above_it(path):
    layer = layer_of(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for module in imports_of(path):
        imported = layer_of(module)
        if imported == "_kernels":
            # The engine sets the number of threads in Ray's workers; api and cli read and write JSON.
            reads_arrays = layer == "core" and path.name in ("arrays.py", "datatypes.py")
            assert reads_arrays or layer.startswith(("artifacts", "models", "engine", "api", "cli")) or not layer, path
        elif imported != layer:
            assert layer in ROOTS or imported in BELOW[layer], f"{path.relative_to(PACKAGE)} ({layer}) imports {module}"


def test_no_modules_import_each_other_in_a_circle():
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    imports = {}
    for name, path in modules.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                named |= inside or {node.module}
        # The root names everything, lazily, and every import of a module imports it first.
        imports[name] = (named & modules.keys()) - {name, "zerocost"}
    while True:
        free = {name for name, named in imports.items() if not named & imports.keys()}
        if not free:
            break
        imports = {name: named for name, named in imports.items() if name not in free}
    # The modules that are left are in a circle, or import one.
    assert not imports, sorted(imports)


def test_the_kernels_crate_does_not_depend_on_python():
    tree = subprocess.run(
        ["cargo", "tree", "-p", "zerocost-kernels", "-e", "normal", "--prefix", "none", "--offline"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "rayon" in tree
    assert not re.search(r"^(pyo3|numpy)", tree, re.MULTILINE)


def test_only_one_module_uses_rayon():
    naming = {
        path.parent.relative_to(ROOT)
        for path in (ROOT / "rust").rglob("*.rs")
        if re.search(r"\brayon::", re.sub(r"//.*", "", path.read_text()))
    }
    assert naming == {Path("rust/kernels/src/parallel")}


def test_import_loads_numpy_and_the_kernels_and_nothing_else():
    code = (
        "import numpy, sys; before = set(sys.modules); import zerocost;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'zerocost', 'numpy'}))"
    )
    loaded = run_code(code).stdout
    assert loaded.strip() == "[]"


def test_every_public_name_exists():
    import zerocost

    for name in zerocost.__all__:
        assert getattr(zerocost, name) is not None
    assert set(zerocost._LAZY) <= set(zerocost.__all__)
    assert {name for name in zerocost.errors.__all__ if name[0].isupper()} <= set(zerocost.__all__)
    with pytest.raises(AttributeError):
        zerocost.no_such_name  # noqa: B018 - the look-up is what is tested


def test_the_version_is_the_same_everywhere():
    import zerocost

    manifest = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert manifest is not None
    assert zerocost.__version__ == manifest[1]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [manifest[1]])


def test_no_module_imports_pickle():
    assert FILES
    for path in FILES:
        assert not re.search(r"^\s*(import|from) (c?pickle|dill|cloudpickle|marshal)\b", path.read_text(), re.MULTILINE)
        assert "allow_pickle=True" not in path.read_text()
