"""Users are looked up seldom, and nobody waits for it who need not."""

import asyncio
import pwd
import threading
import time

from l4lb.probes.accounts import FRESH_SECONDS, Account, Accounts, look_up


class Directory:
    """A directory of users that tells what was asked, and answers when it may."""

    def __init__(self, **accounts: Account) -> None:
        self.accounts = accounts
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.now = 0.0
        self.known = Accounts(self._look_up, lambda: self.now)

    def _look_up(self, user: str) -> Account | None:
        self.asked.append(user)
        assert self.open.wait(5)
        return self.accounts.get(user)

    def asked_times(self, times: int) -> None:
        """Waits until it has been asked so often, and its answers are known."""
        while len(self.asked) < times or self.known._under_way:
            time.sleep(0.001)


A, B = Account(1001, 101), Account(1002, 102)


def test_the_systems_users() -> None:
    nobody = pwd.getpwnam("nobody")
    assert look_up("nobody") == Account(nobody.pw_uid, nobody.pw_gid)
    assert look_up("l4lb-no-such-user") is None


def test_a_user_is_looked_up_once_a_minute() -> None:
    directory = Directory(a=A)

    async def main() -> None:
        for _ in range(3):
            assert await directory.known.find("a") == A
            assert await directory.known.find("b") is None
        assert directory.asked == ["a", "b"]
        directory.now = FRESH_SECONDS
        assert await directory.known.find("a") == A
        assert directory.asked == ["a", "b"]
        directory.now += 1
        assert await directory.known.find("a") == A
        directory.asked_times(3)

    asyncio.run(main())


def test_who_comes_later_is_found_within_a_minute() -> None:
    directory = Directory()

    async def main() -> None:
        assert await directory.known.find("a") is None
        directory.accounts["a"] = A
        directory.now = FRESH_SECONDS + 1
        assert await directory.known.find("a") == A

    asyncio.run(main())


def test_a_slow_directory_is_asked_once_and_holds_up_nobody_else() -> None:
    directory = Directory(a=A)
    directory.open.clear()

    async def main() -> None:
        waiting = [asyncio.create_task(directory.known.find("a")) for _ in range(5)]
        given_up = waiting.pop()
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in waiting)
        given_up.cancel()
        directory.open.set()
        assert await asyncio.gather(*waiting) == [A] * 4

    asyncio.run(main())
    assert directory.asked == ["a"]


def test_what_is_known_counts_while_it_is_renewed() -> None:
    directory = Directory(a=A)

    async def main() -> None:
        await directory.known.find("a")
        directory.now = FRESH_SECONDS + 1
        directory.open.clear()
        directory.accounts["a"] = B
        for _ in range(3):
            assert await directory.known.find("a") == A
        directory.open.set()
        directory.asked_times(2)
        assert await directory.known.find("a") == B

    asyncio.run(main())
    assert directory.asked == ["a", "a"]


def test_who_cannot_be_found_any_more_is_still_known() -> None:
    """A directory that is out of reach takes no backend down."""
    directory = Directory(a=A)

    async def main() -> None:
        await directory.known.find("a")
        directory.accounts.clear()
        for times in (2, 3):
            directory.now += FRESH_SECONDS + 1
            assert await directory.known.find("a") == A
            directory.asked_times(times)
        assert await directory.known.find("a") == A

    asyncio.run(main())
