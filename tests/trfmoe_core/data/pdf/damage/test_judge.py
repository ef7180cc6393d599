"""Every kind of damage, made from sound text, and sound text of many kinds."""

import random
import re

import pytest

from trfmoe_core.data.pdf.damage.judge import judge

PROSE = """The keeper of the northern lighthouse wrote down the height of every tide and the colour of each evening sky.
Nobody had asked him for these numbers, and when the harbour office finally sent a clerk to collect the books, the
importance of forty years of careful observation was clear to everybody in the room. Two of the professors compared his
tables with their own instruments and found no error larger than the width of a finger. They printed the whole series
in the journal of their society, and the keeper received a copy with his name on the first page, which he gave to his
daughter because he could not read the language in which it was written. She kept it in the kitchen for many years.
"""
JAPANESE = (
    "わたくしといふ現象は仮定された有機交流電燈のひとつの青い照明です。風景やみんなといっしょにせはしく明滅しながら" * 3
)
SOUND = {
    "English": PROSE,
    "German": "Der Wärter des nördlichen Leuchtturms schrieb vierzig Jahre lang die Höhe jeder Flut und die Farbe "
    "jedes Abendhimmels auf, um die ihn niemand gebeten hatte. Die Donaudampfschifffahrtsgesellschaft fragte. " * 4,
    "French": "Le gardien du phare du nord a noté pendant quarante ans la hauteur de chaque marée et la couleur de "
    "chaque ciel du soir, bien que personne ne lui ait demandé ces chiffres. " * 4,
    "Polish": "Latarnik z północnej latarni przez czterdzieści lat zapisywał wysokość każdego przypływu i barwę "
    "każdego wieczornego nieba, choć nikt go o te liczby nie prosił. " * 4,
    "Czech": "Strážce severního majáku zapisoval čtyřicet let výšku každého přílivu a barvu každé večerní oblohy, "
    "ačkoli ho o ta čísla nikdo nežádal. " * 4,
    "Vietnamese": "Người canh ngọn hải đăng phía bắc đã ghi lại độ cao của mỗi con nước và màu sắc của mỗi bầu trời "
    "chiều trong bốn mươi năm. " * 4,
    "Finnish": "Pohjoisen majakan vartija kirjasi neljänkymmenen vuoden ajan jokaisen vuoroveden korkeuden ja jokaisen "
    "iltataivaan värin, vaikka kukaan ei ollut pyytänyt. " * 4,
    "Russian": "Смотритель северного маяка сорок лет записывал высоту каждого прилива и цвет каждого вечернего неба. "
    * 4,
    "Greek": "Ο φύλακας του βόρειου φάρου έγραφε για σαράντα χρόνια το ύψος κάθε παλίρροιας και το χρώμα του ουρανού. "
    * 4,
    "Arabic": "كتب حارس المنارة الشمالية ارتفاع كل مد ولون كل سماء في المساء لمدة أربعين عاما ولم يطلب أحد ذلك منه "
    * 4,
    "Hebrew": "שומר המגדלור הצפוני רשם במשך ארבעים שנה את גובהה של כל גאות ואת צבעם של שמי הערב " * 4,
    "Hindi": "उत्तरी प्रकाशस्तंभ के रखवाले ने चालीस वर्षों तक हर ज्वार की ऊँचाई और हर शाम के आकाश का रंग लिखा। " * 4,
    "Thai": "ผู้ดูแลประภาคารทางเหนือจดบันทึกความสูงของน้ำขึ้นน้ำลงและสีของท้องฟ้ายามเย็นเป็นเวลาสี่สิบปี " * 4,
    "Chinese": "北方灯塔的看守人四十年来记录每次潮汐的高度和每个傍晚天空的颜色，虽然没有人向他要这些数字。" * 4,
    "Japanese": JAPANESE,
    "Korean": "북쪽 등대의 등대지기는 사십 년 동안 모든 밀물의 높이와 저녁 하늘의 색을 적었다. " * 4,
    "mixed Chinese": "我们使用 Transformer 模型进行 language modeling，损失函数为 cross-entropy，学习率为 3e-4。" * 4,
    "maths": "Let f : R → R be C² with f′(x) ≥ 0. Then ∫₀¹ αβ(x) dx = Σᵢ λᵢ θᵢ, so that Δt ≈ π/2 and sin θ ≤ x + ε. "
    * 5,
    "code": "def read_pages(file):\n    for line in file:\n        yield parse(line, key=lambda pair: pair[0])\n" * 8,
    "numbers": "\n".join(f"{n} {n * n} {n * 37 % 101}.{n % 10} {n * 7919 % 1000:,}" for n in range(80)),
    "contents": "\n".join(f"{n}.{n % 5} About the {n}th matter . . . . . . . . . . . . {n * 3}" for n in range(40)),
    "word list": "\n".join(sorted(set(re.findall(r"[a-z]{4,}", PROSE)))),
    "names": "\n".join(f"Smith{n} Jones, {n * 13 % 90} High Street, N{n % 9} {n % 7}QX" for n in range(40)),
    "bases": "ACGT TTGA CCAT GGTA " * 60,
    "identifiers": "\n".join(f"\\{name}ofTheFirstLineOfThePage {n}" for n, name in enumerate(PROSE.split())),
    "paths": "/usr/lib/python3/dist-packages and /lib64/ld-linux.so.2 or https://example.org/a/b/c are paths. " * 6,
    "alphabet": " ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ") + "\n" + " ".join("abcdefghijklmnopqrstuvwxyz"),
    "dictionary": "дом house, кошка cat, собака dog, окно window, книга book, стол table, вода water, небо sky. " * 5,
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_text_is_readable(name: str) -> None:
    verdict = judge(SOUND[name])
    assert verdict.plausibility > 0.3, verdict


