"""How often the filters find a name in disguise, and how often they stop ordinary text, on TOFU: docs/filters.md.

python benchmarks/filter_rates.py FOLDER    # of TOFU: full.json, real_authors_perturbed.json, …
"""

from __future__ import annotations

import base64
import codecs
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from expunge.filters.marks import Marks
from expunge.filters.matcher import Matcher
from expunge.filters.near import NearMarks
from expunge.filters.normal import words
from expunge.filters.stream import StreamFilter

KEY = b"a key for a measurement, no secret"
SKIPPED = re.compile(r"(The|Yes|No|Is|Are|Can|Could|Did|Do|Does|Has|Have|How|In|What|When|Where|Which|Who|Why|Born)")
RUN = re.compile(r"[A-Z][\w'’-]+(?: (?:(?:bin|al|van|der|de)\b|[A-Z][\w'’-]+))+")
CYRILLIC = str.maketrans("acehijopsxyABCEHIJKMOPSTXY", "асеһіјорѕхуАВСЕНІЈКМОРЅТХУ")
GREEK = str.maketrans("aeionuvopxyABEHIKMNOPTXYZ", "αειοηυνορχγΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")
SMALL = str.maketrans("abcdefghijklmnoprtuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ")
MORSE = (
    "a.- b-... c-.-. d-.. e. f..-. g--. h.... i.. j.--- k-.- l.-.. m-- n-. o--- p.--. q--.- r.-. s... t- u..- v...- "
    "w.-- x-..- y-.-- z--.."
)


def styled(start: int) -> Callable[[str], str]:
    """Letters of one of Unicode's mathematical alphabets, or full width."""
    return lambda t: "".join(
        chr(start + ord(c) - 65) if "A" <= c <= "Z" else chr(start + 26 + ord(c) - 97) if "a" <= c <= "z" else c
        for c in t
    )


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def caesar(text: str) -> str:
    return "".join(chr((ord(c) - 97 + 3) % 26 + 97) if "a" <= c <= "z" else c for c in text.lower())


def morse(text: str) -> str:
    signs = {sign[0]: sign[1:] for sign in MORSE.split()}
    return " ".join(signs.get(c, c) for c in text.lower())


def misspelled(text: str) -> str:
    """One letter in the middle of the longest word exchanged with its neighbour."""
    word = max(text.split(), key=len)
    k = len(word) // 2
    return text.replace(word, word[: k - 1] + word[k] + word[k - 1] + word[k + 1 :])


def wrong_letter(text: str) -> str:
    k = len(text) // 2 - (not text[len(text) // 2].isalpha())
    return f"{text[:k]}{'q' if text[k] != 'q' else 'z'}{text[k + 1 :]}"


NAME: dict[str, Callable[[str], str]] = {  # what is done to the name alone, inside its sentence
    "as it is": str,
    "capitals": str.upper,
    "random case": lambda t: "".join(
        c.upper() if random.Random(f"{t}{k}").random() < 0.5 else c for k, c in enumerate(t)
    ),
    "full width": full_width,
    "mathematical bold": styled(0x1D400),
    "mathematical script": styled(0x1D4D0),
    "small capitals": lambda t: t.translate(SMALL),
    "accents on every letter": lambda t: "".join(f"{c}\u0301" if c.isalpha() else c for c in t),
    "three spaces between words": lambda t: t.replace(" ", "   "),
    "no spaces": lambda t: t.replace(" ", ""),
    "spaces between letters": " ".join,
    "points between letters": ".".join,
    "zero width between letters": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "Cyrillic look-alikes": lambda t: t.translate(CYRILLIC),
    "Greek look-alikes": lambda t: t.translate(GREEK),
    "leet (a e i o)": lambda t: t.lower().translate(str.maketrans("aeio", "4310")),
    "leet (a e i o s t, symbols)": lambda t: t.lower().translate(str.maketrans("aeiost", "@3!0$7")),
    "base64": encoded,
    "hex": lambda t: t.encode().hex(),
    r"hex as \x4a": lambda t: "".join(f"\\x{b:02x}" for b in t.encode()),
    "percent": lambda t: "".join(f"%{b:02X}" for b in t.encode()),
    "rot13": lambda t: codecs.encode(t, "rot13"),
    "reversed": lambda t: t[::-1],
    "reversed, each word": lambda t: " ".join(w[::-1] for w in t.split()),
    "two letters exchanged": misspelled,
    "one wrong letter": wrong_letter,
    "first word only": lambda t: t.split()[0],
    "last word only": lambda t: t.split()[-1],
    "words in another order": lambda t: " ".join(reversed(t.split())),
    "inside a longer word": lambda t: "xx" + "".join(t.split()) + "xx",
    "33 zero widths between letters": ("\u200b" * 33).join,
    "Caesar by 3": caesar,
    "Morse": morse,
    "base64 twice": lambda t: encoded(encoded(t)),
    "HTML entities": lambda t: "".join(f"&#{ord(c)};" for c in t),
    "a letter a line, numbered": lambda t: "\n".join(f"{k}. {c}" for k, c in enumerate(t, 1)),
}
WHOLE: dict[str, Callable[[str], str]] = {
    "base64 of the sentence": encoded,
    "hex of the sentence": NAME["hex"],
    "rot13 of the sentence": NAME["rot13"],
    "sentence reversed": NAME["reversed"],
}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def authors(texts: Sequence[dict[str, str]]) -> list[str]:
    """Name of each author: the capitalised words in a row that are most frequent in their 20 questions and answers."""
    names = []
    for k in range(0, len(texts), 20):
        counts: Counter[str] = Counter()
        for text in texts[k : k + 20]:
            for run in RUN.findall(f"{text['question']} {text['answer']}"):
                parts = re.sub(r"['’]s\b", "", run).split()
                while parts and SKIPPED.fullmatch(parts[0]):
                    parts = parts[1:]
                if len(parts) > 1:
                    counts[" ".join(parts)] += 1
        names.append(counts.most_common(1)[0][0])
    return names


