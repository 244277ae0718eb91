"""Workers load pandas only for who uses it, and then Arrow knows of it as everywhere else."""

import subprocess
import sys
from textwrap import dedent

import pytest

SERIES = "pd.Series([1.0, float('nan')])"


def script(text, *args):
    """Return what a script prints: each test is a process of its own, since pandas stays loaded in this one."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(text), *map(str, args)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("loaded", [False, True])
def test_workers_have_pandas_if_the_script_has(tmp_path, loaded):
    """With 0.25 s and 40 MB, in each of them; loaded before they are forked it is there once."""
    told = script(
        f"""
        import sys
        {"import pandas" if loaded else ""}
        import batchflow as bf

        def has_pandas(number):
            return {{"number": number, "loaded": "pandas" in sys.modules}}

        result = bf.map_records(has_pandas, bf.records(range(4)), executor="processes", into=sys.argv[1])
        print(result.table.to_pylist())
        """,
        tmp_path / "out.parquet",
    )
    assert told == f"{[{'number': number, 'loaded': loaded} for number in range(4)]}\n"


WAYS = {
    "in the function": ("", "import pandas as pd", f"pa.array({SERIES})"),
    "in the script": ("import pandas as pd", "", f"pa.array({SERIES})"),
    "by Arrow": ("", "", "pa.array(pa.chunked_array([[1.0, None]]).to_pandas())"),
    "a part of it": ("", "import pandas.api.types; pd = pandas", f"pa.array({SERIES})"),
    "in a frame": ("", "import pandas as pd", f"pa.table(pd.DataFrame({{'x': {SERIES}}}))['x']"),
    "after some rows": ("", "import pandas as pd; pa.array([number])", f"pa.array({SERIES})"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("into", [True, False])
def test_arrow_knows_a_series_however_pandas_is_loaded(tmp_path, way, into):
    """A list of floats keeps its NaN; of a series it is what pandas writes for nothing."""
    before, inside, array = WAYS[way]
    told = script(
        f"""
        import sys
        import pyarrow as pa
        import batchflow as bf
        {before}

        def nulls(number):
            {inside}
            return {{"series": {array}.null_count, "list": pa.array([1.0, float("nan")]).null_count}}

        into = sys.argv[1] if {into} else None
        print(bf.map_records(nulls, bf.records(range(2)), executor="processes", into=into).table.to_pylist())
        """,
        tmp_path / "out.parquet",
    )
    assert told == f"{[{'series': 1, 'list': 0}] * 2}\n"


@pytest.mark.parametrize("first", ["pyarrow", "pandas"])
def test_either_may_be_loaded_first(first):
    told = script(
        f"""
        import sys
        from batchflow.worker.without_pandas import postpone_pandas

        postpone_pandas()
        import {first}
        import pyarrow as pa
        pa.array([1])
        print("pandas" in sys.modules)
        import pandas as pd
        print(pa.array({SERIES}).null_count, pd.__spec__.loader.name)
        """
    )
    assert told == f"{first == 'pandas'}\n1 pandas\n"


def test_who_has_no_pandas_misses_none():
    told = script(
        """
        import sys
        from batchflow.worker.without_pandas import postpone_pandas

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name == "pandas":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Missing())
        postpone_pandas()
        import pyarrow as pa
        print(pa.array([1]).to_pylist())
        try:
            import pandas
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert told == "[1]\npandas\n"
