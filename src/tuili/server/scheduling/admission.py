"""Admission: which requests are let in while there is more to do than can be done in time.

A request that would be answered too late anyway only makes others late too. So it is refused at
once, with the time after which another try may pass, when its expected wait exceeds what it may
wait, or when its model or its client has too many requests under way or asks too often.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from tuili.errors import Overloaded

_CLIENTS: Final = 10_000
_WEIGHT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model version lets in; 0 means no limit. Rates are requests per second."""

    max_wait_s: float = 0.0
    concurrency: int = 0
    client_concurrency: int = 0
    rate: float = 0.0
    client_rate: float = 0.0
    burst_s: float = 1.0


class TokenBucket:
    """Allows `rate` requests per second, and those of `burst_s` seconds at once."""

    def __init__(self, rate: float, burst_s: float, now: float) -> None:
        self._rate = rate
        self._most = max(rate * burst_s, 1.0)
        self._tokens = self._most
        self._at = now

    def wait_s(self, now: float) -> float:
        """Seconds until a request may pass; 0.0 takes one."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def give_back(self) -> None:
        """The request that took a token was refused for another reason."""
        self._tokens += 1.0


class Expectation:
    """How long a request will take, by the recent cost of one and those ahead of it."""

    def __init__(self, instances: int = 1) -> None:
        self.instances = instances
        self._request_s = 0.0
        self._run_s = 0.0

    def ran(self, requests: int, seconds: float) -> None:
        """A batch of `requests` kept an instance for `seconds`."""
        each = seconds / requests
        if not self._run_s:
            self._request_s, self._run_s = each, seconds
            return
        # One run that was disturbed must not shut the door: it counts double at most.
        self._request_s += _WEIGHT * (min(each, 2 * self._request_s) - self._request_s)
        self._run_s += _WEIGHT * (min(seconds, 2 * self._run_s) - self._run_s)

    def wait_s(self, ahead: int) -> float:
        """Seconds until the start of a request with `ahead` others before it, running or not."""
        return ahead * self._request_s / max(self.instances, 1)

    def total_s(self, ahead: int) -> float:
        """Seconds until its answer."""
        return self.wait_s(ahead) + self._run_s


class Admission:
    """Lets requests of one model version in, or says why not and when to try again."""

    def __init__(self, limits: Limits, expectation: Expectation) -> None:
        self.limits = limits
        self.expectation = expectation
        self._under_way = 0
        self._by_client: dict[str, int] = {}
        self._bucket: TokenBucket | None = None
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, client: str, ahead: int, deadline: float, now: float) -> None:
        """Let a request in; Overloaded with `retry_after_s` when not. `deadline` 0.0: none.

        What nobody knows the client of, "", has only the limits of the model.
        """
        limits = self.limits
        self._check_wait(ahead, deadline, now)
        if limits.concurrency and self._under_way >= limits.concurrency:
            raise Overloaded(
                f"Exceeds maximum number of requests under way ({limits.concurrency})",
                self.expectation.total_s(1),
            )
        mine = self._by_client.get(client, 0)
        if client and limits.client_concurrency and mine >= limits.client_concurrency:
            raise Overloaded(
                f"Exceeds maximum number of requests under way per client "
                f"({limits.client_concurrency})",
                self.expectation.total_s(1),
            )
        self._check_rates(client, now)
        self._under_way += 1
        self._by_client[client] = mine + 1

    def ended(self, client: str) -> None:
        """A request that was let in has ended, however."""
        self._under_way -= 1
        left = self._by_client[client] - 1
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]

    def _check_wait(self, ahead: int, deadline: float, now: float) -> None:
        limit_s = self.limits.max_wait_s
        total_s = self.expectation.total_s(ahead)
        if deadline:
            left_s = deadline - now
            limit_s = min(limit_s, left_s) if limit_s else left_s
        # With nobody ahead there is no load to shed: what is too slow then is not for want of room.
        if ahead and (limit_s or deadline) and total_s > limit_s:
            raise Overloaded(
                f"the expected time of {total_s * 1e3:.3g} ms exceeds the allowed "
                f"{max(limit_s, 0.0) * 1e3:.3g} ms",
                total_s - max(limit_s, 0.0),
            )

    def _check_rates(self, client: str, now: float) -> None:
        limits = self.limits
        if limits.rate:
            if self._bucket is None:
                self._bucket = TokenBucket(limits.rate, limits.burst_s, now)
            wait_s = self._bucket.wait_s(now)
            if wait_s:
                raise Overloaded(f"Exceeds maximum rate ({limits.rate:g} requests/s)", wait_s)
        if client and limits.client_rate:
            wait_s = self._client_bucket(client, now).wait_s(now)
            if wait_s:
                if self._bucket is not None:
                    self._bucket.give_back()
                raise Overloaded(
                    f"Exceeds maximum rate per client ({limits.client_rate:g} requests/s)", wait_s
                )

    def _client_bucket(self, client: str, now: float) -> TokenBucket:
        bucket = self._buckets.pop(client, None)
        if bucket is None:
            bucket = TokenBucket(self.limits.client_rate, self.limits.burst_s, now)
        self._buckets[client] = bucket
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return bucket
