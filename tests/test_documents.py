"""What the documents name is there: files, headings, modules, flags, config keys, make targets, error sentences."""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from paradis_tf.configs import defaults

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fusion", "paradis_tf", "export", "benchmarks", "examples")
_NOT_OURS = {"runs", "build", "__pycache__"}
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not any(name.startswith(".") or name in _NOT_OURS for name in path.relative_to(ROOT).parts[:-1])
)
# Flags of other programs that the documents name.
_FOREIGN_FLAGS = {"logdir", "port", "help"}

pytestmark = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            assert anchor in _anchors(path), target


def test_paths_exist(document: Path) -> None:
    for path in _named(document, rf"(?:{'|'.join((*PACKAGES, 'tests', 'docs'))})/[\w./-]*"):
        if not re.search(r"NAME|FILE|_seed|results/\w", path):
            assert (ROOT / path).exists(), path
    for path in re.findall(r"--(?:config|list)=([\w/]+\.(?:py|toml))", "\n".join(_code(document))):
        assert (ROOT / path).exists() or "NAME" in path, path


def test_programs_take_the_flags(document: Path) -> None:
    for module, flags in _commands(document):
        known = _flags(module)
        assert known, f"{module} is no program"
        assert flags <= known, f"{module} does not take {sorted(flags - known)}"


def test_flags_are_of_some_program(document: Path) -> None:
    known = set[str]().union(*(_flags(module) for module in _programs())) | _FOREIGN_FLAGS
    named = {text[2:] for text in _named(document, r"--[a-z][\w]*")} - {"config"}
    assert named <= known, f"no program takes {sorted(named - known)}"


def test_config_keys_exist(document: Path) -> None:
    known = _config_keys()
    for key in re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)*)", "\n".join(_code(document))):
        assert key in known or key in ("py", "json", "unlocked"), f"config.{key}"


def test_make_targets_exist(document: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for text in _code(document):
        for names in re.findall(r"^\s*make ((?:[a-z-]+(?: \| )?)+)", text, re.MULTILINE):
            assert set(names.split(" | ")) <= set(targets), names


def test_python_names_what_is_there(document: Path) -> None:
    for block in re.findall(r"^ *```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE):
        tree = ast.parse(textwrap.dedent(block))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                assert {alias.name for alias in node.names} <= _names(str(node.module)), ast.unparse(node)
        if any(isinstance(node, ast.ClassDef) for node in tree.body):
            sources = (path.read_text() for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py"))
            assert any(block in text for text in sources), f"code of {document} that is nowhere else"


def test_quoted_sentences_are_said(document: Path) -> None:
    if document.name != "troubleshooting.md":
        return
    for cell in re.findall(r"^\| (`[^|]*`) \|", (ROOT / document).read_text(), re.MULTILINE):
        for piece in re.split(r"\.\.\.|\d+|'[^']*'|[`();]", cell):
            words = piece.strip(" .,")
            assert len(words) < 6 or words in _literals(), words


def _prose(document: Path) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / document).read_text(), flags=re.DOTALL)


@functools.cache
def _code(document: Path) -> tuple[str, ...]:
    """Blocks and spans of code, lines that go on joined."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    indented = re.findall(r"(?:^ {4,}\S.*\n?)+", rest, re.MULTILINE)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)
    return tuple(re.sub(r"\\\n\s*", " ", piece) for piece in (*blocks, *indented, *spans))


def _named(document: Path, pattern: str) -> Iterator[str]:
    """Spans of code that are this pattern, but for a value that follows a flag."""
    for text in _code(document):
        yield from re.findall(rf"^({pattern})(?:=\S*)?$", text)


def _commands(document: Path) -> Iterator[tuple[str, set[str]]]:
    """The modules that are run, and the flags each is run with; what stands after -- is another program's."""
    for text in _code(document):
        for line in text.splitlines():
            for module, arguments in re.findall(r"python -m ([\w.]+)([^#|;<>]*)", line):
                if module.split(".")[0] not in PACKAGES:
                    continue
                own, _, others = arguments.partition(" -- ")
                yield module, _flags_in(own)
                if module == "fusion.systemd":
                    yield "fusion.worker" if "--kind=worker" in own else "fusion.coordinator", _flags_in(others)
                elif others:
                    yield others.split()[0], _flags_in(others)


def _flags_in(arguments: str) -> set[str]:
    names = re.findall(r"(?:^|\s)--([a-z]\w*)", arguments)
    return {name for name in names if name != "config"}


def _anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def _programs() -> tuple[str, ...]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    mains = [path.relative_to(ROOT) for path in files if '__name__ == "__main__"' in path.read_text()]
    return tuple(".".join(path.with_suffix("").parts).removesuffix(".__main__") for path in mains)


@functools.cache
def _flags(module: str) -> frozenset[str]:
    """The names of the flags that a program defines, it or a module that it imports; empty for no program."""
    if module not in _programs():
        return frozenset()
    names, seen, waiting = {"help"}, set[str](), {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        defined, imported = _read(name)
        names |= defined
        waiting |= imported - seen
    return frozenset(names)


@functools.cache
def _read(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the flags that a module of this repository defines, and of the modules that it may import."""
    file = _file(module)
    if file is None:
        return frozenset(), frozenset()
    package = module.split(".") if file.name in ("__init__.py", "__main__.py") else module.split(".")[:-1]
    nodes = list(ast.walk(_tree(file)))
    flags = {name for node in nodes if isinstance(node, ast.Call) for name in _defined(node)}
    return frozenset(flags), frozenset(name for node in nodes for name in _imported(node, package))


def _defined(call: ast.Call) -> set[str]:
    """The names that a call defines a flag by, if it does."""
    function = ast.unparse(call.func)
    name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if "define" not in function.lower() or not isinstance(name, str):
        return set()
    return {name, f"no{name}"} if "bool" in function else {name}


def _imported(node: ast.AST, package: list[str]) -> set[str]:
    """The modules that a statement in a package may import."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = package[: len(package) - node.level + 1] if node.level else []
    origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
    return {origin, *(f"{origin}.{alias.name}" for alias in node.names)}


def _file(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    choices = (place.with_suffix(".py"), place / "__main__.py", place / "__init__.py")
    return next((path for path in choices if path.is_file()), None)


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _names(module: str) -> set[str]:
    """What a module or package of this repository has to import."""
    file = _file(module)
    if file is None:
        return set()
    names = {path.stem for path in file.parent.iterdir()} if file.name == "__init__.py" else set()
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {
                ast.unparse(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            }
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@functools.cache
def _config_keys() -> frozenset[str]:
    keys = set[str]()
    for method in ("paradis", "individual", "slimmable", "us_slimmable"):
        for config in (defaults.get_config(method), defaults.get_super_resolution_config(method)):
            for key, value in config.items():
                keys |= {key, *(f"{key}.{option}" for option in getattr(value, "keys", tuple)())}
    return frozenset(keys | {"model.depth"})


@functools.cache
def _literals() -> str:
    """All texts of the sources, what a sentence inserts taken out."""
    texts = []
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join((*texts, (ROOT / "Makefile").read_text()))
