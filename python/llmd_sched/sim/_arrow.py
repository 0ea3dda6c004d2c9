"""Columns as an Arrow table, where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmd_sched._errors import MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa


def table_of(
    columns: Mapping[str, npt.NDArray[Any]], names: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """A table of columns; those in ``names`` are numbers of what is listed there.

    Numbers are not copied; Arrow packs booleans into bits, which copies them.
    """
    try:
        import pyarrow as pa
    except ImportError as absent:
        raise MissingDependencyError(
            "this needs pyarrow: pip install 'llmd-sched[arrow]', or use the numpy columns"
        ) from absent
    arrays = {}
    for name, column in columns.items():
        listed = (names or {}).get(name)
        if listed is None:
            # With `from_pandas`, NaN would become null: a time that never came stays NaN.
            arrays[name] = pa.array(column, from_pandas=False)
        else:
            indices = pa.array(column.astype(np.int8, copy=False))
            arrays[name] = pa.DictionaryArray.from_arrays(indices, pa.array(listed))
    return pa.table(arrays)
