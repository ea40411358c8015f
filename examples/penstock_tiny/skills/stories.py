"""Short entity-tracking stories, asked for in chat or started as raw text."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Sample, article, chat, pick, sloppy, spin, upper_first
from .words import (
    ADJECTIVES,
    ANIMALS,
    BOYS,
    CITIES,
    COLOURS,
    FOODS,
    GIRLS,
    JOBS,
    OBJECTS,
    PLACES,
    WEATHER,
    made_up,
)

if TYPE_CHECKING:
    import random

_OPEN = [
    "Once upon a time there was {a_adj} {kind} [named|called] {hero}. {He} lived [near|beside|not far from] {a_place} [with {his} friend {friend}, {a_kind2}|and had one good friend, {a_kind2} called {friend}].",
    "[Long ago|One day|Many years ago], in {a_adj2} {place}, there lived {a_kind} called {hero}. {His} best friend was {friend}, {a_kind2}.",
    "{hero} was {a_adj} {kind} who lived [by|near] the {place}. Every [morning|evening|day] {he} met {friend} the {kind2}.",
    "In the {adj2} {place} near {city} lived {hero}, {a_adj} {kind}. {He} [shared a house with|lived next door to|often played with] {friend}, {a_kind2}.",
]
_WANT = [
    'One {weather} [morning|afternoon|day], {hero} [found|saw|noticed] {a_colour} {thing} [under a tree|beside the path|on a flat stone]. "[Whose is this|Who has lost this]?" {he} [asked|wondered].',
    "{hero} had {a_colour} {thing} that {he} loved very much. But one {weather} [morning|evening] the {thing} was gone.",
    'One day {friend} said, "[I have lost|I cannot find] my {colour} {thing}. [Will you help me|Can you help me], {hero}?" "[Of course|Yes, of course]!" said {hero}.',
    "{hero} wanted to give {friend} {a_colour} {thing}, because [tomorrow was {friend}'s birthday|{friend} had always been kind to {him}].",
    'One {weather} [night|evening], a [letter|message] came. It said: "[Bring|Take] the {colour} {thing} to the {place2}." {hero} [was surprised|read it twice].',
]
_GO = [
    "So {hero} [walked|went|ran] to the {place2}. [It was a long way|The way was long], and the [wind blew|path was steep|sun was hot], but {he} did not [stop|give up].",
    "Together {hero} and {friend} [set out|went] for the {place2}. They took [some {food}|a bag with {food}] and a [lamp|map|rope].",
    "{hero} put the {food} into {his} bag and [left|set out] for the {place2}. {friend} [came too|waited at home|waved goodbye].",
    "First they looked in the {place}. There was nothing there but {a_colour2} {thing2}. Then they went on to the {place2}.",
]
_MEET = [
    'At the {place2} they met {third}, {a_adj2} {job}. "[Have you seen|Do you know anything about] the {colour} {thing}?" asked {hero}. "[Perhaps|Maybe]," said {third}, "but first help me [carry this {thing2}|find my {colour2} {thing2}|cook the {food}]."',
    '[On the way|At the {place2}] sat {third} the {job}, who looked [sad|tired|worried]. "My {thing2} is [broken|too heavy|stuck]," said {third}. {hero} [helped at once|stopped to help].',
    'There {hero} heard a [small|soft] voice. It was {third}, {a_adj2} {job}. "[Please help me|I need your help]," said {third}. "I dropped my {colour2} {thing2} into the [water|mud|snow]."',
]
_WORK = [
    "{hero} [thought for a moment|had an idea]. {He} [pulled|pushed] as hard as {he} could, and {friend} [held the rope|pushed from behind|counted to three]. [At last|Slowly] the {thing2} [moved|came free].",
    "It was hard work. {hero} was [tired|cold|hungry], so {third} gave {him} some {food}. After that everything was [easier|much better].",
    'They worked until the [sun went down|moon came up|stars came out]. {third} [smiled|laughed] and said, "[You are a true friend|Thank you], {hero}."',
]
_MORE = [
    "Then it began to [rain|snow]. {hero} and {friend} [hid under a big tree|ran into an old barn|waited in a dry cave] and [told each other stories|sang a song|ate the {food}] until the sky was clear again.",
    "Suddenly they came to a [wide|deep] river. There was no bridge. {friend} [found an old boat|saw a row of flat stones], and so they [came safely across|crossed the water].",
    '{friend} [was afraid|wanted to turn back]. "Do not [worry|be afraid]," said {hero}. "[We are together|I am here], and the {place2} is not far."',
    "On the way they passed {city}. The streets were full of people, and a {job} sold {food} and {colour2} {thing2}s. {hero} looked at everything, but {he} did not forget the {colour} {thing}.",
    "At night they slept [under the stars|in a warm barn|beside a small fire]. {hero} dreamed of the {colour} {thing}, and in the dream it [could sing|shone like the moon|was as big as a house].",
    "In the morning {third} showed them a [secret|narrow|hidden] path. It [went up the hill|led through tall grass|was full of flowers], and {friend} walked in front.",
]
_END = [
    'Then {third} opened a [door|box|bag] and took out the {colour} {thing}. "I [found it|kept it safe] for you," said {third}. {hero} [jumped for joy|was very happy].',
    "And there, behind the {thing2}, lay the {colour} {thing}. {hero} picked it up [carefully|with a smile].",
    "When they looked up, the {colour} {thing} [hung|was hanging] in a tree right above them. {friend} [laughed|climbed up] and {hero} caught it.",
]
_CLOSE = [
    "That evening {hero} and {friend} [sat by the fire|ate {food} together|walked home under the stars]. The {thing} was [safe|home again], and {hero} had [a new friend|learned something]: [kindness comes back|it is good to help|small steps lead far|no one is too small to help].",
    "{hero} gave the {thing} to {friend}, and they [went home together|danced all night|shared the {food}]. From that day on, {third} was [their friend too|always welcome in the {place}].",
    "So {hero} [came home|went back to the {place}] with the {colour} {thing}. {friend} [hugged|thanked] {him}, and they were [happy|friends] for [a long time|ever after]. The end.",
]

_ASK_PLAIN = [
    "Tell me a story.",
    "[Tell me|Write|Write me|Can you tell me|I would like|Please tell me|Give me] a [short |little |nice |bedtime |fun |]story[.|, please.|!|]",
    "Story[, please|][!|.|]",
    "Can you [tell|write] a story?",
    "Tell me a [story|short story] [for my child|before I sleep|to cheer me up].",
    "[Another|One more] story, please.",
]
_ASK_LONG = [
    "[Tell me|Write|Write me] a long story[.|, please.|]",
    "[Tell me|Write] a long story about {a_kind}[.|]",
    "[Tell me|Write] a story of about [300|400] words[.|]",
    "Tell me a very long story about {a_kind} [named|called] {hero}.",
]
_ASK_ABOUT = [
    "[Tell me|Write|Write me|Can you tell me|Please tell me|Give me] a [short |little |]story about {a_kind}[.|, please.|]",
    "[Tell me|Write] a [short |]story about {a_kind} [named|called] {hero}[.|]",
    "[Tell me|Write] a [short |]story about {hero} the {kind}[.|]",
    "[Tell me|Write] a [short |]story with {a_kind} and {a_kind2}[.|]",
    "[Tell me|Write] a [short |]story about {a_kind} and {a_colour} {thing}[.|]",
    "A story about {a_kind}, please.",
]


def _cast(rng: random.Random) -> dict[str, str]:
    """Choose the people, places and things of one story, all different."""
    boy = rng.random() < 0.5
    hero, friend, third = _names(rng, boy=boy)
    kind, kind2 = rng.sample(ANIMALS if rng.random() < 0.75 else JOBS, 2)
    place, place2 = rng.sample(PLACES, 2)
    thing, thing2 = rng.sample(OBJECTS, 2)
    colour, colour2 = rng.sample(COLOURS, 2)
    adj, adj2 = rng.sample(ADJECTIVES, 2)
    he, his, him = ("he", "his", "him") if boy else ("she", "her", "her")
    slots = {
        "hero": hero, "friend": friend, "third": third, "kind": kind, "kind2": kind2, "place": place, "place2": place2,
        "thing": thing, "thing2": thing2, "colour": colour, "colour2": colour2, "adj": adj, "adj2": adj2, "he": he,
        "his": his, "him": him, "He": upper_first(he), "His": upper_first(his), "city": rng.choice(CITIES),
        "food": rng.choice(FOODS), "job": rng.choice(JOBS), "weather": rng.choice(WEATHER),
    }  # fmt: skip
    for key in ("kind", "kind2", "place", "adj", "adj2", "colour", "colour2"):
        slots[f"a_{key}"] = article(slots[key])
    return slots


def _names(rng: random.Random, *, boy: bool) -> list[str]:
    """Choose three different names, some of them invented."""
    pool = rng.sample(BOYS if boy else GIRLS, 1) + rng.sample(BOYS + GIRLS, 6)
    pool = list(dict.fromkeys(pool))
    if rng.random() < 0.35:
        pool[0] = made_up(rng, rng.choice((1, 2))).capitalize()
    if rng.random() < 0.35:
        pool[1] = made_up(rng, 2).capitalize()
    return pool[:3]


def tell(rng: random.Random, slots: dict[str, str], *, long: bool) -> str:
    """Write the story of one cast, in paragraphs."""
    first = [pick(rng, _OPEN, **slots), pick(rng, _WANT, **slots)]
    middle = [pick(rng, _GO, **slots)]
    if long:
        extra = rng.sample(_MORE, rng.randint(4, 5))
        middle += [spin(rng, text, **slots) for text in extra[:2]]
        meeting = [pick(rng, _MEET, **slots)]
        meeting += [spin(rng, text, **slots) for text in rng.sample(_WORK, 2)]
        rest = [spin(rng, text, **slots) for text in extra[2:]]
        last = [pick(rng, _END, **slots), pick(rng, _CLOSE, **slots)]
        parts = [first, middle, meeting, rest, last]
    else:
        middle.append(pick(rng, _MEET, **slots))
        if rng.random() < 0.6:
            middle.append(pick(rng, _WORK, **slots))
        parts = [first, middle, [pick(rng, _END, **slots), pick(rng, _CLOSE, **slots)]]
    return "\n\n".join(" ".join(part) for part in parts)


def story(rng: random.Random) -> Sample:
    """Ask for a story: any story, a long one, or one about a given hero."""
    slots = _cast(rng)
    roll = rng.random()
    if roll < 0.3:
        return chat("story", sloppy(rng, pick(rng, _ASK_PLAIN)), tell(rng, slots, long=False))
    long = roll < 0.45
    ask = rng.choice(_ASK_LONG if long else _ASK_ABOUT)
    question = spin(rng, ask, **slots)
    wanted = ("hero", "kind", "kind2", "thing")
    told = tell(rng, slots, long=long)
    asked = tuple(slots[k] for k in wanted if slots[k] in question and slots[k] in told)
    return chat(
        "story", sloppy(rng, question) if "hero" not in ask else question, told, contains=asked
    )


def raw_story(rng: random.Random) -> Sample:
    """Write a story without any chat around it, for plain completions."""
    slots = _cast(rng)
    text = tell(rng, slots, long=rng.random() < 0.15)
    title = f"The {upper_first(slots['kind'])} and the {upper_first(slots['thing'])}\n\n"
    return Sample("raw", text=(title if rng.random() < 0.2 else "") + text)


_WHO = [
    ("What [was|is] the [{kind}'s name|name of the {kind}]?", "The {kind} was called {hero}."),
    ("Who was [{hero}'s best friend|the friend of {hero}]?", "{friend} was {hero}'s friend."),
    ("What colour was the {thing}?", "The {thing} was {colour}."),
    ("Where did {hero} [go|travel]?", "{hero} went to the {place2}."),
]


def story_question(rng: random.Random) -> Sample:
    """Tell a story, then answer a question about it."""
    slots = _cast(rng)
    told = tell(rng, slots, long=False)
    ask, reply = rng.choice(_WHO)
    if slots["place2"] not in told and "place2" in reply:
        ask, reply = _WHO[2]
    answer = spin(rng, reply, **slots)
    messages = [
        {"role": "user", "content": sloppy(rng, pick(rng, _ASK_PLAIN))},
        {"role": "assistant", "content": told},
        {"role": "user", "content": spin(rng, ask, **slots)},
        {"role": "assistant", "content": answer},
    ]
    return Sample("story_question", messages, expect=answer)
