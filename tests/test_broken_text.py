"""Signs of texts that are no utterance: each sign finds what it is for, and normal texts of all scripts and kinds pass."""

# ruff: noqa: RUF001  (letters of other scripts are what is tested)

import time

import pytest

from demur.judges.judge import get_judge
from demur.judges.taxonomy.broken_text import broken
from demur.judges.taxonomy.word_text import Reading

decide = get_judge("taxonomy")

BROKEN = {
    "symbols": [
        "nine>>>> of[[[[ tree]late %%%%%%%% or",
        "}}}} lamp{{{{stone ]]]]]] the ((((( wool",
        "\ufffd\ufffd\ufffdbread \ufffd\ufffd\ufffd milk\ufffd\ufffd\ufffd",
        ">>> moon>>>> sun>>>>sea >>>>>>>>>",
    ],
    "scripts": ["паromа wуска зatоn rивер", "ประt เทa ศไi", "lampλάμπα σkιe wαter"],
    "numbered lines": [
        "1. Buy apples\n2. Buy apples\n3. Buy apples\n4. Buy",
        "Part 1:\n\nPart 2:\n\nPart 3:\n\nPart 4:\n\nPart",
        "- Item A1\n- Item A2\n- Item A3\n- Item A4",
        "第1章\n第2章\n第3章\n第4章",
    ],
}

NORMAL = {
    "Arabic": "القطار الأول يغادر المحطة في الساعة السادسة صباحًا، والقطار الثاني بعده بساعة واحدة.",
    "Armenian": "Առաջին գնացքը կայարանից մեկնում է առավոտյան ժամը վեցին, իսկ երկրորդը՝ մեկ ժամ անց։",
    "Bengali": "প্রথম ট্রেনটি সকাল ছয়টায় স্টেশন ছাড়ে, আর দ্বিতীয়টি এক ঘণ্টা পরে।",
    "Chinese": "第一班火车早上六点离开车站，第二班在一个小时之后出发。请提前到达。",
    "Georgian": "პირველი მატარებელი სადგურიდან დილის ექვს საათზე გადის, მეორე კი ერთი საათის შემდეგ.",
    "Greek": "Το πρώτο τρένο φεύγει από τον σταθμό στις έξι το πρωί, και το δεύτερο μία ώρα αργότερα.",
    "Hebrew": 'הרכבת הראשונה יוצאת מהתחנה בשש בבוקר, והשנייה שעה אחריה. מו"מ נמשך.',
    "Hindi": "पहली रेलगाड़ी सुबह छह बजे स्टेशन से चलती है, और दूसरी उसके एक घंटे बाद।",
    "Japanese": "最初の電車は朝6時に駅を出て、次の電車はその1時間後です。iPhoneのアプリで確認できます。",
    "Korean": "첫 기차는 아침 6시에 역을 떠나고 두 번째 기차는 한 시간 뒤에 떠납니다. KTX는 더 빠릅니다.",
    "Russian": "Первый поезд уходит со станции в шесть утра, а второй — через час. В Windows 11 это видно в меню.",
    "Thai": "รถไฟขบวนแรกออกจากสถานีเวลาหกโมงเช้า และขบวนที่สองออกหลังจากนั้นหนึ่งชั่วโมง",
    "Vietnamese": "Chuyến tàu đầu tiên rời ga lúc sáu giờ sáng, và chuyến thứ hai một giờ sau đó.",
    "a list of translations": "Hello: привет (Russian), γειά (Greek), مرحبا (Arabic), 你好 (Chinese), שלום (Hebrew).",
    "code in a fence": "```c\nfor(i=0;i<n;i++){a[i]=b[i]<<2;}\n```",
    "code": "for(i=0;i<n;i++) { a[i]=f(b[i]); }\nif(a[0]<b[0]) { swap(&a[0],&b[0]); }",
    "a Python prompt": ">>> import math\n>>> math.sqrt(2)\n1.4142135623730951",
    "HTML": "<ul><li>bread</li><li>milk</li></ul><p>Take <b>two</b>.</p>",
    "JSON": '{"name":"lamp","price":12,"tags":["brass","old"]}',
    "a formula": "x^2+3x=10, so (x+5)(x-2)=0, and x=2 or x=-5.",
    "a table": "| day | train |\n|---|---|\n| Monday | 6:10 |\n| Tuesday | 6:20 |",
    "a quotation": "> The first train leaves at six.\n> The second one leaves later.",
    "stress": "Wow!!! That is great!!! Thank you so much :-) ... See you --- soon ***",
    "emoji": "Pack light 🎒🎒🎒 and bring water 💧, a hat 🧢 and sun cream ☀️!",
    "an address": "See https://example.org/a?b=1&c=<id> and https://example.org/{x}, then write to me@example.org.",
    "a numbered list": "1. Buy apples.\n2. Buy pears.\n3. Peel the apples.\n4. Bake the pears.",
    "riddles": "1. I have a neck, but no head. What am I?\n2. I have a face, but no eyes. What am I?\n3. I have teeth.",
    "a verse": "Row, row, row your boat,\nGently down the stream,\nMerrily, merrily, merrily, merrily,\nLife is but a dream.",
    "a refrain": "The sea is wide\nThe night is long\nThe sea is wide\nI sing my song",
}


@pytest.mark.parametrize("text", [text for texts in BROKEN.values() for text in texts])
def test_a_broken_text_is_degenerate_and_shows_why(text):
    shown = broken(Reading.of(text))
    assert shown
    assert shown in text
    assert decide(text, "Describe the timetable of a small station").label == "degenerate"


@pytest.mark.parametrize("name", NORMAL)
def test_a_normal_text_is_not_broken(name):
    text = NORMAL[name]
    assert broken(Reading.of(text)) is None
    assert decide(text, "Describe the timetable of a small station").label != "degenerate"


def test_a_loop_after_a_first_line_is_left_to_the_words():
    """The line says something, so only the share of repeated words decides."""
    text = "The train leaves at six in the morning from the first platform.\nNext\nNext\nNext\nNext"
    assert broken(Reading.of(text)) is None


def test_salad_within_much_good_text_does_not_count():
    text = "The first train leaves at six in the morning, and the second one leaves an hour later. >>>> a>>b"
    assert broken(Reading.of(text)) is None


@pytest.mark.parametrize("unit", ["a>>>b ", "]]]]", "x\n", "1. a\n", "```", "> ", "aя", "| a\n", "(a"])
def test_time_is_linear(unit):
    began = time.process_time()
    broken(Reading.of(unit * (100_000 // len(unit))))
    assert time.process_time() - began < 10
