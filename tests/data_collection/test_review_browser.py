"""Every action of the review page in headless Chromium, against the server as a person starts it."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, sync_playwright

from safe_policy_core.data.episodes import read_episode, write_episode
from safe_policy_core.data.labels import LabelLayer, recording_id
from safe_policy_core.data.scores import Score, write_scores
from tests.browser import chromium
from tests.data_collection.review_rig import pushed, serving

CHROMIUM = chromium()
EPISODES, STEPS = 6, 12

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (requirements/browser.sh)")


class Review:
    """The page, and the labels that it wrote."""

    def __init__(self, folder: Path, url: str, page: Page) -> None:
        self.folder, self.url, self.page = folder, url, page

    def choose(self, name: str) -> None:
        self.page.click(f".entry[data-name='{name}']")
        self.page.wait_for_function("name => document.querySelector('.episode').textContent === name", arg=name)
        self.press("Home")  # choosing the episode that is shown does not move the frame
        self.frame(0)

    def frame(self, number: int) -> None:
        """Waits until frame `number` is drawn."""
        self.page.wait_for_function("n => document.querySelector('.frame').dataset.frame == n "
                                    "&& document.querySelector('.clock b').textContent == n", arg=number)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def labels(self, name: str) -> dict[str, Any]:
        """What training would see."""
        episode, layer = read_episode(self.folder / name), LabelLayer(self.folder)
        labelled, recording = layer.apply(episode), recording_id(episode)
        return {"reward": labelled.reward.tolist(), "cost": labelled.cost.nonzero()[0].tolist(),
                "verdict": layer.verdict(recording), "note": layer.note(recording)}

    def wait(self, name: str, field: str, value: object) -> None:
        for _ in range(200):
            if self.labels(name)[field] == value:
                return
            self.page.wait_for_timeout(25)
        assert self.labels(name)[field] == value

    def drag(self, lane: int, first: int, last: int) -> None:
        """Drags over the frames first..last at the height of a lane: 0 reward, 1 cost."""
        box = self.page.locator(".tracks").bounding_box()
        assert box is not None
        y = box["y"] + 7 + lane * 29 + 11

        def x(frame: int) -> float:
            return box["x"] + 86 + (frame + 0.5) / (STEPS + 1) * (box["width"] - 94)

        self.page.mouse.move(x(first), y)
        self.page.mouse.down()
        self.page.mouse.move(x((first + last) // 2), y)
        self.page.mouse.move(x(last), y)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    folder = tmp_path_factory.mktemp("dataset")
    for seed in range(EPISODES):
        episode = pushed(STEPS, seed=seed) if seed != 5 else pushed(STEPS, 3, 3, seed=5)
        write_episode(folder / f"{seed}.h5", episode)
    write_scores(folder, [Score(recording_id(pushed(seed=3)), "3.h5", "dspo", 0.05, tuple([0.1] * STEPS))])
    (folder / "bad.h5").write_bytes(b"not an episode")
    (folder / "secret.txt").write_text("not for browsers")
    with serving(folder) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1400, "height": 850}).new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_selector(".entry .chip")
        yield Review(folder, url, page)
        browser.close()
    assert not complaints


def test_the_list_begins_with_the_worst_score_and_tells_of_bad_files(review: Review) -> None:
    page = review.page
    page.wait_for_function("document.querySelectorAll('.scatter circle').length === 6")
    assert page.locator(".entry").count() == EPISODES + 1
    assert page.locator(".entry").first.get_attribute("data-name") == "3.h5"
    assert "0.05" in page.locator(".entry").first.inner_text()
    assert "not an HDF5 file" in page.locator(".entry[data-name='bad.h5']").inner_text()
    page.wait_for_function("document.querySelectorAll('img.thumbnail').length === 6 && "
                           "[...document.querySelectorAll('img.thumbnail')].every((image) => image.naturalWidth)")


def test_frames_are_scrubbed_with_keys_and_pointer(review: Review) -> None:
    review.choose("0.h5")
    review.press("ArrowRight", "ArrowRight", "ArrowLeft")
    review.frame(1)
    review.press("End")
    review.frame(STEPS)
    review.press("Home")
    review.frame(0)
    picture = "document.querySelector('.frame').toDataURL()"
    first = review.page.evaluate(picture)
    review.drag(4, 2, 9)  # over the curves
    review.frame(9)
    assert review.page.evaluate(picture) != first
    assert review.labels("0.h5")["cost"] == [], "scrubbing marks nothing"
    review.press("Home", " ")
    review.frame(2)
    review.press(" ")


def test_dragging_marks_and_erases_cost_and_reward(review: Review) -> None:
    review.choose("0.h5")
    review.drag(1, 4, 7)
    review.wait("0.h5", "cost", [3, 4, 5, 6])
    review.drag(1, 7, 6)
    review.wait("0.h5", "cost", [3, 4])
    review.drag(0, 2, 2)
    review.wait("0.h5", "reward", [0.0, 1.0] + [0.0] * 9 + [1.0])
    assert "cost 1 3–6" in review.page.inner_text(".history")
    assert "C 2" in review.page.inner_text(".entry[data-name='0.h5']")


def test_keys_mark_a_selection_and_undo_takes_it_back(review: Review) -> None:
    review.choose("1.h5")
    review.press("ArrowRight", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "2")
    review.wait("1.h5", "cost", [1, 2, 3])
    review.press("End", "1")
    review.wait("1.h5", "reward", [0.0] * STEPS)
    review.press("u")
    review.wait("1.h5", "reward", [0.0] * 11 + [1.0])
    review.press("Control+z")
    review.wait("1.h5", "cost", [])


def test_a_suggestion_is_taken_or_made_from_the_first_contact(review: Review) -> None:
    review.choose("2.h5")
    assert review.labels("2.h5")["cost"] == [], "a suggestion is no label"
    review.press("c")
    review.wait("2.h5", "cost", list(range(2, 10)))
    review.press("u")
    review.wait("2.h5", "cost", [])
    review.press("Home", *["ArrowRight"] * 5, "Shift+C")
    review.wait("2.h5", "cost", list(range(4, 10)))
    review.choose("5.h5")
    review.press("c")
    review.page.wait_for_selector("text=nothing here suggests a contact")
    assert review.labels("5.h5")["cost"] == []


def test_verdicts_by_key_and_button_go_on_to_the_next(review: Review) -> None:
    page = review.page
    review.choose("3.h5")
    review.press("a")
    review.wait("3.h5", "verdict", "accept")
    page.wait_for_function("document.querySelector('.episode').textContent === '0.h5'")
    page.click("button:has-text('Reject')")
    review.wait("0.h5", "verdict", "reject")
    page.wait_for_selector("text=2 of 6 reviewed")
    review.choose("0.h5")
    review.press("o")
    review.wait("0.h5", "verdict", "open")
    page.click("button:has-text('Undo')")
    review.wait("0.h5", "verdict", "reject")
    review.press("ArrowUp")
    page.wait_for_function("document.querySelector('.episode').textContent === '3.h5'")
    review.press("j")
    page.wait_for_function("document.querySelector('.episode').textContent === '0.h5'")


def test_notes_are_written_without_triggering_keys(review: Review) -> None:
    review.choose("4.h5")
    review.press("n")
    review.page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
    review.page.keyboard.type("a rocking box")
    review.press("Escape")
    review.wait("4.h5", "note", "a rocking box")
    assert review.labels("4.h5")["verdict"] == "open"
    review.choose("1.h5")
    assert review.page.input_value("textarea") == ""
    review.choose("4.h5")
    assert review.page.input_value("textarea") == "a rocking box"


def test_search_filter_order_and_scatter_choose(review: Review) -> None:
    page = review.page
    review.press("/")
    page.wait_for_function("document.activeElement.tagName === 'INPUT'")
    page.keyboard.type("rocking")
    page.wait_for_function("document.querySelectorAll('.entry').length === 1")
    page.fill(".search input", "")
    review.press("Escape")
    page.wait_for_function("document.querySelectorAll('.entry').length === 7")
    review.press("s")
    page.wait_for_function("document.querySelector('.entry').dataset.name === '0.h5'")
    for _ in range(7):
        review.press("f")
    page.wait_for_function("[...document.querySelectorAll('.entry')].map((e) => e.dataset.name).join() === 'bad.h5'")
    review.press("f")
    page.wait_for_function("document.querySelectorAll('.entry').length === 7")
    page.locator(".scatter circle[data-index='1']").dispatch_event("click")
    page.wait_for_function("document.querySelector('.episode').textContent === '1.h5'")
    review.press("?")
    page.wait_for_selector("text=take the suggested cost")
    review.press("Escape")
    page.wait_for_selector("text=take the suggested cost", state="hidden")


def test_another_window_shows_the_change(review: Review) -> None:
    other = review.page.context.new_page()
    other.goto(review.url)
    other.wait_for_selector(".entry .chip")
    review.choose("5.h5")
    review.drag(1, 3, 4)
    other.wait_for_function("document.querySelector(\".entry[data-name='5.h5']\").textContent.includes('C 2')")
    other.close()


def answer(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_other_hosts_and_origins_are_refused(review: Review) -> None:
    port = review.url.split(":")[-1].strip("/")
    assert answer(review.url) == 200
    assert answer(review.url, Host=f"localhost:{port}") == 200
    assert answer(review.url, Host="evil.example") == 403
    assert answer(review.url, Origin="http://evil.example") == 403
    assert answer(review.url, Sec_Fetch_Site="cross-site") == 403
    assert answer(f"{review.url}live", Origin="http://evil.example") == 403
    with socket.socket() as probe:
        probe.settimeout(0.5)
        with pytest.raises(OSError):  # only the loopback address listens
            probe.connect((socket.gethostbyname(socket.gethostname()), int(port)))
            raise OSError if socket.gethostbyname(socket.gethostname()).startswith("127.") else AssertionError


def test_a_page_of_another_origin_reaches_no_socket(review: Review) -> None:
    other = review.page.context.new_page()
    other.goto("about:blank")
    script = """(url) => new Promise((done) => { const s = new WebSocket(url);
        s.onopen = () => done("open"); s.onerror = () => done("refused"); })"""
    address = review.url.replace("http", "ws") + "live"
    assert other.evaluate(script, address) == "refused"
    assert review.page.evaluate(script, address) == "open"
    with pytest.raises(Error):
        other.evaluate("(url) => fetch(url)", review.url)
    other.close()


def test_nothing_but_pictures_of_the_dataset_is_served(review: Review) -> None:
    recording = recording_id(pushed(seed=0))
    assert answer(f"{review.url}picture/0/{recording}") == 200
    for path in ("secret.txt", "../secret.txt", "..%2fsecret.txt", "picture/0/other", f"picture/99/{recording}",
                 f"picture/-1/{recording}", f"picture/0/{recording}/..%2f..%2fsecret.txt", "labels.jsonl", "0.h5",
                 "live/../0.h5", "web/../review/server.py", "//etc/passwd", f"picture/0/{recording}/99"):
        assert answer(review.url + path) == 404, path
