"""Every kind of value that a function can use: equal in another process, unequal after a change."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

PYDANTIC = (
    "import pydantic\nfrom typing import Annotated, Generic, TypeVar\nT = TypeVar('T')\n"
    "class P(pydantic.BaseModel):\n"
)
VALIDATOR = (
    f"{PYDANTIC}    x_a: int = 1\n    x_b: int = 1\n"
    "    @pydantic.field_validator('x_a', mode='after')\n    @classmethod\n"
)
MSGSPEC = "import msgspec\nfrom typing import Annotated\nclass S(msgspec.Struct):\n"

# Each text is a module that defines V; "{}" differs between the two variants.
KINDS = {
    "int": ("V = {}", "1", "2"),
    "negative zero": ("V = {}", "0.0", "-0.0"),
    "type of number": ("V = [{}]", "1", "True"),
    "big list": ("V = [*range(20_000), {}]", "1", "2"),
    "nested plain": ("V = {{'a': [{{'b': ({},)}}]}}", "1", "2"),
    "list or tuple": ("V = {{'a': {}}}", "[1]", "(1,)"),
    "set": ("V = {{'a', 'b', 'c', {}}}", "'d'", "'e'"),
    "set of objects": ("import pathlib\nV = {{pathlib.Path(x) for x in ('a', 'b', 'c', {})}}", "'d'", "'e'"),
    "set of classes": ("class A: x = {}\nclass B: x = A\nV = {{A, B, int}}", "1", "2"),
    "date": ("import datetime\nV = datetime.date(2024, {}, 1)", "1", "6"),
    "date or its text": ("import datetime\nV = [{}]", "datetime.date(2024, 1, 1)", "'2024-01-01'"),
    "time zone": (
        "import datetime, zoneinfo\nV = datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo({}))",
        "'UTC'",
        "'Europe/Paris'",
    ),
    "timedelta": ("import datetime\nV = datetime.timedelta(days={})", "1", "6"),
    "regex": ("import re\nV = re.compile({})", "'a'", "'b'"),
    "regex flags": ("import re\nV = re.compile('a', {})", "0", "re.I"),
    "method of a regex": ("import re\nV = re.compile({}).match", "'a'", "'b'"),
    "method of a dict": ("V = {{'a': {}}}.get", "1", "2"),
    "method of a class": ("V = str.{}", "upper", "lower"),
    "Decimal": ("import decimal\nV = decimal.Decimal({})", "'0.19'", "'0.190'"),
    "Decimals": ("import decimal\nV = [decimal.Decimal({})]", "'0.19'", "'0.07'"),
    "Fraction": ("import fractions\nV = fractions.Fraction({}, 3)", "1", "2"),
    "UUID": ("import uuid\nV = uuid.UUID(int={})", "1", "2"),
    "Path": ("import pathlib\nV = pathlib.Path({})", "'/a'", "'/b'"),
    "deque": ("import collections\nV = collections.deque([{}], maxlen=3)", "1", "2"),
    "deque maxlen": ("import collections\nV = collections.deque([1], maxlen={})", "3", "4"),
    "Counter": ("import collections\nV = collections.Counter({})", "'ab'", "'aab'"),
    "OrderedDict": ("import collections\nV = collections.OrderedDict(a={})", "1", "2"),
    "defaultdict": ("import collections\nV = collections.defaultdict({})", "int", "list"),
    "ChainMap": ("import collections\nV = collections.ChainMap({{1: {}}})", "1", "2"),
    "mappingproxy": ("import types\nV = types.MappingProxyType(dict(a={}))", "1", "2"),
    "bytearray": ("V = bytearray({})", "b'a'", "b'b'"),
    "memoryview": ("V = memoryview({})", "b'a'", "b'b'"),
    "array": ("import array\nV = array.array('i', [{}])", "1", "2"),
    "slice": ("V = slice({})", "1", "2"),
    "range": ("V = range({})", "1", "2"),
    "random": ("import random\nV = random.Random({})", "1", "2"),
    "SimpleNamespace": ("import types\nV = types.SimpleNamespace(k={})", "1", "2"),
    "namedtuple": ("import collections\nV = collections.namedtuple('P', 'a b')(1, {})", "1", "2"),
    "slots": ("class C:\n    __slots__ = ('k',)\nV = C()\nV.k = {}", "1", "2"),
    "slots dataclass": (
        "import dataclasses\n@dataclasses.dataclass(slots=True)\nclass C:\n    k: int\nV = C({})",
        "1",
        "2",
    ),
    "frozen dataclass": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass C:\n    k: int\nV = C({})",
        "1",
        "2",
    ),
    "dataclass default": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    k: int = {}\nV = C",
        "1",
        "2",
    ),
    "dataclass factory": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    k: list = dataclasses.field("
        "default_factory=lambda: [{}])\nV = C",
        "1",
        "2",
    ),
    "annotation": ("class C:\n    k: {}\nV = C", "int", "str"),
    "enum member": ("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\nV = E.{}", "A", "B"),
    "enum value": ("import enum\nclass E(enum.Enum):\n    A = {}\nV = E.A", "1", "2"),
    "flag": ("import enum\nclass E(enum.IntFlag):\n    A = 1\n    B = 2\nV = E.{}", "A", "A | E.B"),
    "property": ("class C:\n    @property\n    def k(self): return {}\nV = C()", "1", "2"),
    "cached property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def k(self): return {}\nV = C()",
        "1",
        "2",
    ),
    "staticmethod": ("class C:\n    @staticmethod\n    def k(): return {}\nV = C", "1", "2"),
    "classmethod": ("class C:\n    @classmethod\n    def k(cls): return {}\nV = C.k", "1", "2"),
    "descriptor": ("class D:\n    def __get__(self, *_): return {}\nclass C:\n    k = D()\nV = C", "1", "2"),
    "inherited": ("class A:\n    def k(self): return {}\nclass C(A): pass\nV = C()", "1", "2"),
    "metaclass": ("class M(type):\n    def k(cls): return {}\nclass C(metaclass=M): pass\nV = C", "1", "2"),
    "abstract": (
        "import abc\nclass C(abc.ABC):\n    @abc.abstractmethod\n    def k(self): return {}\nV = C",
        "1",
        "2",
    ),
    "class attribute": ("class C:\n    k = [{}]\nV = C()", "1", "2"),
    "typed dict": ("import typing\nclass C(typing.TypedDict):\n    k: {}\nV = C", "int", "str"),
    "local class": ("def make():\n    class C:\n        k = {}\n    return C\nV = make()", "1", "2"),
    "lru_cache": ("import functools\n@functools.lru_cache\ndef V(x): return x + {}", "1", "2"),
    "singledispatch": (
        "import functools\n@functools.singledispatch\ndef V(x): return 0\n@V.register\ndef _(x: int): return {}",
        "1",
        "2",
    ),
    "wraps": (
        "import functools\ndef d(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n    return g\n"
        "@d\ndef V(x): return {}",
        "1",
        "2",
    ),
    "decorator argument": (
        "def d(n):\n    return lambda f: lambda x: f(x) + n\n@d({})\ndef V(x): return x",
        "1",
        "2",
    ),
    "contextmanager": ("import contextlib\n@contextlib.contextmanager\ndef V(): yield {}", "1", "2"),
    "partial": ("import functools\nV = functools.partial(max, {})", "1", "2"),
    "partial keyword": ("import functools\nV = functools.partial(max, key={})", "len", "abs"),
    "partialmethod": (
        "import functools\nclass C:\n    def f(self, x): return x\n    g = functools.partialmethod(f, {})\nV = C",
        "1",
        "2",
    ),
    "itemgetter": ("import operator\nV = operator.itemgetter({})", "1", "2"),
    "attrgetter": ("import operator\nV = operator.attrgetter({})", "'a'", "'b.c'"),
    "methodcaller": ("import operator\nV = operator.methodcaller('f', {})", "1", "2"),
    "methodcaller keyword": ("import operator\nV = operator.methodcaller('f', k={})", "1", "2"),
    "closure": (
        "def make(n):\n    return lambda x: x + n.year\nimport datetime\nV = make(datetime.date({}, 1, 1))",
        "2024",
        "2025",
    ),
    "default": ("import decimal\ndef V(x, y=decimal.Decimal({})): return y", "1", "2"),
    "keyword default": ("def V(x, *, y={}): return y", "[1]", "[2]"),
    "parameters": ("def V(a, {}b): return b", "", "*, "),
    "generator": ("def V(x):\n    yield {}", "1", "2"),
    "async": ("async def V(x):\n    return {}", "1", "2"),
    "generator or not": ("def V(x):\n    return (x for _ in {})", "(1,)", "(2,)"),
    "comprehension": ("def V(x): return [y + {} for y in x]", "1", "2"),
    "lambda inside": ("def V(x): return sorted(x, key=lambda y: y + {})", "1", "2"),
    "exception handler": ("def V(x):\n    try: return int(x)\n    except {}: return 0", "ValueError", "KeyError"),
    "global of a helper": ("K = {}\ndef g(x): return x + K\ndef V(x): return g(x)", "1", "2"),
    "mutual recursion": ("def a(n): return n and b(n - 1)\ndef b(n): return n and a(n - {})\nV = a", "1", "2"),
    "function attribute": ("def V(x): return V.k\nV.k = {}", "1", "2"),
    "attribute of a module": ("import helpers\ndef V(x): return helpers.scale(x)", "", ""),
    "from a module": ("from helpers import scale\ndef V(x): return scale(x)", "", ""),
    "import inside": ("def V(x):\n    import helpers\n    return helpers.scale(x)", "", ""),
    "from import inside": ("def V(x):\n    from package import inner\n    return inner.scale(x)", "", ""),
    "relative import": ("from package.outer import V", "", ""),
    "import inside of an import": ("def V(x):\n    import chain\n    return chain", "", ""),
    "module": ("import helpers\nV = [helpers]", "", ""),
    "class of a module": ("import helpers\nV = helpers.Tool()", "", ""),
    "import_module": ("import importlib\ndef V(x): return importlib.import_module('helpers').FACTOR", "", ""),
    "import_module alias": (
        "from importlib import import_module as load\ndef V(x): return load('helpers').FACTOR",
        "",
        "",
    ),
    "import_module inside": (
        "def V(x):\n    from importlib import import_module\n    return import_module('helpers')",
        "",
        "",
    ),
    "import_module relative": ("from package.late import V", "", ""),
    "import_module by a constant": (
        "import importlib\nN = 'helpers'\ndef V(x): return importlib.import_module(N)",
        "",
        "",
    ),
    "import_module of an import": ("def V(x):\n    import late\n    return late.load()", "", ""),
    "__import__": ("def V(x): return __import__('helpers').FACTOR", "", ""),
    "globals": ("K = {}\ndef V(x): return globals()['K']", "1", "2"),
    "eval": ("K = {}\ndef V(x): return eval('K')", "1", "2"),
    "exec": ("K = {}\ndef V(x): exec('print(K)')", "1", "2"),
    "sys.modules": ("import sys\nK = {}\ndef V(x): return sys.modules[__name__].K", "1", "2"),
    "sys.modules alias": ("from sys import modules as m\nK = {}\ndef V(x): return m[__name__].K", "1", "2"),
    "sys.modules of another": ("import sys, helpers\ndef V(x): return sys.modules['helpers'].FACTOR", "", ""),
    "own module by its name": (
        "import importlib\nK = {}\ndef V(x): return importlib.import_module(__name__).K",
        "1",
        "2",
    ),
    "__globals__": ("K = {}\ndef V(x): return V.__globals__['K']", "1", "2"),
    "getattr of a module": ("import helpers\ndef V(x): return getattr(helpers, 'FACTOR')", "", ""),
    "vars of a module": ("import helpers\ndef V(x): return vars(helpers)[x]", "", ""),
    "getattr of a submodule": ("import package.inner\ndef V(x): return getattr(package.inner, x)", "", ""),
    "annotation of a function": ("def h(x: {}): pass\ndef V(x): return h.__annotations__", "int", "str"),
    "annotation of the result": ("def V(x) -> {}: return x", "'int'", "'str'"),
    "generic annotation": (
        "import typing\nT = typing.TypeVar('T')\nC = typing.Callable\n"
        "def V(x: C[[T, {}], typing.Literal['a']]) -> typing.Iterator[T]: yield",
        "int",
        "str",
    ),
    "docstring of a class": ("class C:\n    '''{}'''\nV = C", "a", "b"),
    "docstring of a function": ("def V(x):\n    '''{}'''\n    return V.__doc__", "a", "b"),
    "subclasses": (
        "class A: pass\nclass B(A):\n    def k(self): return {}\ndef V(x): return A.__subclasses__()",
        "1",
        "2",
    ),
    "subclasses of itself": (
        "class A:\n    @classmethod\n    def all(cls): return cls.__subclasses__()\n"
        "class B(A): k = {}\ndef V(x): return A.all()",
        "1",
        "2",
    ),
    "dataclass with odd defaults": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: object = frozenset('abc')\n"
        "    b: object = lambda: {}\nV = C",
        "1",
        "2",
    ),
    "generic alias": ("V = list[{}]", "int", "str"),
    "union": ("V = {} | None", "int", "str"),
    "weak reference": ("import weakref\nclass C: k = {}\nX = C()\nV = weakref.ref(X)", "1", "2"),
    "logger": ("import logging\nV = logging.getLogger({})", "'a'", "'b'"),
    "context variable": ("import contextvars\nV = contextvars.ContextVar('v', default={})", "1", "2"),
    "lock beside a value": (
        "import threading\nclass C:\n    def __init__(self, k): self.k, self.lock = k, threading.Lock()\nV = C({})",
        "1",
        "2",
    ),
    "numpy array": ("import numpy as np\nV = np.array([1, {}])", "1", "2"),
    "numpy dtype": ("import numpy as np\nV = np.array([1, 2], dtype={})", "'i8'", "'u8'"),
    "numpy shape": ("import numpy as np\nV = np.zeros({})", "(2, 3)", "(3, 2)"),
    "numpy datetime": ("import numpy as np\nV = np.array([{}], dtype='M8[D]')", "'2024-01-01'", "'2024-01-02'"),
    "numpy objects": (
        "import numpy as np, decimal\nV = np.array([decimal.Decimal({}), 'a'], dtype=object)",
        "1",
        "2",
    ),
    "numpy structured": (
        "import numpy as np\nV = np.array([(1, {})], dtype=[('a', 'i4'), ('b', 'f8')])",
        "1",
        "2",
    ),
    "numpy slice": ("import numpy as np\nV = np.arange(10)[{}::2]", "0", "1"),
    "numpy scalar": ("import numpy as np\nV = np.float32({})", "1", "2"),
    "numpy scalars": ("import numpy as np\nV = [np.{}(1)]", "int64", "uint64"),
    "numpy masked": ("import numpy as np\nV = np.ma.masked_array([1, 2], mask=[0, {}])", "0", "1"),
    "numpy generator": ("import numpy as np\nV = np.random.default_rng({})", "1", "2"),
    "numpy ufunc": ("import numpy as np\nV = np.{}", "add", "multiply"),
    "numpy vectorize": ("import numpy as np\nV = np.vectorize(lambda x: x + {})", "1", "2"),
    "numpy poly": ("import numpy as np\nV = np.poly1d([1, {}])", "1", "2"),
    "pandas frame": ("import pandas as pd\nV = pd.DataFrame(dict(a=[{}], b=['x']))", "1", "2"),
    "pandas text": ("import pandas as pd\nV = pd.DataFrame(dict(a=[1], b=[{}]))", "'x'", "'y'"),
    "pandas index": ("import pandas as pd\nV = pd.Series([1], index=[{}])", "'x'", "'y'"),
    "pandas timestamp": ("import pandas as pd\nV = pd.Timestamp({}, tz='UTC')", "'2024-01-01'", "'2024-01-02'"),
    "pandas offset": ("import pandas as pd\nV = pd.offsets.Day({})", "1", "2"),
    "polars frame": ("import polars as pl\nV = pl.DataFrame(dict(a=[{}]))", "1", "2"),
    "polars series": ("import polars as pl\nV = pl.Series('a', [{}])", "1", "2"),
    "polars name": ("import polars as pl\nV = pl.Series({}, [1])", "'a'", "'b'"),
    "polars expression": ("import polars as pl\nV = pl.col('a') + {}", "1", "2"),
    "arrow array": ("import pyarrow as pa\nV = pa.array([{}])", "1", "2"),
    "arrow type": ("import pyarrow as pa\nV = pa.array([1], pa.{}())", "int32", "int64"),
    "arrow scalar": ("import pyarrow as pa\nV = pa.scalar({})", "1", "2"),
    "arrow table": ("import pyarrow as pa\nV = pa.table(dict(a=[{}]))", "1", "2"),
    "arrow chunked": ("import pyarrow as pa\nV = pa.chunked_array([[{}]])", "1", "2"),
    "arrow schema": ("import pyarrow as pa\nV = pa.schema([('a', pa.{}())])", "int32", "int64"),
    "arrow data type": ("import pyarrow as pa\nV = pa.list_(pa.{}())", "int32", "int64"),
    "arrow expression": ("import pyarrow.compute as pc\nV = pc.field('a') > {}", "1", "2"),
    "ctypes": ("import ctypes\nV = ctypes.c_int({})", "1", "2"),
    "ctypes library": ("import ctypes\nV = ctypes.CDLL({})", "None", "'libc.so.6'"),
    "loop": ("V = [{}]\nV.append(V)", "1", "2"),
    "object in a loop": ("class C: pass\nV = C()\nV.me, V.k = V, {}", "1", "2"),
    "custom reduce": (
        "class C:\n    def __init__(self, k): self.k = k\n    def __reduce__(self): return C, (self.k,)\nV = C({})",
        "1",
        "2",
    ),
    "custom state": ("class C:\n    def __getstate__(self): return {{'k': {}}}\nV = C()", "1", "2"),
    "subclass of dict": ("class D(dict): pass\nV = D(a={})", "1", "2"),
    "subclass of str": ("class S(str): pass\nV = S({})", "'a'", "'b'"),
    "subclass of list": ("class L(list): pass\nV = L([{}])", "1", "2"),
    "exception": ("V = ValueError({})", "1", "2"),
    "module level alias": ("import math\nV = math.{}", "sin", "cos"),
    "msgspec class": ("import msgspec\nclass S(msgspec.Struct):\n    a: int = {}\nV = S", "1", "2"),
    "msgspec factory": (
        "import msgspec\nclass S(msgspec.Struct):\n    a: list = msgspec.field("
        "default_factory=lambda: [{}])\nV = S",
        "1",
        "2",
    ),
    "msgspec constraint": (f"{MSGSPEC}    a: Annotated[int, msgspec.Meta(ge={{}})] = 5\nV = S", "1", "2"),
    "msgspec tag": ("import msgspec\nclass S(msgspec.Struct, tag={}): pass\nV = S", "'a'", "'b'"),
    "msgspec decoder": ("import msgspec\nV = msgspec.json.Decoder({})", "int", "str"),
    "msgspec decoder hook": ("import msgspec\nV = msgspec.msgpack.Decoder(dec_hook=lambda t, x: {})", "1", "2"),
    "msgspec encoder": ("import msgspec\nV = msgspec.json.Encoder(order={})", "None", "'sorted'"),
    "pydantic default": (f"{PYDANTIC}    a: int = {{}}\nV = P", "1", "2"),
    "pydantic annotation": (f"{PYDANTIC}    a: {{}}\nV = P", "int", "str"),
    "pydantic constraint": (f"{PYDANTIC}    a: int = pydantic.Field(5, le={{}})\nV = P", "8", "9"),
    "pydantic config": (f"{PYDANTIC}    model_config = {{{{'frozen': {{}}}}}}\nV = P", "True", "False"),
    "pydantic validator": (f"{VALIDATOR}    def f(cls, v): return v + {{}}\nV = P", "1", "2"),
    "pydantic mode": (f"{VALIDATOR.replace('after', '{}')}    def f(cls, v): return v\nV = P", "after", "before"),
    "pydantic field": (VALIDATOR.replace("'x_a'", "{}") + "    def f(cls, v): return v\nV = P", "'x_a'", "'x_b'"),
    "pydantic instance": (f"{VALIDATOR}    def f(cls, v): return v\nV = P(x_a={{}})", "1", "2"),
    "pydantic inherited": (f"{VALIDATOR}    def f(cls, v): return v + {{}}\nclass C(P): pass\nV = C", "1", "2"),
    "pydantic inside": (
        f"{VALIDATOR}    def f(cls, v): return v + {{}}\nclass C(pydantic.BaseModel):\n    p: P\nV = C",
        "1",
        "2",
    ),
    "pydantic model": (
        f"{PYDANTIC}    @pydantic.model_validator(mode='after')\n    def f(self): return self or {{}}\nV = P",
        "1",
        "2",
    ),
    "pydantic computed": (
        f"{PYDANTIC}    @pydantic.computed_field\n    @property\n    def f(self) -> int: return {{}}\nV = P",
        "1",
        "2",
    ),
    "pydantic generic": (
        f"{VALIDATOR.replace('BaseModel', 'BaseModel, Generic[T]')}    def f(cls, v): return v\nV = P[{{}}]",
        "int",
        "str",
    ),
    "pydantic dataclass": (
        "import pydantic\n@pydantic.dataclasses.dataclass\nclass P:\n    a: int = 1\n"
        "    @pydantic.field_validator('a')\n    @classmethod\n"
        "    def f(cls, v): return v + {}\nV = P",
        "1",
        "2",
    ),
    "pydantic adapter": (
        f"{VALIDATOR}    def f(cls, v): return v + {{}}\nV = pydantic.TypeAdapter(list[P])",
        "1",
        "2",
    ),
    "pydantic annotated": (
        f"{PYDANTIC}    a: Annotated[int, pydantic.AfterValidator(lambda v: v + {{}})]\nV = P",
        "1",
        "2",
    ),
    "pydantic call": ("import pydantic\n@pydantic.validate_call\ndef V(x: int): return x + {}", "1", "2"),
    "attrs default": ("import attrs\n@attrs.define\nclass C:\n    a: int = {}\nV = C", "1", "2"),
    "attrs validator": (
        "import attrs\n@attrs.define\nclass C:\n    a: int = attrs.field(default=1)\n    @a.validator\n"
        "    def f(self, attribute, value): return value + {}\nV = C(5)",
        "1",
        "2",
    ),
    "attrs converter": (
        "import attrs\n@attrs.define\nclass C:\n    a: int = attrs.field(default=1, converter={})\nV = C",
        "int",
        "str",
    ),
    "jsonschema": ("import jsonschema\nV = jsonschema.Draft202012Validator(dict(type={}))", "'object'", "'array'"),
    "jsonschema extended": (
        "import jsonschema\nV = jsonschema.validators.extend(jsonschema.Draft202012Validator, "
        "dict(x=lambda *_: {}))",
        "1",
        "2",
    ),
    "dunder attribute": ("class C:\n    __limits__ = [{}]\nV = C", "1", "2"),
    "address": ("class C: pass\nV = [C, {} + f':{{id(C)}}']", "'a'", "'b'"),
    "keys": ("V = {{'a': 1, {}: 2}}.keys()", "'b'", "'c'"),
}

HELPERS = {
    "helpers.py": "FACTOR = {}\nclass Tool:\n    def use(self): return FACTOR\ndef scale(x): return x * FACTOR\n",
    "package/__init__.py": "",
    "package/inner.py": "def scale(x): return x * {}\n",
    "package/outer.py": "def V(x):\n    from .inner import scale\n    return scale(x)\n",
    "package/late.py": "import importlib\ndef V(x): return importlib.import_module('.inner', __package__)\n",
    "late.py": "import importlib\ndef load(): return importlib.import_module('helpers')\n",
    "chain.py": "from package import outer\n",
}
SCRIPT = """
import importlib, json, sys
from batchflow.core.fingerprint import examine
def fn(module):
    def fn(x): return module.V
    return fn
