"""Minimum s-t cut (Dinic, 1970), for choices between two sides with a price for every border."""

from __future__ import annotations

from collections import deque

INFINITE = 1 << 60
SOURCE, SINK = 0, 1


class MinCut:
    """A flow network; vertex 0 is the source, vertex 1 the sink."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]  # vertex -> edge numbers; edge e ^ 1 is its reverse
        self._to: list[int] = []
        self._room: list[int] = []

    def vertex(self) -> int:
        """A new vertex."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, start: int, end: int, price: int) -> None:
        """Pay `price` when `start` ends on the source's side and `end` on the sink's."""
        for a, b, room in ((start, end, price), (end, start, 0)):
            self._edges[a].append(len(self._to))
            self._to.append(b)
            self._room.append(room)

    def source_side(self) -> set[int]:
        """The vertices on the source's side of a cheapest cut."""
        while True:
            level = self._levels()
            if SINK not in level:
                return set(level)
            while self._push(level):
                pass

    def _levels(self) -> dict[int, int]:
        level = {SOURCE: 0}
        queue = deque([SOURCE])
        while queue:
            vertex = queue.popleft()
            for edge in self._edges[vertex]:
                if self._room[edge] > 0 and self._to[edge] not in level:
                    level[self._to[edge]] = level[vertex] + 1
                    queue.append(self._to[edge])
        return level

    def _push(self, level: dict[int, int]) -> bool:
        """Send flow along one path that descends the levels; prunes dead ends from `level`."""
        path: list[int] = []
        vertex = SOURCE
        while vertex != SINK:
            step = next((e for e in self._edges[vertex] if self._descends(e, vertex, level)), None)
            if step is not None:
                path.append(step)
                vertex = self._to[step]
            elif path:
                level.pop(vertex)
                vertex = self._to[path.pop() ^ 1]
            else:
                return False
        flow = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= flow
            self._room[edge ^ 1] += flow
        return True

    def _descends(self, edge: int, vertex: int, level: dict[int, int]) -> bool:
        return self._room[edge] > 0 and level.get(self._to[edge], -1) == level[vertex] + 1
