"""The API reference in Markdown: every name of `stream.__all__`, from its source and its docstring.

Signatures are read from the source, not from the loaded objects: how Python shows an annotation differs from one
version to the next. Invariant: every public name has an entry; one without a docstring is an error.
"""

import ast
import inspect
import textwrap

import stream

GROUPS = (
    ("Functions", lambda value: inspect.isfunction(value)),
    ("Errors", lambda value: inspect.isclass(value) and issubclass(value, Exception)),
    ("Types", lambda value: inspect.isclass(value)),
    ("Other names", lambda value: True),  # noqa: ARG005
)


def reference() -> list[str]:
    """The lines of the page, functions first."""
    left = {name: getattr(stream, name) for name in stream.__all__}
    lines: list[str] = []
    for title, belongs in GROUPS:
        names = [name for name, value in left.items() if belongs(value)]
        if names:
            lines += [f"## {title}", ""]
        for name in sorted(names):
            lines += entry(name, left.pop(name))
    return lines[:-1]


def entry(name: str, value: object) -> list[str]:
    """One name: signature, docstring, and for a class its fields, properties and methods."""
    doc = inspect.getdoc(value)
    if not doc:
        raise SystemExit(f"stream.{name} has no docstring; write one")
    node = source(value)
    lines = [f"### `{name}`", "", "```python", *signature(node), "```", "", *prose(doc), ""]
    if isinstance(node, ast.ClassDef):
        long = [member for member in members(node) if "Args:" in (ast.get_docstring(member) or "")]
        short = [f"- `{head(member)}`: {summary(member)}" for member in members(node) if member not in long]
        lines += [*short, ""] if short else []
        for member in long:
            lines += [f"#### `{name}.{member.name}`", "", "```python", f"def {head(member)}", "```", ""]
            lines += [*prose(ast.get_docstring(member) or ""), ""]
    return lines


def source(value: object) -> ast.ClassDef | ast.FunctionDef:
    """The definition of a class or function."""
    node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]  # type: ignore[arg-type]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return node


def signature(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """What a caller writes: `def f(…) -> …`, or the class line with its public fields or enum members."""
    if isinstance(node, ast.FunctionDef):
        return [f"def {head(node)}"]
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    fields = [field_line(item) for item in node.body if is_field(item)]
    return [f"class {node.name}" + (f"({bases})" if bases else ""), *(f"    {field}" for field in fields)]


def is_field(item: ast.stmt) -> bool:
    """True for a public field of a data class, or a member of an enum."""
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
        return not item.target.id.startswith("_")
    return isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)


def field_line(item: ast.stmt) -> str:
    """A field with its default, but without the call that makes one (`Field(…)`, `field(…)`)."""
    if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call):
        return f"{ast.unparse(item.target)}: {ast.unparse(item.annotation)}"
    return ast.unparse(item)


def members(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods and properties that have a docstring, and what happens when an object is called."""
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef) and ast.get_docstring(item)]
    return [function for function in functions if not function.name.startswith("_") or function.name == "__call__"]


def head(node: ast.FunctionDef) -> str:
    """A function's name with its arguments and result; a property's name alone."""
    decorators = [ast.unparse(item) for item in node.decorator_list]
    result = f" -> {unquoted(node.returns)}" if node.returns else ""
    if "property" in decorators:
        return f"{node.name}{result}"
    for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.kwarg, node.args.vararg]:
        if argument is not None and argument.annotation is not None:
            argument.annotation = ast.Name(unquoted(argument.annotation))
    return f"{node.name}({ast.unparse(node.args)}){result}"


def unquoted(annotation: ast.expr) -> str:
    """An annotation as text, without the quotes of one that is evaluated late."""
    return (
        annotation.value
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
        else ast.unparse(annotation)
    )


def summary(node: ast.FunctionDef) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def prose(doc: str) -> list[str]:
    """A docstring as Markdown: its sections (`Args:`, `Attributes:`, `Raises:` …) become lists."""
    lines: list[str] = []
    for paragraph in doc.split("\n\n"):
        first, *rest = paragraph.split("\n")
        if rest and first.endswith(":") and " " not in first:
            lines += [f"**{first[:-1]}**", "", *items(textwrap.dedent("\n".join(rest)).split("\n"))]
        else:
            lines += paragraph.split("\n")
        lines.append("")
    return lines[:-1]


def items(lines: list[str]) -> list[str]:
    """`name: text` lines, the continuation of each indented, as a list; other text as it is."""
    found: list[str] = []
    for line in lines:
        name, colon, text = line.partition(":")
        if not line.startswith(" ") and colon:
            found.append(f"- `{name}`:{text}")
        else:
            found.append(f"  {line.strip()}" if found else line)
    return found
