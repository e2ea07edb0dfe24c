"""Sheets that people fill: what is on them, in a browser and in a table, and what is read back."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mothertongue import annotations, sheets
from mothertongue.annotations import AnnotatedItem
from mothertongue.errors import BadInput
from mothertongue.records import Answer, Message, Split, Thread
from mothertongue.rows import read_rows, write_rows
from stages import annotate

NASTY = "</script><script>alert(1)</script> <!-- <b>fin</b> \u2028 =1+1 «ñ»\n\tdos"


def thread(number: int, split: Split = "validation", reference: str | None = None) -> Thread:
    return Thread(
        id=f"t{number:02}",
        conversation="c",
        language="es",
        group="g",
        split=split,
        prompt=[Message(role="user", content=f"¿Qué es {number}? {NASTY}")],
        reference=reference or f"El {number} es un número.",
    )


def answer(of: Thread, text: str, index: int = 0, generator: str = "plain") -> Answer:
    return Answer(
        id=f"{generator}-{of.id}-{index}",
        thread=of.id,
        generator=generator,
        index=index,
        text=text,
        tokens=1,
        finish="stop",
    )


THREADS = [thread(number, "test" if number < 3 else "train" if number < 8 else "validation") for number in range(12)]
ANSWERS = [answer(each, f"={each.id} {NASTY}") for each in THREADS]


def test_items_are_of_two_different_answers_in_random_order() -> None:
    same = answer(THREADS[11], f" {THREADS[11].reference}  ")
    items = sheets.draw_items(THREADS, [*ANSWERS[:11], same], 50, seed=1)
    assert len(items) == 8  # of 12, three are of split test and one has the same answer twice
    first = [item.answers[0].startswith("=") for item in items]
    assert 0 < sum(first) < 8
    assert all(len(set(item.answers)) == 2 for item in items)
    fewer = sheets.draw_items(THREADS, ANSWERS, 3, seed=1)
    assert fewer == sheets.draw_items(list(reversed(THREADS)), list(reversed(ANSWERS)), 3, seed=1)
    assert len(fewer) == 3
    assert fewer != sheets.draw_items(THREADS, ANSWERS, 3, seed=2)
    with pytest.raises(BadInput, match="no thread outside split test has two different answers; run stage generated"):
        sheets.draw_items(THREADS, [same], 3, seed=1)


def test_a_sheet_does_not_say_who_wrote_an_answer() -> None:
    items = sheets.draw_items(THREADS, ANSWERS, 50, seed=1)
    for text in (sheets.render_html(items), sheets.render_tsv(items)):
        assert "plain" not in text
        assert "reference" not in text
    page = sheets.render_html(items)
    assert page.count("</script>") == 2
    assert "<b>" not in page


@pytest.fixture
def sheet(workplace: Path) -> list[AnnotatedItem]:
    """A sheet written by the command, in the folder of the test, in the order of its page."""
    write_rows(workplace / "data/threads.jsonl", THREADS)
    write_rows(workplace / "data/generated/plain.jsonl", ANSWERS)
    write_rows(workplace / "data/generated/other.jsonl", [])
    result = write_sheet()
    assert (result.exit_code, result.output) == (
        0,
        "sheet.html and sheet.tsv: 4 items with an expert's answer, 0 without\n",
    )
    (shown,) = re.findall('id="items">(.*?)</script>', Path("sheet.html").read_text(encoding="utf-8"))
    key = {item.id: item for item in read_rows(Path("sheet.key.jsonl"), AnnotatedItem)}
    return [key[row["id"]] for row in json.loads(shown)]


def write_sheet() -> Result:
    return CliRunner().invoke(annotate.main, ["sheet", "data/threads.jsonl", "data/generated", "sheet", "--items", "4"])


def read_back(table: str, annotator: str = "ana") -> str:
    arguments = ["read", "sheet.key.jsonl", table, f"data/human/{annotator}.jsonl", "--annotator", annotator]
    return CliRunner().invoke(annotate.main, arguments).output


def test_a_table_is_filled_and_read_back(sheet: list[AnnotatedItem]) -> None:
    assert Path("sheet.tsv").read_bytes().startswith(b'\xef\xbb\xbf"id"\t')
    filled = "id\tpreferred\n" + "".join(
        f"{item.id}\t{choice}\n" for item, choice in zip(sheet, ("1", "", "0", "2"), strict=True)
    )
    Path("filled.tsv").write_text(filled, encoding="utf-8-sig")
    assert (
        read_back("filled.tsv")
        == "data/human/ana.jsonl: 3 of 4 items; `git add` it, so that experiments have it as well\n"
    )
    assert (
        read_back("filled.tsv", "ben")
        == "data/human/ben.jsonl: 3 of 4 items; `git add` it, so that experiments have it as well\n"
    )
    found = {item.id: item for item in annotations.read_items(Path("data/human"))}
    assert set(found) == {sheet[place].id for place in (0, 2, 3)}
    for place, preferred in ((0, 1), (2, 0), (3, 2)):
        item = found[sheet[place].id]
        assert [(each.annotator, each.preferred) for each in item.annotations] == [
            ("ana", preferred),
            ("ben", preferred),
        ]
        assert (item.prompt, item.answers) == (sheet[place].prompt, sheet[place].answers)
        assert sorted(item.origins or ()) == ["plain", "reference"]


def test_the_table_of_the_sheet_itself_is_read_with_nothing_chosen(sheet: list[AnnotatedItem]) -> None:
    """Its cells have tabs and line ends."""
    with pytest.raises(BadInput, match=r"^sheet\.tsv: nothing is chosen; write 1, 2 or 0 into column preferred$"):
        sheets.read_choices(Path("sheet.tsv"), sheet, "ana")
    text = Path("sheet.tsv").read_text(encoding="utf-8")
    assert "\t'=t" in text or "\t\"'=t" in text  # no spreadsheet takes it for a formula


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (
            "id,preferred\n",
            "filled.tsv:1: no columns id and preferred, separated by tabs; save the sheet's table as TSV",
        ),
        ("id\tpreferred\nx\t1\n", "filled.tsv:2: id: no 'x' in the sheet; take the table of that sheet"),
        ("id\tpreferred\nID\t3\n", "filled.tsv:2: preferred: '3' is none of 1, 2 and 0; fix it, or leave it empty"),
        ("id\tpreferred\nID\t1\nID\t1\n", "filled.tsv:3: id: 'ID' is a duplicate; delete one of them"),
        (
            "id\tpreferred\nID\n",
            "filled.tsv:2: preferred: no such cell; save the table as TSV with quoted texts, and all its columns",
        ),
        (
            'id\tquestion\tpreferred\nID\t"qué\t1\n',
            "filled.tsv: after line 1: not TSV (unexpected end of data); save the table as TSV with quoted texts",
        ),
    ],
)
def test_a_table_that_is_wrong(sheet: list[AnnotatedItem], table: str, what: str) -> None:
    Path("filled.tsv").write_text(table.replace("ID", sheet[0].id), encoding="utf-8")
    with pytest.raises(BadInput) as error:
        sheets.read_choices(Path("filled.tsv"), sheet, "ana")
    assert str(error.value) == what.replace("ID", sheet[0].id)


def test_a_table_without_a_row_of_the_sheet(sheet: list[AnnotatedItem]) -> None:
    Path("filled.tsv").write_text(f"id\tpreferred\n{sheet[0].id}\t1\n", encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"filled\.tsv: no row for 3 of the sheet's 4 items, such as 'i\w+'; take the whole"
    ):
        sheets.read_choices(Path("filled.tsv"), sheet, "ana")


def test_an_unfilled_sheet_is_no_file_of_rows(sheet: list[AnnotatedItem]) -> None:
    rows = "".join(f"{item.id}\t\n" for item in sheet)
    Path("filled.tsv").write_text(f"id\tpreferred\n{rows}", encoding="utf-8")
    said = "Error: filled.tsv: nothing is chosen; write 1, 2 or 0 into column preferred\n"
    assert read_back("filled.tsv") == said
    assert not Path("data/human/ana.jsonl").exists()


def test_nobodys_work_is_written_over(sheet: list[AnnotatedItem]) -> None:
    again = write_sheet()
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: sheet.html: is there already; take another name, or delete it\n",
    )
    rows = "".join(f"{item.id}\t{'1' if item == sheet[0] else ''}\n" for item in sheet)
    Path("filled.tsv").write_text(f"id\tpreferred\n{rows}", encoding="utf-8")
    assert (
        read_back("filled.tsv")
        == "data/human/ana.jsonl: 1 of 4 items; `git add` it, so that experiments have it as well\n"
    )
    before = Path("data/human/ana.jsonl").read_bytes()
    assert read_back("filled.tsv") == "Error: data/human/ana.jsonl: is there already; take another name, or delete it\n"
    assert Path("data/human/ana.jsonl").read_bytes() == before
    assert read_back("filled.tsv", " ") == "Error: the annotator's name is empty; give a name or a sign\n"


class Browser:
    """A headless Chromium, by the WebDriver protocol (W3C)."""

    def __init__(self, address: str, downloads: Path) -> None:
        self.address, self.session = address, ""
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            "prefs": {"download.default_directory": str(downloads)},
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = "/session/" + self.ask("/session", wanted)["sessionId"]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{self.session}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def press(self, *keys: str) -> None:
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def run(self, script: str) -> Any:
        return self.ask("/execute/sync", {"script": script, "args": []})


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not (driver := shutil.which("chromedriver")):
        pytest.skip("no chromedriver (Debian's chromium-driver)")
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            line = next(line for line in server.stdout if "successfully on port" in line)
            port = line.strip().rstrip(".").split()[-1]
            found = Browser(f"http://127.0.0.1:{port}", tmp_path / "downloads")
            try:
                yield found
            finally:
                found.ask("", method="DELETE")  # ends Chromium
        finally:
            server.kill()


BACK, NEXT, TAB, ENTER = "\ue012", "\ue014", "\ue004", "\ue007"  # as WebDriver names these keys


@pytest.mark.slow
def test_a_page_is_filled_by_keys_in_a_browser(sheet: list[AnnotatedItem], browser: Browser, tmp_path: Path) -> None:
    """No mouse is needed, all is kept when the page is loaded again, and the saved table is read back."""

    def place() -> Any:
        return browser.run("return document.getElementById('place').textContent")

    def go_to(element: str) -> None:
        for _ in range(12):
            browser.press(TAB)
            if browser.run("return document.activeElement.id") == element:
                return
        raise AssertionError(f"Tab does not reach {element}")

    page = {"url": Path("sheet.html").absolute().as_uri()}
    browser.ask("/url", page)
    assert browser.run("return document.querySelectorAll('.answer').length") == 2
    assert browser.run("return document.querySelector('.turn').textContent") == f"user: {sheet[0].prompt[0].content}"
    assert place() == "1 of 4, 0 chosen"
    go_to("name")
    browser.press(*"Ana 2 López")
    assert place() == "1 of 4, 0 chosen"  # a digit of the name is no choice
    browser.press(TAB, "1", "2")
    assert place() == "3 of 4, 2 chosen"
    browser.ask("/refresh", {})
    assert place() == "3 of 4, 2 chosen"
    assert browser.run("return document.getElementById('name').value") == "Ana 2 López"
    browser.press("0", BACK, BACK, "2", NEXT)  # twice back, to the second, which is chosen anew
    assert place() == "4 of 4, 3 chosen"
    browser.press("1", "2")
    assert place() == "4 of 4, 4 chosen: the last one, save the file"  # and a key too many changes nothing
    go_to("save")
    browser.press(ENTER)
    saved = tmp_path / "downloads/Ana-2-López.tsv"
    deadline = time.monotonic() + 60
    while not (saved.exists() and saved.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (
        read_back(str(saved))
        == "data/human/ana.jsonl: 4 of 4 items; `git add` it, so that experiments have it as well\n"
    )
    found = annotations.read_items(Path("data/human"))
    assert {item.id: item.annotations[0].preferred for item in found} == {
        sheet[0].id: 1,
        sheet[1].id: 2,
        sheet[2].id: 0,
        sheet[3].id: 1,
    }
    go_to("anew")
    for answer_to_question, expected in (
        ("dismiss", "4 of 4, 4 chosen: the last one, save the file"),
        ("accept", "1 of 4, 0 chosen"),
    ):
        browser.press(ENTER)
        browser.ask(f"/alert/{answer_to_question}", {})
        assert place() == expected