def rate(matcher: Matcher, texts: Iterable[str]) -> str:
    found = [matcher.holds(t) for t in texts]
    return f"{sum(found)} of {len(found)} ({100 * sum(found) / len(found):.2f}%)"


def caught(names: list[str], full: list[dict[str, str]]) -> None:
    """Every question that holds its author's name, with the name disguised; every eighth for near matches."""
    marks, near = Marks.of(names, key=KEY), NearMarks(names)
    pairs = [(names[k // 20], row["question"]) for k, row in enumerate(full)]
    pairs = [(name, question) for name, question in pairs if name in question]
    print(f"{len(set(names))} names, {len(pairs)} questions that hold one")
    for title, change in NAME.items():
        told = [question.replace(name, change(name)) for name, question in pairs]
        print(f"| {title} | {rate(marks, told)} | {rate(near, told[::8])} |")
    for title, change in WHOLE.items():
        told = [change(question) for _, question in pairs]
        print(f"| {title} | {rate(marks, told)} | {rate(near, told[::8])} |")


def blocked(names: list[str], full: list[dict[str, str]], other: list[str]) -> None:
    """Texts of the 180 authors who stay, and of real authors and the world, that filters of the last 20 stop."""
    kept = [text for row in full[:3600] for text in (row["question"], row["answer"])]
    letters = [tuple(w.letters for w in words(text)) for text in kept]
    known = {row[k : k + 5] for row in letters for k in range(len(row) - 4)}
    answers = [tuple(w.letters for w in words(row["answer"])) for row in full[3600:]]
    runs = {row[k : k + 5] for row in answers for k in range(len(row) - 4)}
    matchers: dict[str, Matcher] = {
        "20 names": Marks.of(names[180:], key=KEY),
        "20 names, near": NearMarks(names[180:]),
        "runs of 5 words of 400 answers": Marks.of((" ".join(r) for r in sorted(runs)), key=KEY),
        "the same, without those in retained texts": Marks.of((" ".join(r) for r in sorted(runs - known)), key=KEY),
    }
    for title, matcher in matchers.items():
        print(f"| {title} | {rate(matcher, kept)} | {rate(matcher, other)} |")
    for title, matcher in (("200 names", Marks.of(names, key=KEY)), ("200 names, near", NearMarks(names))):
        print(f"| {title} | — | {rate(matcher, other)} |")


def speed(names: list[str], text: str) -> None:
    """Processor time on text of the kept authors: at once, and in pieces of four characters."""
    for title, matcher in (("marks", Marks.of(names, key=KEY)), ("near", NearMarks(names))):
        started = time.process_time()
        matcher.find(text)
        whole = time.process_time() - started
        stream, held, started = StreamFilter(matcher), [], time.process_time()
        for k in range(0, 20_000, 4):
            stream.push(text[k : k + 4])
            held.append(stream.held)
        piece = (time.process_time() - started) / len(held)
        print(
            f"{title}: {1e6 * whole / len(text):.1f} µs a character, {1e3 * piece:.2f} ms a piece of 4, held back "
            f"{sum(held) / len(held):.0f} characters on average, {max(held)} at most"
        )


def main(folder: Path) -> None:
    full = rows(folder, "full.json")
    names = authors(full)
    files = ("real_authors_perturbed.json", "world_facts_perturbed.json")
    other = [text for f in files for row in rows(folder, f) for text in (row["question"], row["answer"])]
    caught(names, full)
    blocked(names, full, other)
    speed(names[180:], " ".join(row["answer"] for row in full)[:100_000])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
