"""The checker tells good grammars from bad ones, and outlives the worst of them."""

import asyncio
import signal

import psutil
import pytest

from engines.errors import EngineUnavailable, InvalidRequest
from engines.grammar.bounds import MAX_SOURCE_BYTES, reason
from engines.grammar.checker import CheckLimits, GrammarChecker
from tests.support.grammars import END, TOKENIZER, json_grammar, regex_grammar

pytestmark = pytest.mark.anyio

# llguidance builds the intersection of all patterns, and none of its limits ends that in time.
ENDLESS = json_grammar(
    {"allOf": [{"type": "string", "pattern": f"a.{{0,{50 + i}}}b"} for i in range(30)]}
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The test tokenizer as a file."""
    path = tmp_path_factory.mktemp("model") / "tokenizer.json"
    TOKENIZER.save(str(path))
    return path


@pytest.fixture
async def make(tokenizer):
    """Checkers that are closed at the end."""
    made = []

    def one(**limits):
        made.append(GrammarChecker(tokenizer, 400, {END}, CheckLimits(**limits)))
        return made[-1]

    yield one
    for checker in made:
        await checker.close()


def resident(checker):
    return psutil.Process(checker._child.pid).memory_info().rss


async def test_a_good_grammar_passes_and_is_remembered(make):
    """The second time no process is asked."""
    checker = make()
    await checker.check('start: "a" <tool_call>')
    await checker.close()
    await checker.check('start: "a" <tool_call>')
    assert checker._child is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("start: x y", 'unknown name: "x"'),
        (json_grammar({"type": "object", "if": {}}), r'Unimplemented keys: \["if"\]'),
        (regex_grammar("[0-9]+("), "unclosed group"),
        ("start: <no_such_token>", "no_such_token"),
        ("start: " + "(" * 30_000 + '"a"' + ")" * 30_000, "too deeply nested"),
        (regex_grammar("(" * 30_000 + "a" + ")" * 30_000), "nested parentheses"),
        ('{"grammars": [{"json_schema": ' + '{"not": ' * 9000 + "{}" + "}" * 9000 + "}]}", "limit"),
        ("x" * (MAX_SOURCE_BYTES + 1), "at most 262144"),
    ],
    ids=["rule", "keyword", "regex", "token", "lark", "parens", "deep", "size"],
)
async def test_a_bad_grammar_is_refused_with_what_is_wrong(make, source, words):
    """Short, in one line, without the source, and the same when asked again."""
    checker = make()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=words) as caught:
            await checker.check(source)
        assert caught.value.param == "grammar"
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)
        assert "((((((((" not in str(caught.value)


async def test_a_nested_repetition_is_no_trouble(make):
    """`(a+)+$` is backtracking's problem, and nothing here backtracks."""
    checker = make()
    for regex in ("(a+)+$", "(a+)+", "((a{1,1000}){1,1000}){1,1000}"):
        await checker.check(regex_grammar(regex))


async def test_what_takes_too_long_is_killed_and_the_next_is_served(make):
    """The error names the time; others that waited behind it get their verdicts."""
    checker = make(timeout_s=0.5)
    await checker.check('start: "warm"')
    child = checker._child
    slow = asyncio.create_task(checker.check(ENDLESS))
    await asyncio.sleep(0)
    await checker.check('start: "next"')
    with pytest.raises(InvalidRequest, match=r"longer than 0\.5 s"):
        await slow
    assert child.returncode == -signal.SIGPROF
    assert checker._child is not child


async def test_a_child_that_stands_still_is_not_waited_for(make):
    """Its own time passes only while it works; the clock on the wall ends it in the end."""
    checker = make(timeout_s=0.2)
    await checker.check('start: "warm"')
    child = psutil.Process(checker._child.pid)
    child.suspend()
    with pytest.raises(InvalidRequest, match=r"longer than 0\.2 s"):
        await checker.check('start: "a"')
    assert not child.is_running()
    await checker.check('start: "b"')


async def test_what_takes_too_much_memory_ends_its_child_only(make):
    """The address space of the child is bounded; a fresh child serves the next."""
    checker = make(memory_bytes=1 << 30, timeout_s=20)
    await checker.check('start: "a"')
    child = psutil.Process(checker._child.pid)
    child.rlimit(psutil.RLIMIT_AS, (child.memory_info().vms + (4 << 20),) * 2)
    wide = "start: " + " | ".join(f'"{i}w"' for i in range(20_000))
    await checker.check(wide)  # the first child dies of it, the second has room
    assert checker._child.pid != child.pid


async def test_a_check_given_up_leaves_no_answer_for_another(make):
    """After a cancelled check the next one is answered by a fresh child."""
    checker = make()
    await checker.check('start: "a"')
    task = asyncio.create_task(checker.check(ENDLESS))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(InvalidRequest, match="unknown name"):
        await checker.check("start: nothing")


async def test_a_child_that_died_by_itself_is_replaced(make):
    """An idle child may be killed by anybody: its successor answers."""
    checker = make()
    await checker.check('start: "a"')
    psutil.Process(checker._child.pid).kill()
    await checker.check('start: "b"')


async def test_too_many_in_line_are_turned_away(make):
    """Bounded: the one over the limit is refused as overload, not as a bad grammar."""
    checker = make(waiting=2)
    tasks = [asyncio.create_task(checker.check(f'start: "{i}"')) for i in range(3)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), EngineUnavailable]


async def test_the_child_dies_with_a_closed_pipe(make):
    """No child outlives its parent, however the parent ended."""
    checker = make()
    await checker.check('start: "a"')
    child = psutil.Process(checker._child.pid)
    checker._child.stdin.close()
    await asyncio.to_thread(child.wait, 10)
    assert not child.is_running()


@pytest.mark.slow
async def test_ten_thousand_grammars_leave_memory_flat(make):
    """Verdicts are bounded by bytes, and the child is replaced before it has grown."""
    checker = make(cache_bytes=20_000)
    own = psutil.Process()
    await checker.check('start: "a"')
    child, before = resident(checker), own.memory_info().rss
    for number in range(10_000):
        schema = {"type": "object", "properties": {f"k{number}": {"maxLength": number % 50}}}
        await checker.check(json_grammar(schema))
        if number % 500 == 0 and checker._child is not None:
            assert resident(checker) - child < 96 << 20
    assert own.memory_info().rss - before < 32 << 20
    assert len(checker._verdicts) <= 101


def test_a_reason_is_one_line_without_excerpts():
    """Indented lines are the source, long quotations too."""
    message = f'at 1(8): bad "{"x" * 90}" (in "rule"): error:\n    [0-9\n    ^\nwhy\n<non-verbose/>'
    assert reason(message) == 'at 1(8): bad "…" (in "rule"): error: why'
    assert reason("is it empty:  (And (Regex a.{0,50}b) x)") == "is it empty"
    assert reason("") == "it cannot be compiled"
    assert len(reason("y" * 1000)) == 300
