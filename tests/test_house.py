"""Rules of the house that no linter sees, over every file of the project; each rule is shown a sinner first."""

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LONGEST_FUNCTION = 60
RUNS_CODE_ON_LOAD = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
# Namespaces of XML are names, not addresses: nothing is fetched from there.
NOT_FETCHED = "www.w3.org"


def files_of_the_project(*suffixes):
    """Return what is tracked, or new and not ignored, with one of these suffixes; every file without any."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = [ROOT / name for name in sorted(set(names)) if name]
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def sins(rule, *suffixes, below=("",)):
    """Return what `rule(text)` finds, as "file:line what", in all files with these suffixes below these folders."""
    found = []
    for path in files_of_the_project(*suffixes):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(below):
            found += [f"{name}:{line} {what}" for line, what in rule(path.read_text(encoding="utf-8"))]
    return found


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def code_run_on_load(text):
    """Find the ways in which reading data would run code that is in it."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                modules = ["torch.load"]
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                modules = ["allow_pickle"]
            case _:
                continue
        for module in modules:
            if module.split(".")[0] in RUNS_CODE_ON_LOAD or module in ("torch.load", "allow_pickle"):
                yield node.lineno if hasattr(node, "lineno") else node.value.lineno, module


def long_functions(text):
    """Find functions over 60 lines, docstring aside, without a comment "long: <reason>" in the line above."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if length > LONGEST_FUNCTION and not re.search(r"# long: \w+", lines[first - 2]):
                yield node.lineno, f"{node.name} has {length} lines"


def ignores_without_a_reason(text):
    """Find `type: ignore` and `noqa` comments that lack a code, or a reason after a second # or a dash."""
    for number, line in enumerate(text.splitlines(), start=1):
        for comment in re.finditer(r"# (type: ignore|noqa)(.*)", line):
            if not re.fullmatch(r"(\[[\w-]+(, ?[\w-]+)*\]|: [A-Z]+\d+(, ?[A-Z]+\d+)*) +[#–-] .{5,}", comment[2]):
                yield number, comment[0]


def async_functions(text):
    """Find coroutines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AsyncFunctionDef):
            yield node.lineno, f"async {node.name}"


def test_nothing_that_is_read_can_run_code():
    assert list(code_run_on_load("import pickle"))
    assert list(code_run_on_load("from joblib import load"))
    assert list(code_run_on_load("weights = torch.load(path, weights_only=True)"))
    assert list(code_run_on_load("numpy.load(path, allow_pickle=True)"))
    assert not list(code_run_on_load("numpy.load(path, allow_pickle=False)"))

    assert sins(code_run_on_load, ".py") == []


def test_a_function_over_sixty_lines_has_a_reason():
    long = "def work():\n" + "    pass\n" * LONGEST_FUNCTION
    assert list(long_functions("\n" + long))
    assert not list(long_functions("# long: one table, easier to read in one piece\n" + long))

    assert [sin for sin in sins(long_functions, ".py") if "/migrations/" not in sin] == []


def test_an_ignored_finding_has_a_code_and_a_reason():
    mark = "# type: " + "ignore"
    assert list(ignores_without_a_reason(f"x = y  {mark}"))
    assert list(ignores_without_a_reason(f"x = y  {mark}[assignment]"))
    assert list(ignores_without_a_reason("x = y  # no" + "qa: E501"))
    assert not list(ignores_without_a_reason(f"x = y  {mark}[assignment]  # the stubs do not know y"))

    assert sins(ignores_without_a_reason, ".py") == []


def test_async_lives_in_realtime_and_the_server_process_only():
    assert list(async_functions("async def wait(): ..."))

    found = sins(async_functions, ".py", below=("fl/", "edge/"))

    # The sockets of devices and of programs, each kind in one thread: their modules say why.
    assert [sin for sin in found if not sin.startswith(("edge/connection.py:", "edge/line.py:"))] == []


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def foreign_hosts(text):
    """Find what a browser would fetch from a host named in a page, a style or a script.

    Links that a person may follow (`<a href>`) are not fetched, nor are addresses in comments.
    """
    address = r"(?:https?:|wss?:)?//(?=[\w[])"
    fetched = [
        rf"""<\w+[^>]*?\s(?:src|href|srcset|data|action|poster)\s*=\s*["']?{address}[^"'\s>]*""",
        rf"""(?:url\(|@import)\s*["']?{address}[^"')\s;]*""",
        rf"""(?:\bfrom|\bimport|\w\(|[=:,?(\[])\s*["'`]{address}[^"'`\s]*["'`]""",
    ]
    text = re.sub(r"<a\s[^>]*>", lambda link: "\n" * link[0].count("\n"), text)
    for pattern in fetched:
        for match in re.finditer(pattern, text):
            if NOT_FETCHED not in match[0]:
                yield text.count("\n", 0, match.start()) + 1, match[0].strip()


