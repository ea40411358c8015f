"""The accounts of fair queueing, by value."""

import numpy as np
import pytest

from engines.api import GenerationRequest, RequestId, Sampling
from engines.errors import InvalidRequest
from engines.fairness import Service
from engines.limits import Limits


def test_alone_nobody_is_fair_to_anybody():
    """Several requests of one tenant share an account, and are not several tenants."""
    service = Service(credit=10)
    assert service.enter(b"a") == service.enter(b"a")
    assert not service.shared
    service.enter(b"b")
    assert service.shared


def test_a_newcomer_is_ahead_by_the_credit_and_by_no_more():
    """Whoever comes later, or comes back, counts as the level less the credit at least."""
    service = Service(credit=10)
    flood = service.enter(b"flood")
    service.turn(flood)
    light = service.enter(b"light")
    assert (service.of(flood), service.of(light)) == (0, -10)
    for _ in range(5):
        service.turn(flood)
        service.charge(flood, 100)
    assert (service.of(flood), service.of(light)) == (500, 390)
    service.charge(light, 5)
    assert service.of(light) == 395


def test_what_is_served_alone_is_remembered_too():
    """A tenant that was charged and is alone now keeps what it was charged."""
    service = Service(credit=10)
    other, flood = service.enter(b"other"), service.enter(b"flood")
    service.charge(flood, 100)
    service.leave(other)
    service.turn(flood)
    assert service.of(flood) == 90
    assert service.of(service.enter(b"other")) == 80


def test_the_level_never_falls():
    """The turn of one that was served little does not make the others newcomers again."""
    service = Service(credit=10)
    flood, light = service.enter(b"flood"), service.enter(b"light")
    service.charge(flood, 110)
    service.turn(flood)
    service.turn(light)
    assert service.of(service.enter(b"third")) == 90


def test_service_is_added_by_columns():
    """Several sequences of one tenant, each at its own weight, in one call."""
    service = Service(credit=0)
    one, two = service.enter(b"1"), service.enter(b"2")
    service.charge_each(np.array([two, one, two]), np.array([1.0, 2.0, 0.5]))
    assert (service.of(one), service.of(two)) == (2.0, 1.5)


def test_who_leaves_with_more_than_the_least_is_remembered():
    """A tenant does not wash its account by going away for a moment, while others are there."""
    service = Service(credit=10)
    service.enter(b"stays")
    leaves = service.enter(b"leaves")
    service.charge(leaves, 500)
    service.leave(leaves)
    assert service.of(service.enter(b"leaves")) == 490  # the credit was used, and not twice


def test_an_empty_engine_owes_nobody_anything():
    """When the last request ends, nothing is remembered."""
    service = Service(credit=10)
    accounts = [service.enter(name) for name in (b"a", b"b")]
    service.charge(accounts[0], 500)
    for account in accounts:
        service.leave(account)
    assert not service
    assert service.of(service.enter(b"a")) == -10


def test_accounts_are_as_many_as_are_needed():
    """Tenants that come and go leave nothing; those that stay all have accounts of their own."""
    service = Service(credit=10)
    service.enter(b"stays")
    for number in range(1000):
        service.leave(service.enter(b"%d" % number))
    assert len(service) <= 8
    kept = [service.enter(b"kept %d" % number) for number in range(100)]
    assert len(set(kept)) == 100
    for number, account in enumerate(kept):
        service.charge(account, number)
    assert [service.of(account) for account in kept] == [number - 10 for number in range(100)]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_is_a_positive_number(weight):
    """Else a tenant would be served always, or never."""
    limits = Limits(32, 4, 16, 4, 10, 50)
    asked = GenerationRequest(RequestId("a"), (1,), Sampling(1), weight=weight)
    with pytest.raises(InvalidRequest) as refused:
        limits.check(asked)
    assert refused.value.param == "weight"
