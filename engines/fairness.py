"""What each tenant has been served while others waited: the counters of fair queueing. Pure.

Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): who
has been served least is next. Service is tokens by what they cost, divided by the tenant's weight.

    level           what those had been served whose turn has come; it never falls
    level - credit  the least that anybody counts as having been served

So nobody saves up while away, nor while in a worse class; and who asks for little finds what it
asks for at once, as the credit is ahead of everybody who asks for more than there is. Over any time
two tenants that always wait differ by the credit and by what was on its way, and by no more.

Service counts only while somebody waits for it: what was taken from an idle engine was taken from
nobody.
"""

import numpy as np
import numpy.typing as npt

PROMPT_COST, OUTPUT_COST = 1.0, 2.0  # of a token, as in the paper: one of output costs more
CREDIT_STEPS = 8  # of full steps, or of those of so many rows: a prompt of some thousand tokens
CREDIT_ROWS = 512
_FIRST_ACCOUNTS = 8


class Service:
    """One account per tenant with open requests, and of those who left with more than the least.

    Accounts are small integers, so that a step over hundreds of sequences is charged by columns.
    """

    def __init__(self, credit: float) -> None:
        self._credit = credit
        self._accounts: dict[bytes, int] = {}
        self._free = list(range(_FIRST_ACCOUNTS))[::-1]
        self._open = [0] * _FIRST_ACCOUNTS  # requests of each account
        self._tenants = 0  # that have open requests
        self._served = [0.0] * _FIRST_ACCOUNTS
        self._level = 0.0

    def __len__(self) -> int:
        """Accounts that are kept."""
        return len(self._accounts)

    @property
    def shared(self) -> bool:
        """Whether several tenants have open requests: alone, there is nobody to be fair to."""
        return self._tenants > 1

    def enter(self, tenant: bytes) -> int:
        """Count a request in; the account of its tenant."""
        if tenant not in self._accounts:
            if not self._free:
                self._make_room()
            account = self._accounts[tenant] = self._free.pop()
            self._served[account] = self._level - self._credit
        account = self._accounts[tenant]
        self._tenants += not self._open[account]
        self._open[account] += 1
        return account

    def leave(self, account: int) -> None:
        """Count a request out."""
        self._open[account] -= 1
        self._tenants -= not self._open[account]
        if not self._tenants:  # nobody is left to whom anything could be owed
            self._accounts.clear()
            self._free = list(range(len(self._open)))[::-1]
            self._level = 0.0

    def of(self, account: int) -> float:
        """What a tenant counts as having been served."""
        return max(self._served[account], self._level - self._credit)

    def turn(self, account: int) -> None:
        """The tenant's turn has come: from now on it counts from there.

        Alone, it has nobody to be ahead of, and whoever comes then is ahead of it.
        """
        served = self.of(account) if self.shared else max(self.of(account), self._level)
        self._served[account] = served
        self._level = max(self._level, served)

    def charge(self, account: int, cost: float) -> None:
        """Add service to one account; `cost` is divided by the weight already."""
        self._served[account] = self.of(account) + cost

    def charge_each(self, accounts: npt.NDArray[np.intp], costs: npt.NDArray[np.float64]) -> None:
        """Add service by columns; accounts may repeat."""
        for account, cost in enumerate(np.bincount(accounts, costs).tolist()):
            self._served[account] += cost

    def _make_room(self) -> None:
        """Forget who has left and would count as much when it comes back; else grow."""
        least = self._level - self._credit
        for tenant, account in list(self._accounts.items()):
            if not self._open[account] and self._served[account] <= least:
                del self._accounts[tenant]
                self._free.append(account)
        size = len(self._open)
        if len(self._free) < size // 2:
            self._free += range(2 * size - 1, size - 1, -1)
            self._open += [0] * size
            self._served += [0.0] * size