@pytest.mark.parametrize(
    "sinner",
    [
        '<script src="https://cdn.example/uplot.js"></script>',
        "<link rel=stylesheet href=//fonts.example/css>",
        '<img\n  alt="" src="http://example.org/pixel.gif">',
        "body { background: url(https://example.org/a.png) }",
        '@import "//example.org/a.css";',
        'import { html } from "https://esm.example/html.js";',
        "const socket = new WebSocket('wss://example.org/ws');",
        "fetch(`https://example.org/${path}`)",
        'const home = "//example.org";',
    ],
)
def test_a_foreign_host_is_found(sinner):
    assert list(foreign_hosts(sinner))


@pytest.mark.parametrize(
    "innocent",
    [
        '<script type="module" src="{% static \'js/live.js\' %}"></script>',
        "const socket = new WebSocket(`wss://${location.host}/ws`);",
        'const scheme = secure ? "wss://" : "ws://";',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        '<a class="out" href="https://example.org/manual">the manual</a>',
        "/* https://example.org/licence */",
        "// see https://example.org",
    ],
)
def test_addresses_that_no_browser_fetches_are_fine(innocent):
    assert not list(foreign_hosts(innocent))


def test_pages_fetch_nothing_from_another_host():
    assert sins(foreign_hosts, ".html", ".css", ".js", ".svg", ".txt", below=("templates/", "static/")) == []


# ── machines and versions ────────────────────────────────────────────────────────────────────────────────────────────


def machine_paths(text):
    """Find paths that only one machine has: somebody's home, or this very checkout."""
    homes = r"""(?<![\w./>\]-])(?:/(?:home|Users)/\w+/|/(?:root|work|workspace|builds)/|[A-Z]:\\Users\\)[^\s"'`)]*"""
    patterns = [homes] if len(ROOT.parts) < 3 else [homes, re.escape(str(ROOT)) + r"\b"]
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern in patterns:
            for match in re.finditer(pattern, line):
                yield number, match[0]


def package_indexes(text):
    """Find addresses of package indexes: which index to ask is the machine's affair, not the project's."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"(?:index-url|find-links|trusted-host)[ =]|\"resolved\": *\"http", line):
            yield number, line.strip()


def requirements(name):
    """Return the requirements in a file, as they stand, without comments and includes."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def test_no_path_of_one_machine_is_in_the_project():
    home = "/home/" + "ada/data"
    assert list(machine_paths(f"DATA = '{home}'"))
    assert list(machine_paths(f"see {ROOT}/var"))
    assert not list(machine_paths("GET /api/v1/runs"))

    text = [".py", ".toml", ".md", ".txt", ".html", ".css", ".js", ".yaml", ".yml", ".json", ".sh", ""]

    assert sins(machine_paths, *text) == []


def test_no_package_index_is_named_in_the_project():
    assert list(package_indexes("--extra-index-" + "url https://example.org/simple"))

    assert sins(package_indexes, ".txt", ".toml", ".json", ".yaml", ".yml", ".md", "") == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_installed_as_pinned(name):
    for requirement in requirements(name):
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        # The index may serve a build of the pinned version, as in 2.13.0+cpu; `in` lets that pass.
        installed = importlib.metadata.version(requirement.name)
        assert installed in requirement.specifier, f"{requirement} is pinned, {installed} is installed"


def test_the_pins_satisfy_what_the_wheel_asks_for():
    pins = {canonicalize_name(pin.name): pin.specifier for pin in requirements("requirements.txt")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    for wanted in map(Requirement, project["dependencies"]):
        (pin,) = pins[canonicalize_name(wanted.name)]
        assert pin.version in wanted.specifier, f"the wheel wants {wanted}, the pin is {pin}"
