"""Word lists and made-up names that fill the slots of the templates."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501, SIM905

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

NAMES = """Anna Ben Clara David Elena Felix Greta Hugo Iris Jonas Klara Liam Mara Noah Olga Paul
Quinn Rosa Sam Tina Uma Victor Wanda Xavier Yara Zoe Alice Bob Carol Dan Emma Frank Grace Henry
Isla Jack Kate Leo Mia Nina Oscar Petra Ravi Sofia Tom Ursula Vera Will Yusuf Zara Amir Bella
Carlos Diana Ethan Fatima George Hana Ivan Julia Kenji Lena Marco Nora Omar Priya Rita Stefan
Tariq Lucy Max Ella Finn Ruby Theo Maya Kai Lily Adam Eve Peter Mary John Sarah James Laura
Alex Chris Robin Jamie José Zoë René Chloé Søren Łukasz Beyoncé André Björn Jürgen Anaïs Núria
Óscar Inés Françoise Mei Wei Yuki Haruto Aiko Minho Sora Aarav Ananya Kwame Amara Zuri""".split()

BOYS = (
    "Ben Felix Hugo Jonas Liam Noah Paul Sam Victor Henry Jack Leo Oscar Tom Omar Theo Max".split()
)
GIRLS = (
    "Anna Clara Elena Greta Iris Mara Nina Rosa Tina Alice Emma Grace Isla Lily Maya Zoe".split()
)

CITIES = [
    *"""Paris London Berlin Madrid Rome Vienna Lisbon Dublin Oslo Stockholm Helsinki Prague
    Warsaw Athens Cairo Nairobi Lagos Accra Tokyo Osaka Kyoto Seoul Beijing Shanghai Delhi Mumbai
    Sydney Perth Toronto Montreal Boston Chicago Denver Seattle Austin Miami Lima Quito Santiago
    Porto Hamburg Munich Zurich Geneva Milan Turin Naples Lyon Nice Bergen Malmö Zürich Köln
    München Málaga Bogotá""".split(),
    *("São Paulo", "New York", "Los Angeles", "San Francisco", "Buenos Aires", "Cape Town"),
    *("Mexico City", "Hong Kong"),
]

COLOURS = """red blue green yellow orange purple pink brown black white grey silver golden turquoise
violet crimson teal indigo beige maroon""".split()
ANIMALS = """fox owl rabbit bear mouse cat dog duck otter badger hedgehog squirrel frog turtle
sparrow wolf deer goat lamb pony donkey beaver raven crow robin mole hare lynx seal penguin
elephant lion tiger monkey parrot whale dolphin crab snail dragon""".split()
OBJECTS = """lantern key map kite book bell ring compass hat scarf drum flute basket button coin
ladder mirror pencil pebble shell spoon teapot umbrella violin whistle clock boat candle feather
rope box letter cup ball stone hammer brush blanket jar seed telescope bottle coat bag""".split()
PLACES = """forest meadow river village mountain valley harbour market garden island castle cave
library mill bridge lake beach orchard tower farm barn field hill station school""".split()
FOODS = """apple pear plum cherry bread cheese honey soup cake carrot tomato potato onion rice pasta
pizza salad egg milk tea coffee juice mango banana lemon peach grape melon berry nut cookie
pancake noodle bean corn pepper olive fig""".split()
JOBS = """baker teacher pilot doctor farmer sailor painter writer gardener nurse engineer miller
carpenter musician librarian tailor cook driver builder fisher""".split()
HOBBIES = """painting swimming reading cooking chess running singing dancing gardening cycling
hiking drawing knitting skating climbing fishing sailing baking""".split()
ADJECTIVES = """small old brave shy kind quiet clever curious lonely cheerful tired gentle young
proud patient sleepy careful wise happy little tiny big tall bright warm cold soft strange
friendly hungry busy lucky""".split()
WEATHER = "sunny rainy cloudy windy snowy foggy stormy clear".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen twenty""".split()
PLAIN = """table chair window door house tree flower bird fish star moon sun rain snow wind fire
water paper glass metal wood music song dance game train car bus bike plane ship road street city
town park shop bank phone radio screen light shadow hand foot head heart smile voice word line
page story friend family child mother father sister brother morning evening night winter summer
spring autumn stream token cache model server gateway python list code data river cloud""".split()
ACCENTED = """café naïve résumé jalapeño crème brûlée fiancée garçon piñata déjà über straße Ångström
smörgåsbord façade Málaga coração niño año señor élève forêt œuvre żółw háček łódź""".split()
CJK = """你好 谢谢 世界 猫 狗 水 山 书 朋友 早上好 再见 東京 京都 桜 寿司 こんにちは ありがとう さくら
ねこ いぬ 안녕하세요 감사합니다 고양이 바다 사랑 学校 月 日本 中国 한국""".split()
EMOJI = "😀 😂 🥳 😎 🤖 🐱 🐶 🦊 🦉 🐢 🌊 🌲 🌸 🌞 🌙 ⭐ 🔥 🚀 🎉 🎈 🍎 🍕 🍰 ☕ ❤️ 👍 👋 🙏 ✅ 📚".split()

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr ph pl sh sl st th tr".split()
_VOWELS = "a e i o u a e i o ai ea ee ia io oo ou".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "th", "x", "nd", "rt", "t"]


def made_up(rng: random.Random, syllables: int = 2) -> str:
    """Invent a word, so that copying it cannot be learnt by heart."""
    body = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return body + rng.choice(_CODAS)


def name(rng: random.Random) -> str:
    """Return a person's name: half of them from the list, half invented."""
    if rng.random() < 0.6:
        return rng.choice(NAMES)
    return made_up(rng, rng.choice((1, 2, 2, 3))).capitalize()


def city(rng: random.Random) -> str:
    """Return a city, now and then an invented one."""
    if rng.random() < 0.7:
        return rng.choice(CITIES)
    return made_up(rng, rng.choice((2, 3))).capitalize()


def word(rng: random.Random) -> str:
    """Return a common lower-case word, now and then an invented one."""
    roll = rng.random()
    if roll < 0.7:
        return rng.choice(rng.choice((PLAIN, OBJECTS, ANIMALS, FOODS, COLOURS)))
    return made_up(rng, rng.choice((1, 2)))


def thing(rng: random.Random) -> str:
    """Return a colour and an object, such as `red kite`."""
    return f"{rng.choice(COLOURS)} {rng.choice(OBJECTS)}"
