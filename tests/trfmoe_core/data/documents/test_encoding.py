import random

import pytest

from trfmoe_core.data.documents.encoding import NotTextError, decode, find_encoding

PARAGRAPHS = {
    "de": "Die Grüße aus Köln kommen früh. Der Patient klagte über Schmerzen im Knie, Müdigkeit und Übelkeit. ",
    "fr": "L'élève a reçu sa première leçon à l'école. Les médecins ont noté une amélioration générale après l'arrêt. ",
    "ru": "Пациент жалуется на сильные боли в правом колене, которые продолжаются уже три недели. Состояние хорошее. ",
    "pl": "Pacjent skarży się na silne bóle w prawym kolanie, które trwają od trzech tygodni. Później wyszło słońce. ",
    "tr": "Hasta sağ dizinde üç haftadır süren şiddetli ağrıdan şikâyet ediyor. Boyu yüz seksen santimetre, güneşli. ",
    "el": "Ο ασθενής παραπονιέται για έντονο πόνο στο δεξί γόνατο, που διαρκεί τρεις εβδομάδες. ",
    "ja": "患者は右膝の強い痛みを訴えています。痛みは三週間続いています。カルテに記録しました。",
    "zh": "患者主诉右膝剧烈疼痛，已经持续三周。医生建议进一步检查，并且记录在病历中。",
    "ko": "환자는 오른쪽 무릎의 심한 통증을 호소합니다. 통증은 삼 주 동안 계속되었습니다. ",
}


@pytest.mark.parametrize(
    ("language", "codec"),
    [
        ("de", "cp1252"), ("de", "cp850"), ("fr", "latin-1"), ("ru", "koi8_r"), ("ru", "cp1251"),
        ("ru", "cp866"), ("ru", "iso8859_5"), ("pl", "cp1250"), ("pl", "iso8859_2"), ("tr", "cp1254"), ("el", "cp1253"),
        ("ja", "shift_jis"), ("ja", "euc_jp"), ("ja", "iso2022_jp"), ("zh", "gb18030"), ("zh", "big5"),
        ("ko", "euc_kr"),
        ("de", "utf-16"), ("de", "utf-16-le"), ("fr", "utf-16-be"), ("fr", "utf-32"), ("fr", "utf-8-sig"),
    ],
)  # fmt: skip
def test_text_of_other_encodings_is_read_as_it_was_written(language: str, codec: str) -> None:
    data = (PARAGRAPHS[language] * 3).encode(codec, "ignore")
    found, note = find_encoding(data)
    assert data.decode(found) == data.decode(codec)
    assert bool(note) == (not codec.startswith(("utf", "iso2022")))


def test_utf_8_with_a_wrong_place_stays_utf_8() -> None:
    data = (PARAGRAPHS["de"] * 3).encode()
    assert find_encoding(data[:700] + b"\xff" + data[700:]) == ("utf-8", "")
    assert find_encoding(data[:5], whole=False) == ("utf-8", "")
    assert find_encoding(b"plain text with one odd \xe9 in a line, " + b"plain text again. " * 30) == (
        "utf-8",
        "",
    )


def test_single_texts_are_decoded_too() -> None:
    assert decode(PARAGRAPHS["ru"].encode("cp1251")) == PARAGRAPHS["ru"]
    assert decode("\ufeffplain".encode()) == "plain"


def test_what_is_no_text_or_uncertain_is_refused() -> None:
    chance = random.Random(0)
    high = bytes(chance.choice(b"abcdefgh " + bytes(range(160, 256))) for _ in range(3000))
    for data, reason in (
        (b"\x89PNG\r\n\x1a\n" + chance.randbytes(3000), "binary content: a PNG image"),
        (chance.randbytes(3000), "binary content"),
        (bytes(4096), "binary content"),
        (high, r"no other encoding is certain \(best: "),
        ("Grüße".encode("latin-1"), "2 bytes beyond ASCII are too few"),
    ):
        with pytest.raises(NotTextError, match=reason):
            find_encoding(data)
