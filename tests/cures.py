"""What batchflow tells people who meet an error: every message in its source, and those that the docs list.

``python tests/cures.py`` prints the messages that docs/messages.md lacks, as entries to fill in.
"""

import ast
import re
from collections import defaultdict
from itertools import product
from pathlib import Path

import batchflow
import batchflow.errors

ROOT = Path(batchflow.__file__).parent
PAGE = ROOT.parent / "docs" / "messages.md"
GAP = "…"
"""What stands for the parts of a message that differ each time."""

OURS = {name for name, kind in vars(batchflow.errors).items() if isinstance(kind, type)} | {
    "DamagedError",
    "NotTabularError",
    "NotTextError",
}
SEEN = {"MemoryError", "OSError", "TimeoutError", "TypeError", "ValueError", "__init__"}
"""Plain errors, and those of our own that make their message themselves: they become rows of the error table."""
MAKERS = {"died": 1, "unreadable": 4, "_damaged": 0, "print_error": 0, "_failed": 2}
"""Functions that make or show an error, by the place of the message among their arguments."""
UNSEEN = {
    "executors/processes/wire.py",
    "executors/processes/zygote.py",
    "executors/processes/worker.py",  # between our own processes
    "io/formats/parquet_concat.py",
    "io/formats/thrift.py",  # a file that cannot be spliced is written anew
    "testing.py",  # scripted by the tests of users
}
"""Modules whose plain errors nobody sees."""
YIELDED = "checkpoint/verify.py"
"""What this one yields, ``batchflow verify`` shows."""


def messages():
    """Return where each message is made, by message; what varies in it is a `GAP`."""
    modules = {path: _Module(ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(ROOT.rglob("*.py"))}
    everywhere = defaultdict(list)
    for module in modules.values():
        for name, functions in module.functions.items():
            everywhere[name] += functions
    found = {}
    for path, module in modules.items():
        place = path.relative_to(ROOT).as_posix()
        places = dict.fromkeys(OURS if place in UNSEEN else OURS | SEEN, 0) | MAKERS
        for scope in module.scopes:
            texts = _Texts(scope, module, everywhere)
            for node in _told_in(scope, places, yields=place == YIELDED):
                for text in texts.told(node):
                    found.setdefault(text, f"{place}:{node.lineno}")
    return found


def entries():
    """Return the messages that the page has an entry for."""
    found = re.findall(r"^(?:`` (.+) ``|`([^`]+)`)\n: ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [double or single for double, single in found]


class _Module:
    """The functions of a module, by name, and what it names itself."""

    def __init__(self, tree):
        self.scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        self.functions = defaultdict(list)
        for scope in self.scopes:
            self.functions[scope.name].append(scope)
        self.assigned = _assigned(tree.body)


def _assigned(nodes):
    """Return the expressions that names stand for."""
    found = defaultdict(list)
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found[_name(target)].append(node.value)
        elif isinstance(node, ast.NamedExpr):
            found[node.target.id].append(node.value)
    return found


def _name(node):
    return getattr(node, "id", getattr(node, "attr", ""))


def _told_in(scope, places, *, yields):
    """Yield the expressions inside a function that are messages."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Call) and len(node.args) > places.get(_name(node.func), 99):
            yield node.args[places[_name(node.func)]]
        elif yields and isinstance(node, ast.Yield) and isinstance(node.value, ast.JoinedStr | ast.Constant):
            yield node.value


class _Texts:
    """Tells which texts an expression inside a function can be."""

    def __init__(self, scope, module, everywhere):
        self._module = module
        self._everywhere = everywhere
        self._assigned = module.assigned | _assigned(ast.walk(scope))

    def told(self, node):
        """Return the texts that tell something."""
        texts = [" ".join(re.sub(rf"{GAP}{GAP}+", GAP, text).split()) for text in self.of(node)]
        return [text for text in texts if re.search(r"\w\w+\W+\w\w+|\w{8}", text.replace(GAP, ". "))]

    def of(self, node, depth=4):
        """Return each text, with a gap for what is not written in the source."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr():
                return ["".join(parts) for parts in product(*(self._part(part, depth) for part in node.values))]
            case ast.BinOp(op=ast.Add()):
                return [
                    left + right for left, right in product(self.of(node.left, depth), self.of(node.right, depth))
                ]
            case ast.IfExp():
                return self.of(node.body, depth) + self.of(node.orelse, depth)
            case ast.BoolOp():
                return [text for value in node.values for text in self.of(value, depth)]
        return self._looked_up(node, depth - 1) if depth else [GAP]

    def _looked_up(self, node, depth):
        """Return the texts of what stands elsewhere: under a name, or in a function."""
        match node:
            case ast.Name(id=name) if self._assigned.get(name):
                return [text for value in self._assigned[name] for text in self.of(value, depth)]
            case ast.Call(func=ast.Attribute(attr="join")):  # of the lines of a text, made printable
                names = [part for part in ast.walk(node.args[0]) if isinstance(part, ast.Name)]
                return [text for name in names for text in self.of(name, depth)]
            case ast.Call():
                return self._returned(_name(node.func), depth)
        return [GAP]

    def _part(self, part, depth):
        """Return the texts of a part of an f-string: constants and causes are told, names and numbers are gaps."""
        if isinstance(part, ast.Constant):
            return [part.value]
        name = _name(part.value)
        return self.of(part.value, depth - 1) if name.isupper() or name in _CAUSES else [GAP]

    def _returned(self, name, depth):
        functions = self._module.functions.get(name) or self._everywhere[name]
        if len(functions) != 1:
            return [GAP]
        inner = _Texts(functions[0], self._module, self._everywhere)
        returned = [step.value for step in ast.walk(functions[0]) if isinstance(step, ast.Return) and step.value]
        return [text for value in returned for text in inner.of(value, depth)] or [GAP]


_CAUSES = {"over", "change", "why", "refused", "what", "more"}
"""Names of what is the message, where an f-string only adds to it."""


if __name__ == "__main__":
    known = set(entries()) if PAGE.exists() else set()
    for text, where in messages().items():
        if text not in known:
            print(f"`{text}`\n: ({where}) why; what to do\n")
