"""What README says can be done as it is written: targets, commands, options, files and Python names exist."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
from panel_fingerprint import ui_files
from project_tree import ROOT, library, module_names

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text()


def code_blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_commands() -> list[list[str]]:
    """Every command of the sh blocks and of inline code, split into words, comments left out."""
    lines = [line for block in code_blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`((?:make|neuraxis|pip) [^`]+)`", README)
    return [words for line in lines + inline if (words := shlex.split(line, comments=True))]


def commands_of(program: str) -> list[list[str]]:
    """Arguments of every mention of a program."""
    found = [words[1:] for words in shell_commands() if words[0] == program]
    assert found, f"README mentions no {program}"
    return found


def test_first_screen_has_picture_audience_and_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:24])
    for wanted in ("Screenshots/", "research", "make demo", "make test"):
        assert wanted in first_screen
    assert "not a medical device" in README


def test_every_module_has_its_sentence():
    for module in module_names():
        assert re.search(rf"^\| \*\*{module}\*\* \| \w.{{30,}}\. \|$", README, re.MULTILINE), module


@pytest.mark.parametrize("target", sorted({words[0] for words in commands_of("make")}))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_files_that_make_runs_exist():
    for place in re.findall(r"\$\(BIN\)/python ([\w/]+\.py)", MAKEFILE):
        assert (ROOT / place).is_file(), place
    scan = re.search(r"^DEMO_SCAN := (\S+)", MAKEFILE, re.MULTILINE).group(1)
    assert (ROOT / scan).is_file()


def training_commands() -> list[list[str]]:
    """(program, arguments ...) of every command in the pages of Training."""
    found = []
    for page in ("README.md", "evaluation/README.md"):
        text = (ROOT / "Training" / page).read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(r"^    python Training/(\w+)\.py (.*)$", text, re.MULTILINE)
        found += re.findall(r"`python Training/(\w+)\.py ([^`]+)`", text)
    return [[program, *shlex.split(rest)] for program, rest in found]


@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_commands_of_training_can_be_read(words):
    import_module(f"Training.{words[0]}").parse(words[1:])


def test_training_lists_every_recipe_and_links_what_is_there():
    text = (ROOT / "Training" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|.*\|$", text.split("## Recipes")[1], re.MULTILINE))))
    recipes = {path.stem.removeprefix("hemorrhage_") for path in (ROOT / "Training" / "recipes").glob("hemorrhage_*")}
    assert recipes <= listed
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "Training" / target).exists(), target


@pytest.mark.parametrize("arguments", commands_of("neuraxis"), ids=" ".join)
def test_commands_and_options_exist(arguments):
    typer = pytest.importorskip("typer")
    from NeuraxisLib.cli import make_app
    from NeuraxisLib.cli_training import PROGRAMS

    if arguments[0] in PROGRAMS:  # they read their own command lines
        import_module(f"Training.{arguments[0]}").parse(arguments[1:])
        return
    command, words = typer.main.get_command(make_app()), list(arguments)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.split("=")[0] for word in arguments if word.startswith("-")}
    assert options <= known | {"--help"}
    places = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    given = [word for word in words if not word.startswith("-")]
    assert options or len(given) == len([parameter for parameter in places if parameter.required])


def test_links_inside_the_repository_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).is_file()] == []


def test_folders_of_the_house_exist():
    folders = re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)
    assert set(folders) == {*module_names(), "Docs", "Training", "Testing", "Resources"}
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_python_examples_call_what_the_logic_has():
    for block in code_blocks("python"):
        ast.parse(block)
        for variable, module in re.findall(r'^(\w+) = slicer\.util\.getModuleLogic\("(\w+)"\)', block, re.MULTILINE):
            called = set(re.findall(rf"\b{variable}\.(\w+)\(", block))
            assert called
            shared = methods_of(library("Neuraxis") / "scene_logic.py", "TaskLogic")
            assert called <= shared | methods_of(ROOT / module / f"{module}.py", f"{module}Logic")


def methods_of(path: Path, class_name: str) -> set[str]:
    """Names of the methods that a class defines."""
    classes = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    return {node.name for node in classes[class_name].body if isinstance(node, ast.FunctionDef)}


def page(name: str) -> str:
    """A page of the documentation, every run of blanks and line ends one blank."""
    return re.sub(r"\s+", " ", (ROOT / "Docs" / f"{name}.md").read_text(encoding="utf-8"))


def panel_words(module: str) -> set[str]:
    """Every text of a module's panel, and the texts that its file translates."""
    words = {text.text or "" for path in ui_files(module) for text in ElementTree.parse(path).iter("string")}
    return words | set(re.findall(r'_\(\s*"([^"]+)"', (ROOT / module / f"{module}.py").read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", module_names())
def test_tutorial_uses_the_words_of_the_panel(module):
    bold = set(re.findall(r"\*\*([^*]+)\*\*", page(module)))
    assert len(bold) > 5
    assert bold - {"Sample Data"} <= panel_words(module)
    title = re.search(r'title = _\("(.+?)"\)', (ROOT / module / f"{module}.py").read_text()).group(1)
    assert f"Segmentation > {title}*" in page(module)


@pytest.mark.parametrize("module", [name for name in module_names() if name != "Neuraxis"])
def test_tutorial_starts_with_the_scan_that_the_module_brings(module):
    """Offline, from the Sample Data module; README names the same scan."""
    source = (ROOT / module / f"{module}.py").read_text()
    file, name = re.search(r'register_sample\([^,]+, "([^"]+)", "(\w+)", __file__', source).groups()
    assert f"*{name}*" in page(module) and f"*{name}*" in README
    assert (ROOT / module / f"{module}Lib" / "Resources" / "SampleData" / file).is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "Docs").glob("*.md")), ids=lambda path: path.name)
def test_pages_are_reached_and_their_links_lead_somewhere(path):
    others = [README, *(p.read_text(encoding="utf-8") for p in (ROOT / "Docs").glob("*.md") if p != path)]
    assert any(f"{path.name})" in text for text in others)
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (path.parent / t).exists()] == []


def test_readme_is_short():
    """What takes longer to say stands on a page of its own."""
    assert len(README.splitlines()) <= 180
