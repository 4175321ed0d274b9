"""Error type: one function fails, the other calls it and handles that failure and no other.

Claims: two of Python's exceptions, neither of which is a case of the other. Blend: now one, now the other, so that both
must be handled.
"""

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

_ERRORS = (
    *("ValueError", "TypeError", "KeyError", "RuntimeError"),
    *("ArithmeticError", "AssertionError", "BufferError", "EOFError"),
)
_OR = " or "
_BENCH = f"""
def kind(f, k):
    try:
        return f(k)
    except Exception as error:
        return type(error).__name__ if k in error.args else "not on purpose"

def throws(error):
    def f(k):
        raise error(k)
    return f

def handled():
    return [error.__name__ for error in ({", ".join(_ERRORS)}) if kind(lambda k: safe(throws(error), k), 1) is None]
"""


class ErrorType(FunctionFamily):
    name = "error_type"
    kind = "categorical"
    contract = "error"
    signatures = ("fail(k)", "safe(f, k)")
    glosses = ("raise the error with k as its argument", "f(k), or None where it raises the error")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(_ERRORS, rng)[:3], f"{{}}{_OR}{{}}".format)

    def source(self, part: int, option: str) -> str:
        first, _, second = option.partition(_OR)
        if part == 0:
            error = f"({first} if k % 2 else {second})" if second else first
            return f"def fail(k): raise {error}(k)"
        errors = f"({first}, {second})" if second else first
        return f"def safe(f, k):\n    try: return f(k)\n    except {errors}: return None"

    def check(self, part: int, option: str, n: int) -> str:
        errors = option.split(_OR)
        if part == 0:
            raised = _on_bench(f"[kind(fail, {n}), kind(fail, {n + 1})]", "fail")
            return f"same({raised}, {[errors[n % 2 - 1], errors[-(n % 2)]]})"
        caught = _on_bench(f"[safe(abs, -{n}), *handled()]", "safe")
        return f"same({caught}, {[n, *(e for e in _ERRORS if e in errors)]})"

    def round_trip(self, n: int) -> str:
        raised = _on_bench(f"sorted({{kind(fail, {n}), kind(fail, {n + 1})}})", "fail")
        return f"same({_on_bench('sorted(handled())', 'safe')}, {raised})"


def _on_bench(expression: str, function: str) -> str:
    """The value of an expression on one of the functions where `_BENCH` is defined; no expression can catch."""
    bench = f"bench := {{**globals(), {function!r}: {function}}}"
    return f"(exec({_BENCH!r}, {bench}), eval({expression!r}, bench))[1]"