told = {}
for name in json.load(sys.stdin):
    module = importlib.import_module(name)
    def fn(x, v=module.V): return v
    digits = [found.digest or found.unknown for found in (examine(fn), examine(module.V))]
    told[name] = digits
print(json.dumps(told))
"""


def name_of(kind):
    return "kind_" + re.sub(r"\W", "_", kind)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return the digits of all kinds: of the first variant in two processes, and of the second."""
    answers = []
    for variant, seed in ((0, "0"), (0, "1"), (1, "1")):
        folder = tmp_path_factory.mktemp("steps")
        (folder / "package").mkdir()
        for file, text in HELPERS.items():
            (folder / file).write_text(text.format(variant))
        for kind, (text, *values) in KINDS.items():
            (folder / f"{name_of(kind)}.py").write_text(text.format(values[variant]) + "\n")
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SCRIPT)],
            cwd=folder,
            capture_output=True,
            text=True,
            input=json.dumps([*map(name_of, KINDS)]),
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)},
        )
        assert answer.returncode == 0, answer.stderr
        answers.append(json.loads(answer.stdout))
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_equal_value_in_another_process_has_equal_digits(digits, kind):
    first, again, _ = (answer[name_of(kind)] for answer in digits)
    assert first == again
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in first), first


@pytest.mark.parametrize("kind", KINDS)
def test_changed_value_has_other_digits(digits, kind):
    _, before, after = (answer[name_of(kind)] for answer in digits)
    assert before[0] != after[0]
    assert before[1] != after[1]