def shifted(text: str, by: int) -> str:
    return "".join(letter if letter == "\n" else chr(ord(letter) + by) for letter in text)


def exchanged(text: str, seed: int) -> str:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    random.Random(seed).shuffle(letters)
    table = dict(zip("abcdefghijklmnopqrstuvwxyz", letters, strict=True))
    return "".join(table.get(letter.lower(), letter) for letter in text)


def torn(text: str) -> str:
    chance = random.Random(5)
    return re.sub(r"[a-z]{4,}", lambda m: f"{m[0][: (k := chance.randrange(1, len(m[0])))]} {m[0][k:]}", text)


def every_line_spoilt(text: str, share: float, mark: str) -> str:
    """Replaces this share of the characters of every word."""
    step = 1 / share
    return "".join(mark if letter.isalpha() and n % step < 1 else letter for n, letter in enumerate(text))


KANA = sorted(set(JAPANESE))
DAMAGED = {
    "codes instead of characters": ("no character map", shifted(PROSE, -29)),
    "codes with printable blanks": ("no character map", shifted(PROSE.replace(" ", "\x05"), -1)),
    "private use": ("no character map", shifted(PROSE, 0xE000)),
    "replacement characters": ("no character map", every_line_spoilt(PROSE, 0.25, "\ufffd")),
    "a fifth are control characters": ("no character map", every_line_spoilt(PROSE, 0.25, "\x07")),
    "unassigned": ("no character map", every_line_spoilt(PROSE, 0.25, "\u0378")),
    "numbered glyphs": ("glyph names", re.sub(r"\w", lambda m: f"/g{ord(m[0])}", PROSE)),
    "Type 3 glyphs": ("glyph names", re.sub(r"\w", lambda m: f"/G{ord(m[0]):02d}", PROSE)),
    "old-style glyphs": (
        "glyph names",
        "CSCI /one.os/nine.os/nine.os/eight.os /two.oldstyle/zero.oldstyle/five.oldstyle",
    ),
    "letters with slashes": ("glyph names", " ".join("/" + "/".join(word) for word in PROSE.split())),
    "CIDs": ("glyph names", re.sub(r"\w", lambda m: f"(cid:{ord(m[0])})", PROSE)),
    "shifted alphabet": (
        "ciphertext",
        "".join(shifted(c, 3) if c.isalpha() else c for c in PROSE.lower().replace("x", "a")),
    ),
    "exchanged letters": ("ciphertext", exchanged(PROSE, 4)),
    "Cyrillic as Latin-1": ("ciphertext", SOUND["Russian"].encode("cp1251").decode("latin-1")),
    "dingbats": (
        "symbols for letters",
        PROSE.translate(dict(zip(map(ord, "aeinor"), map(ord, "❛❡✐♥♦r"), strict=True))),
    ),
    "Japanese as Greek and others": (
        "mixed scripts",
        "".join(chr(0x3A3 + 37 * KANA.index(c) % 1700) for c in JAPANESE),
    ),
    "Japanese as Yi": ("mixed scripts", "".join(chr(0xA000 + ord(c) % 1165) if c != "。" else "、" for c in JAPANESE)),
    "letters apart": ("letters apart", " ".join(PROSE)),
    "words torn": ("words torn", torn(PROSE)),
    "words glued": ("words glued", PROSE.replace(" ", "")),
    "blanks read as a letter": ("words glued", PROSE.replace(" ", "a")),
    "one word a line": ("one word a line", "\n".join(PROSE.split())),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name: str) -> None:
    reason, text = DAMAGED[name]
    verdict = judge(text)
    assert (verdict.readable, verdict.reason) == (False, reason), verdict


def test_most_substitutions_of_letters_are_seen() -> None:
    assert sum(not judge(exchanged(PROSE, seed)).readable for seed in range(40)) > 34


def test_a_little_damage_is_doubtful_and_nul_is_none() -> None:
    some = judge(every_line_spoilt(PROSE, 0.125, "\ufffd"))
    assert (some.readable, some.reason) == (True, "no character map")
    assert some.plausibility < judge(every_line_spoilt(PROSE, 0.05, "\ufffd")).plausibility < 1
    assert judge("\0".join(PROSE)) == judge(PROSE)
    assert judge("").readable


def test_long_runs_cost_linear_time() -> None:
    # Quadratic patterns take hours here, not seconds: the suite's own time limit ends them.
    for run in ("a", "a ", "/a", "/g1", "(cid:1)", "Ωж", "a①", "\u0300", "\x03", "aB"):
        judge(run * 100_000 + "x")
