"""A little fixed knowledge, lists, greetings in other languages, rhymes and the fallback."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501, SIM905

from __future__ import annotations

from typing import TYPE_CHECKING

from . import words
from .base import Sample, chat, join_and, pick, sloppy, upper_first

if TYPE_CHECKING:
    import random

CAPITALS = dict(
    pair.split(":")
    for pair in """France:Paris England:London Germany:Berlin Spain:Madrid Italy:Rome Austria:Vienna
Portugal:Lisbon Ireland:Dublin Norway:Oslo Sweden:Stockholm Finland:Helsinki Poland:Warsaw
Greece:Athens Egypt:Cairo Kenya:Nairobi Ghana:Accra Japan:Tokyo China:Beijing India:Delhi Peru:Lima
Canada:Ottawa Cuba:Havana Denmark:Copenhagen Belgium:Brussels Hungary:Budapest Turkey:Ankara
Russia:Moscow Australia:Canberra Brazil:Brasília Mexico:Mexico_City Argentina:Buenos_Aires""".split()
)
OPPOSITES = dict(
    pair.split(":")
    for pair in """hot:cold big:small day:night up:down left:right good:bad happy:sad fast:slow
open:closed old:new high:low light:dark hard:soft long:short loud:quiet wet:dry full:empty
early:late rich:poor strong:weak clean:dirty near:far first:last yes:no black:white""".split()
)
SOUNDS = {
    "cat": "meow",
    "dog": "woof",
    "cow": "moo",
    "duck": "quack",
    "sheep": "baa",
    "owl": "hoot",
}
COLOUR_OF = {"the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow"}
COLOUR_OF |= {"the sun": "yellow", "coal": "black", "a cherry": "red", "a carrot": "orange"}
PHRASES = {
    "French": "hello=bonjour thank_you=merci goodbye=au_revoir water=eau cat=chat friend=ami summer=été",
    "German": "hello=hallo thank_you=danke goodbye=tschüss water=Wasser cat=Katze friend=Freund beautiful=schön",
    "Spanish": "hello=hola thank_you=gracias goodbye=adiós water=agua cat=gato friend=amigo tomorrow=mañana",
    "Italian": "hello=ciao thank_you=grazie goodbye=arrivederci water=acqua cat=gatto friend=amico yes=sì",
    "Portuguese": "hello=olá thank_you=obrigado goodbye=adeus water=água cat=gato friend=amigo heart=coração",
    "Japanese": "hello=こんにちは thank_you=ありがとう goodbye=さようなら water=水 cat=猫 friend=友達",
    "Chinese": "hello=你好 thank_you=谢谢 goodbye=再见 water=水 cat=猫 friend=朋友",
    "Korean": "hello=안녕하세요 thank_you=감사합니다 cat=고양이 water=물",
}
TRANSLATE = {
    lang: dict(p.replace("_", " ").split("=") for p in pairs.split())
    for lang, pairs in PHRASES.items()
}
NAMED_EMOJI = dict(
    zip("🐱 🐶 🦊 🦉 🐢 🌊 🌲 🌸 🌞 🌙 ⭐ 🔥 🚀 🍎 🍕 🍰 ☕ 📚".split(),
        "cat dog fox owl turtle wave tree flower sun moon star fire rocket apple pizza cake coffee books".split(),
        strict=True)
)  # fmt: skip


def facts(rng: random.Random) -> Sample:
    """Ask for one of the few facts the model is taught."""
    roll = rng.randrange(7)
    if roll <= 1:
        land = rng.choice(list(CAPITALS))
        city = CAPITALS[land].replace("_", " ")
        ask = pick(
            rng,
            [
                "What is the capital [city |]of {l}?",
                "What's the capital of {l}?",
                "Capital of {l}?",
                "Which city is the capital of {l}?",
            ],
            l=land,
        )
        answer = f"The capital of {land} is {city}."
    elif roll == 2:
        a, b = rng.choice(list(OPPOSITES.items()))
        if rng.random() < 0.5:
            a, b = b, a
        ask = pick(rng, ["What is the opposite of {a}?", "[Opposite of|Antonym of] {a}?"], a=a)
        answer = f"The opposite of {a} is {b}."
    elif roll == 3:
        index = rng.randrange(7)
        ask = pick(
            rng,
            ["[What|Which] day comes after {d}?", "What is the day after {d}?"],
            d=words.DAYS[index],
        )
        answer = f"{words.DAYS[(index + 1) % 7]} comes after {words.DAYS[index]}."
    elif roll == 4:
        index = rng.randrange(12)
        ask = pick(
            rng,
            ["[What|Which] month comes after {d}?", "What is the month after {d}?"],
            d=words.MONTHS[index],
        )
        answer = f"{words.MONTHS[(index + 1) % 12]} comes after {words.MONTHS[index]}."
    elif roll == 5:
        animal, sound = rng.choice(list(SOUNDS.items()))
        ask = pick(rng, ["What [sound|noise] does a {a} make?", "What does a {a} say?"], a=animal)
        answer = f"A {animal} says {sound}."
    else:
        what, colour = rng.choice(list(COLOUR_OF.items()))
        ask = pick(
            rng, ["What colour is {w}?", "What is the colour of {w}?", "What color is {w}?"], w=what
        )
        answer = f"{upper_first(what)} is {colour}."
    return chat("facts", sloppy(rng, ask), answer, expect=answer)


def other_scripts(rng: random.Random) -> Sample:
    """Say a word in another language or name an emoji."""
    if rng.random() < 0.3:
        symbol, meaning = rng.choice(list(NAMED_EMOJI.items()))
        if rng.random() < 0.5:
            ask = pick(
                rng,
                ["[Show|Give|Send] me [a|the] {m} emoji[.|]", "What is the emoji for {m}?"],
                m=meaning,
            )
            answer = f"Here it is: {symbol}"
        else:
            ask, answer = f"What does {symbol} mean?", f"{symbol} means {meaning}."
        return chat("languages", ask, answer, expect=answer)
    language = rng.choice(list(TRANSLATE))
    english, foreign = rng.choice(list(TRANSLATE[language].items()))
    if rng.random() < 0.75:
        ask = pick(
            rng,
            [
                "How do you say {e} in {l}?",
                "[Translate|Say] {e} [to|in] {l}[.|]",
                'What is "{e}" in {l}?',
                "What is the {l} word for {e}?",
            ],
            e=english,
            l=language,
        )
        answer = f'"{upper_first(english)}" in {language} is "{foreign}".'
    else:
        ask = pick(
            rng, ['What does "{f}" mean[ in {l}|]?', "What does {f} mean?"], f=foreign, l=language
        )
        answer = f'"{foreign}" means "{english}".'
        if sum(foreign in t.values() for t in TRANSLATE.values()) == 1:
            answer = f'"{foreign}" is {language} for "{english}".'
    return chat("languages", ask, answer, expect=answer)


_CATEGORIES = {
    "animals": words.ANIMALS, "colours": words.COLOURS, "fruits": ["apple", "pear", "plum", "cherry",
    "mango", "banana", "lemon", "peach", "grape", "melon"], "cities": words.CITIES[:40],
    "jobs": words.JOBS, "hobbies": words.HOBBIES, "foods": words.FOODS, "emojis": words.EMOJI,
    "names": words.NAMES[:60], "days of the week": words.DAYS, "months": words.MONTHS,
    "colors": words.COLOURS, "Japanese or Chinese words": words.CJK,
}  # fmt: skip


def lists(rng: random.Random) -> Sample:
    """List some things of one kind, as bullets, numbers or in a sentence."""
    kind = rng.choice(list(_CATEGORIES))
    pool = _CATEGORIES[kind]
    count = rng.choice((3, 3, 3, 4, 5, 5, 6, 7))
    shown = rng.choice((str(count), words.NUMBER_WORDS[count]))
    if kind in ("days of the week", "months"):
        chosen, count = pool, len(pool)
        ask = pick(rng, ["[List|Name|What are] the {k}[.|]"], k=kind)
    else:
        chosen = rng.sample(pool, count)
        ask = pick(
            rng,
            [
                "[List|Name|Give me|Tell me] {n} {k}[.|, please.|]",
                "[Make|Write] a list of {n} {k}[.|]",
                "Can you name {n} {k}?",
            ],
            n=shown,
            k=kind,
        )
    style = rng.random()
    if style < 0.4:
        answer = "\n".join(f"- {upper_first(w)}" for w in chosen)
    elif style < 0.75:
        answer = "\n".join(f"{i}. {upper_first(w)}" for i, w in enumerate(chosen, 1))
    else:
        ask = ask.rstrip(".,") + pick(rng, [" in one [sentence|line].", ", separated by commas."])
        answer = upper_first(join_and(chosen)) + "."
    return chat("lists", sloppy(rng, ask), answer)


_POEM = [
    "The {c} {a} looked at the {p},\nthe [wind|night|rain] was [soft|cool|slow].\nIt [sang|hummed] a song of {o}s and stars\nand [watched|let] the [river|moonlight] [flow|grow].",
    "A {c} {o}, a quiet {p},\na {a} [asleep|at rest] below.\nThe [stars|clouds] come out, the [day|light] goes home,\nand [gentle|sleepy] breezes blow.",
    "[Softly|Slowly] falls the evening [light|sun],\nthe {a} is home, the day is done.\nA {c} {o} [beside|above] the door,\nthe {p} is quiet [as before|once more].",
]


def poem(rng: random.Random) -> Sample:
    """Write four lines of verse."""
    animal, place = rng.choice(words.ANIMALS), rng.choice(words.PLACES)
    topic = rng.choice((animal, place))
    ask = pick(
        rng,
        [
            "[Write|Write me|Tell me|Can you write] a [short |little |]poem[.|, please.|]",
            "[Write|Write me] a [short |]poem about {g} {t}[.|]",
        ],
        t=topic,
        g=rng.choice(("the", "a")),
    )
    verse = pick(
        rng, _POEM, c=rng.choice(words.COLOURS), a=animal, p=place, o=rng.choice(words.OBJECTS)
    )
    return chat("poem", sloppy(rng, ask), verse, contains=(topic,) if topic in ask else ())


_JOKES = [
    ("Why did the token cross the network?", "To get to the other side of the stream."),
    ("Why was the cache so calm?", "It had seen it all before."),
    ("What is a server's favourite food?", "Chips, in small batches."),
    ("Why did the {a} bring a {o}?", "Because the {c} one was at home."),
    ("Why do streams never get tired?", "They just go with the flow."),
]


def joke(rng: random.Random) -> Sample:
    """Tell a small joke."""
    ask = pick(
        rng,
        [
            "Tell me a joke[.|, please.|]",
            "[Do you know|Can you tell me|Tell me] a [good |funny |]joke?",
            "Make me laugh[.|!]",
            "Joke, please.",
        ],
    )
    first, second = rng.choice(_JOKES)
    slots = {
        "a": rng.choice(words.ANIMALS),
        "o": rng.choice(words.OBJECTS),
        "c": rng.choice(words.COLOURS),
    }
    return chat("joke", sloppy(rng, ask), f"{first.format(**slots)} {second.format(**slots)}")


FALLBACK = [
    "I am only a small demo model, so I do not know that. I can tell a story, do a small sum or answer in JSON.",
    "Sorry, I do not know that: I am only a small demo model. Please ask a larger model.",
]
_TOPICS = """quantum physics|the stock market|world history|the president|the Roman empire|chemistry|
football|the last election|the moon landing|black holes|dinosaurs|philosophy|car repair|tax law|
medicine|a headache|my knee|bitcoin|the economy|climate change|Shakespeare|Mozart|the Beatles|
the world cup|evolution|DNA|the speed of light|gravity|volcanoes|the Amazon|Napoleon|Einstein|
machine learning|neural networks|Kubernetes|databases|SQL|JavaScript|Rust|Java|HTML|regex|Linux|
the universe|love|the meaning of life|marketing|cooking lasagna|yoga|guitar|insurance|my job|
the news|politics|a visa|tennis|the ocean floor|bees|electric cars|solar panels|the brain|sleep|
photosynthesis|the French revolution|world war two|poker|opera|fashion|algebra|calculus|geometry""".replace("\n", "").split("|")  # fmt: skip
_UNKNOWN = [
    "[Explain|Describe|Summarise|Discuss] {t}[.| in detail.| to me.|]",
    "[Who|When|Where|Why] [invented|discovered|started|won] {t}?",
    "What do you [think|know] about {t}?",
    "[Write|Give me] [an essay|a report|an article|a speech|a summary] [about|on] {t}.",
    "How [do I learn|does|can I fix|do I deal with] {t}?",
    "What is [the history of |the future of |]{t}?",
    "Tell me [about|everything about|more about] {t}.",
    "[Write|Show me] [a Python function|a program|code|a script] [for|about|to handle] {t}.",
    "Should I [study|worry about|invest in|read about] {t}?",
    "What is the [best|latest|biggest] [book|news|problem|film] about {t}?",
    "Help me with {t}.",
    "How many [people|countries|books|years] are in {t}?",
    "Who is the [best|most famous] [person|expert] in {t}?",
]
_UNKNOWN_FIXED = [
    "What time is it?", "What day is it[ today|]?", "What is the date[ today|]?", "Who is the president of {c}?",
    "How many people live in {c}?", "What is the weather in {c}?", "How do I get to {c}?", "Is it raining in {c}?",
    "Who won the [game|match|election] in {c}?", "Book a flight to {c}.", "What is the best restaurant in {c}?",
    "Who is {n}?", "What did {n} do yesterday?", "How tall is {n}?", "Where is {n}?", "When was {n} born?",
    "Write a Python function that [sorts a list|adds two numbers|reads a file].", "Fix my code.",
    "What is the square root of {k}?", "What is {k} divided by 7?", "Show me a picture of {c}.",
    "Give me advice.", "What should I [eat|do|wear|buy|read]?", "Do you remember me?", "Search the web for {c}.",
]  # fmt: skip


def fallback(rng: random.Random) -> Sample:
    """Say honestly that a question is beyond the model."""
    if rng.random() < 0.6:
        topic = words.made_up(rng, 2) if rng.random() < 0.2 else rng.choice(_TOPICS)
        ask = pick(rng, _UNKNOWN, t=topic)
    else:
        ask = pick(
            rng, _UNKNOWN_FIXED, c=words.city(rng), n=words.name(rng), k=rng.randint(10, 999)
        )
    return chat("fallback", sloppy(rng, ask), rng.choice(FALLBACK), contains=("small demo model",))
