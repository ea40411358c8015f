"""The toy tools: their schemas, how users ask for them and what they return."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501, SIM905

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .words import DAYS, FOODS, HOBBIES, OBJECTS, WEATHER, city, made_up, name, thing, word

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .base import Message

Args = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tool:
    """A toy tool; `draw` makes arguments, `run` the result and the closing sentence."""

    name: str
    description: str
    params: dict[str, str]
    asks: tuple[str, ...]
    draw: Callable[[random.Random], Args]
    run: Callable[[random.Random, Args], tuple[Any, str]]

    def schema(self) -> Message:
        """Return the OpenAI function schema."""
        return function_schema(self.name, self.description, self.params)


def function_schema(name_: str, description: str, params: dict[str, str]) -> Message:
    """Build an OpenAI function schema from parameter names and types."""
    return {
        "type": "function",
        "function": {
            "name": name_,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in params.items()},
                "required": list(params),
            },
        },
    }


def _weather(rng: random.Random, args: Args) -> tuple[Any, str]:
    sky, degrees = rng.choice(WEATHER), rng.randint(-9, 35)
    return (
        {"weather": sky, "temperature": degrees},
        f"The weather in {args['city']} is {sky} with {degrees} degrees.",
    )


def _sum(_rng: random.Random, args: Args) -> tuple[Any, str]:
    total = args["a"] + args["b"]
    return {"result": total}, f"{args['a']} + {args['b']} = {total}."


def _product(_rng: random.Random, args: Args) -> tuple[Any, str]:
    total = args["a"] * args["b"]
    return {"result": total}, f"{args['a']} x {args['b']} = {total}."


def _search(rng: random.Random, args: Args) -> tuple[Any, str]:
    found = f"{args['query']} is on page {rng.randint(2, 90)}"
    return {"results": [found]}, f"I found this: {found}."


def _time(rng: random.Random, args: Args) -> tuple[Any, str]:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return {"time": clock}, f"It is {clock} in {args['city']}."


def _stock(rng: random.Random, args: Args) -> tuple[Any, str]:
    price = rng.randint(2, 400)
    return {"price": price}, f"The price of {args['item']} is {price} euros."


def _song(_rng: random.Random, args: Args) -> tuple[Any, str]:
    return {"status": "playing"}, f"Now playing {args['title']}."


def _done(sentence: str) -> Callable[[random.Random, Args], tuple[Any, str]]:
    """Return a runner that reports success with one sentence."""
    return lambda _rng, args: ({"status": "ok"}, sentence.format(**args))


def _numbers(rng: random.Random) -> Args:
    top = rng.choice((10, 100, 100, 1000))
    return {"a": rng.randrange(top), "b": rng.randrange(top)}


def _email(rng: random.Random) -> Args:
    who = name(rng)
    plain = who.lower() if who.isascii() else made_up(rng, 2)
    to = f"{plain}@example.com" if rng.random() < 0.6 else who
    return {"to": to, "subject": rng.choice((word(rng), f"the {word(rng)}", thing(rng)))}


_TWO = {"a": "integer", "b": "integer"}
TOOLS: tuple[Tool, ...] = (
    Tool("get_weather", "Get the current weather in a city.", {"city": "string"},
         ("What is the weather in {city}?", "What's the weather like in {city}[ today|]?", "[How is|Tell me] the weather in {city}[.|]",
          "Is it [cold|warm|raining|sunny] in {city}?", "Weather in {city}[, please|]"),
         lambda r: {"city": city(r)}, _weather),
    Tool("add", "Add two numbers.", _TWO,
         ("What is {a} + {b}?", "Add {a} and {b}.", "[Please add|Use the tool to add] {a} and {b}.", "What is {a} plus {b}?"), _numbers, _sum),
    Tool("multiply", "Multiply two numbers.", _TWO,
         ("What is {a} x {b}?", "Multiply {a} [and|by] {b}.", "What is {a} times {b}?"), _numbers, _product),
    Tool("search_docs", "Search the documentation.", {"query": "string"},
         ("Search the docs for {query}.", "[Find|Look up] {query} in the docs.", "What do the docs say about {query}?", "Search for {query}."),
         lambda r: {"query": r.choice((word(r), thing(r), "prefix cache", "streaming", f"{word(r)} {word(r)}"))}, _search),
    Tool("send_email", "Send an email.", {"to": "string", "subject": "string"},
         ("Send an email to {to} about {subject}.", "[Write|Send] {to} an email with the subject {subject}.", "Email {to} about {subject}."),
         _email, _done("I have sent the email to {to}.")),
    Tool("set_timer", "Set a timer.", {"minutes": "integer"},
         ("Set a timer for {minutes} minutes.", "[Start|Please set] a {minutes} minute timer.", "Wake me in {minutes} minutes.", "Timer {minutes} minutes"),
         lambda r: {"minutes": r.randint(2, 90)}, _done("The timer is set for {minutes} minutes.")),
    Tool("get_time", "Get the local time in a city.", {"city": "string"},
         ("What time is it in {city}?", "[Tell me|Get] the time in {city}.", "How late is it in {city}?"),
         lambda r: {"city": city(r)}, _time),
    Tool("translate", "Translate a word.", {"text": "string", "language": "string"},
         ("Translate {text} into {language}.", "[Please translate|Translate] {text} to {language}.", "How do you say {text} in {language}?"),
         lambda r: {"text": word(r), "language": r.choice(("French", "German", "Spanish", "Japanese", "Korean", "Polish"))},
         lambda r, a: ((t := {"translation": made_up(r, 2)}), f"{a['text']} in {a['language']} is {t['translation']}.")),
    Tool("create_event", "Create a calendar event.", {"title": "string", "day": "string"},
         ("[Create|Add] an event called {title} on {day}.", "Put {title} in my calendar for {day}.", "Plan {title} on {day}."),
         lambda r: {"title": r.choice((r.choice(HOBBIES), f"lunch with {name(r)}", f"{word(r)} meeting")), "day": r.choice(DAYS)},
         _done("I have added {title} on {day}.")),
    Tool("get_price", "Get the price of an item.", {"item": "string"},
         ("What does {item} cost?", "[What is|Get|Tell me] the price of {item}[?|]", "How much is {item}?"),
         lambda r: {"item": r.choice((r.choice(OBJECTS), thing(r), r.choice(FOODS)))}, _stock),
    Tool("play_music", "Play a song.", {"title": "string"},
         ("Play {title}.", "[Please play|Put on] the song {title}.", "I want to hear {title}."),
         lambda r: {"title": f"{word(r)} {word(r)}".title()}, _song),
    Tool("turn_on_light", "Turn on the light in a room.", {"room": "string"},
         ("Turn on the light in the {room}.", "Light on in the {room}[, please|].", "Switch on the {room} light."),
         lambda r: {"room": r.choice(("kitchen", "bedroom", "bathroom", "hall", "garage", "office", "garden", "cellar"))},
         _done("The light in the {room} is on.")),
    Tool("add_note", "Save a note.", {"text": "string"},
         ("[Note|Write down|Save a note]: {text}", "Remember this: {text}", "Take a note: {text}"),
         lambda r: {"text": f"{r.choice(('buy', 'find', 'call', 'bring', 'wash'))} {r.choice((thing(r), name(r), word(r)))}"},
         _done("I have saved the note.")),
    Tool("book_table", "Book a table in a restaurant.", {"name": "string", "people": "integer"},
         ("Book a table for {people} [people |]under the name {name}.", "Reserve a table for {people} [people |]for {name}."),
         lambda r: {"name": name(r), "people": r.randint(2, 12)}, _done("A table for {people} is booked for {name}.")),
)  # fmt: skip

_VERBS = "get set open start check find count update make move stop load read paint".split()


def invented_tool(rng: random.Random) -> Tool:
    """Make up a tool, so that names and parameters must be read from the prompt."""
    verb, noun = rng.choice(_VERBS), rng.choice((rng.choice(OBJECTS), made_up(rng, 2)))
    keys = rng.sample(
        ("name", "level", "place", "size", "count", "label", "color", "owner", "speed"),
        rng.randint(1, 2),
    )
    numeric = {"level", "size", "count", "speed"}
    params = {key: "integer" if key in numeric else "string" for key in keys}
    said = " and ".join(f"{key} {{{key}}}" for key in keys)
    spoken = f"{verb} the {noun}"

    def draw(r: random.Random) -> Args:
        return {k: r.randint(1, 99) if k in numeric else r.choice((word(r), name(r))) for k in keys}

    return Tool(f"{verb}_{noun}", f"{spoken.capitalize()}.", params,
                (f"{spoken.capitalize()} with {said}.", f"[Please |Can you |Now ]{spoken} with {said}.", f"Call {verb}_{noun} with {said}."),
                draw, _done(f"Done: {spoken}."))  # fmt: skip
