"""Which families are trained on, and which are held out.

The split was made before anything was trained on the families after `key`. Nothing is ever trained on `HELD_OUT`, which
has one family of each kind; a test reads every file in `configs/`. Its sources are named in words that no training
family has, and its numbers are drawn apart. `HELD_OUT_CONTRACTS` are the same contracts with sources and numbers as in
training: they alone were held out in older figures. `docs/families.md` has the table.

`HELD_OUT_COPIED` came later: one more contract that nothing is trained on, with sources and numbers of its own, whose
code ends where its gap does, as that of most numeric training families does. A model that is too small to write the
code of a contract that it never saw can copy it, so whom it trusts shows in what it writes.
"""

from envs.families.attribute import Attribute
from envs.families.base import FunctionFamily
from envs.families.buckets import Buckets
from envs.families.capacity import Capacity
from envs.families.day_format import DayFormat
from envs.families.decimals import Decimals
from envs.families.drift import Drift
from envs.families.error_type import ErrorType
from envs.families.index_base import IndexBase
from envs.families.key import Key
from envs.families.offset import Offset
from envs.families.padding import Padding
from envs.families.page_size import PageSize
from envs.families.return_type import ReturnType
from envs.families.row_size import RowSize
from envs.families.scale import Scale
from envs.families.schema import Schema
from envs.families.separator import Separator
from envs.families.signature import Signature
from envs.families.signing import Signing
from envs.families.timeout import Timeout
from envs.families.unit import Unit

TRAINING: tuple[FunctionFamily, ...] = (
    Offset(),
    Separator(),
    Scale(),
    IndexBase(),
    Timeout(),
    Padding(),
    Key(),
    DayFormat(),
    ErrorType(),
    Schema(),
    Unit(),
    Decimals(),
    Signature(),
    Attribute(),
    Capacity(),
    Drift(),
)
HELD_OUT: tuple[FunctionFamily, ...] = (
    Signing(held_out=True),
    PageSize(held_out=True),
    ReturnType(held_out=True),
    RowSize(held_out=True),
)
HELD_OUT_CONTRACTS: tuple[FunctionFamily, ...] = (Signing(), PageSize(), ReturnType(), RowSize())
HELD_OUT_COPIED: tuple[FunctionFamily, ...] = (Buckets(held_out=True),)
