"""The text of a source with the places of its nodes, found in one pass over it.

`ast.get_source_segment` splits the whole source for every node, which takes minutes for thousands of them.
"""

import ast


class SourceText:
    """A source that parses. Places are bytes of its UTF-8, as `ast` counts columns."""

    def __init__(self, source: str):
        self.content = source.encode("utf-8", "surrogateescape")
        self._starts = [0]
        for line in self.content.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.stmt | ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None  # of all that was parsed
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, start: int, end: int) -> str:
        return self.content[start:end].decode("utf-8", "surrogateescape")

    def of(self, node: ast.stmt | ast.expr) -> str:
        """The text of a node, of a definition without its decorators.

        >>> source = "x = 1\\ny = f(2)"
        >>> SourceText(source).of(ast.parse(source).body[1])
        'y = f(2)'
        """
        return self.text(self.start(node), self.end(node))
