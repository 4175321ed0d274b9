"""Which families are trained on, and which are held out.

The split was made before anything was trained on the families after `key`. Nothing is ever trained on `HELD_OUT`, which
has one family of each kind; a test reads every file in `configs/`. `docs/families.md` has the table.
"""

from envs.families.attribute import Attribute
from envs.families.base import FunctionFamily
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
HELD_OUT: tuple[FunctionFamily, ...] = (Signing(), PageSize(), ReturnType(), RowSize())
