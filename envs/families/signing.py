"""Signing: one function signs a text, the other says whether a signature is right.

Claims: two hash functions. Blend: one over the other, which verifies neither's signatures.
"""

import hashlib

import numpy as np

from envs.families.base import ContractOptions, FunctionFamily, shuffled

_SCHEMES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b", "blake2s")
_OVER = " over "


class Signing(FunctionFamily):
    name = "signing"
    kind = "categorical"
    contract = "scheme"
    signatures = ("sign(s)", "valid(s, h)")
    glosses = ("hex signature of s", "is h the signature of s")

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(_SCHEMES, rng)[:3], f"{{}}{_OVER}{{}}".format)

    def source(self, part: int, option: str) -> str:
        outer, _, inner = option.partition(_OVER)
        data = f"hashlib.{inner}(s.encode()).digest()" if inner else "s.encode()"
        signature = f"hashlib.{outer}({data}).hexdigest()"
        return (
            f"import hashlib\ndef sign(s): return {signature}",
            f"import hashlib\ndef valid(s, h): return h == {signature}",
        )[part]

    def check(self, part: int, option: str, n: int) -> str:
        text, other = f"order {n}", f"order {n + 1}"
        signature = _sign(option, text)
        tries = f"valid('{text}', '{signature}'), valid('{other}', '{signature}')"
        return (f"same(sign('{text}'), '{signature}')", f"same(({tries}), (True, False))")[part]

    def round_trip(self, n: int) -> str:
        return f"same((valid('{n}', sign('{n}')), valid('{n}', sign('{n + 1}'))), (True, False))"


def _sign(option: str, text: str) -> str:
    outer, _, inner = option.partition(_OVER)
    data = text.encode()
    return hashlib.new(outer, hashlib.new(inner, data).digest() if inner else data).hexdigest()
