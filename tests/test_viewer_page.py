"""The page of the viewer in a real browser: opened from the disk, read, clicked and driven by keys."""

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
import viewed

from envs.core.tokens import written
from marl_coop.viewer.page import page, twin
from marl_coop.viewer.source import read_run
from marl_coop.viewer.text import visible

pytestmark = pytest.mark.browser
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a finished run, of one with hostile replies, and of an empty folder."""
    folder = tmp_path_factory.mktemp("viewed")
    before, after = viewed.played(30, "always-agree"), viewed.played(30, "ideal")
    first = viewed.run_folder(folder / "first", before=before, updates=[before[:8], after[:8]], after=after)
    hostile = viewed.run_folder(
        folder / "hostile", name=viewed.HOSTILE[0], updates=[viewed.played(1, says=text) for text in viewed.HOSTILE]
    )
    git = viewed.run_folder(folder / "git", after=viewed.played(1, env="PairedFeatures"))
    (folder / "empty").mkdir()
    runs = [read_run(place) for place in (first, hostile, git, folder / "empty")]
    file = folder / "page.html"
    file.write_text(page(twin(runs)), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser, file):
    """Opens a place of the page and gives it, drawn; fails the test where the page complained or asked for anything."""
    complaints, asked, contexts = [], [], []

    def open_at(place: str = "", source=file, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"file://{source}#{place}")
        tab.wait_for_selector("main > *")
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.startswith("file://") and ".html" in url for url in asked), asked


def test_the_first_screen_shows_results_and_draws_its_charts(opened):
    tab = opened()
    tab.wait_for_selector(".chart svg")
    assert tab.locator("h1").first.inner_text() == "seen: first"
    assert tab.locator(".tile .label").first.inner_text() == "Success"
    assert tab.locator(".flips caption").all_inner_texts()[:2] == ["before training", "after training"]
    assert tab.locator(".charts .chart svg").count() >= 5
    assert "Nothing has been played yet." in tab.locator("main").inner_text()


def test_the_curves_of_several_runs_have_one_legend_in_the_colours_of_their_lines(opened):
    tab = opened()
    tab.wait_for_selector(".charts.small .chart svg")
    assert tab.locator(".legend li").all_inner_texts() == ["first", "hostile"]
    assert tab.locator(".charts.small .role-legend").count() == 0
    lines = [
        line.get_attribute("stroke")
        for line in tab.locator(".charts.small .chart").first.locator(".mark-line path").all()
    ]
    assert [tab.evaluate(f"document.documentElement.style.getPropertyValue('--line-{i}')") for i in (0, 1)] == lines


def test_a_tile_says_its_change_its_cases_and_its_ceiling_and_without_a_change_when_it_was_played(opened):
    tab = opened()
    tile = lambda run, at=0: tab.locator(".tiles").nth(run).locator(".tile").nth(at).inner_text()  # noqa: E731
    change = r"\+\d\.\d\d \[\d\.\d\d, \d\.\d\d\] better"
    assert re.search(rf"^Success\n\d\.\d\d → 0\.80\n{change}\n30 cases$", tile(0))
    assert re.search(rf"^J\n.*\n{change}\n\d+ cases, ceiling 0\.90$", tile(0, 1))
    assert re.search(r"^Success\n\d\.\d\d\nafter training\n1 case$", tile(2))


def test_a_run_without_a_ceiling_is_not_said_to_have_one(opened):
    notes = opened().locator(".note", has_text="Brackets and lines").all_inner_texts()
    assert ["Green tick" in note for note in notes] == [True, False, False]
    assert notes[1].endswith("The ceiling is measured when a run ends.")
    assert notes[2].endswith("95 % intervals.")


def test_several_runs_stand_in_one_table_with_their_cases(opened):
    rows = opened().locator("main .scroll").first.locator("tbody tr")
    assert rows.count() == 4
    assert re.match(
        r"seen: first\nafter training\n\t0\.\d\d → 0\.80 \[0\.\d\d, 0\.\d\d\] of 30\t", rows.first.inner_text()
    )
    assert rows.last.inner_text().split() == ["empty", *"–––––"]


def test_hostile_replies_show_as_text_and_run_nothing(opened):
    for number, text in enumerate(viewed.HOSTILE, start=1):
        tab = opened(f"episode/1/update-{number:04d}.0:1")
        tab.wait_for_selector(".turn")
        tab.keyboard.press("r")
        tab.keyboard.press("t")
        said = tab.locator(".turn .reply").first.text_content()
        assert said.startswith(visible(written(text)))
        assert tab.evaluate("window.struck") is None
        assert tab.locator("main img, main script, main b:text('bold')").count() == 0


def test_the_list_is_filtered_sorted_and_searched_and_its_address_says_so(opened):
    tab = opened("episodes")
    total = tab.locator(".choices .faint").inner_text()
    tab.locator(".chip", has_text="capitulated").click()
    tab.wait_for_function("total => document.querySelector('.choices .faint').innerText !== total", arg=total)
    assert "kind=capitulated" in tab.url
    for chips in tab.locator(".episodes tbody tr:not(.spacer) td:nth-child(5)").all_inner_texts():
        assert "capitulated" in chips
    tab.locator(".chip", has_text="most expensive first").click()
    tab.wait_for_selector("th[aria-sort=descending]")
    said = [int(text) for text in tab.locator(".episodes tbody tr:not(.spacer) td:nth-child(6)").all_inner_texts()]
    assert len(said) > 3 and said == sorted(said, reverse=True)
    again = opened(tab.url.partition("#")[2])
    assert again.locator(".episodes tbody td:first-child").all_inner_texts() == (
        tab.locator(".episodes tbody td:first-child").all_inner_texts()
    )


def test_a_search_finds_an_episode_by_its_name(opened):
    tab = opened("episodes")
    tab.keyboard.press("/")
    tab.locator("#search:focus").wait_for()
    tab.keyboard.type("first after:7")
    tab.keyboard.press("Enter")
    tab.locator(".choices .faint", has_text=re.compile("^1 of")).wait_for()
    assert tab.locator(".episodes tbody td:first-child a").all_inner_texts() == ["first after:7"]


def test_an_emptied_search_is_no_search(opened):
    tab = opened("episodes?q=after%3A7")
    tab.locator(".choices .faint", has_text=re.compile("^1 of")).wait_for()
    tab.locator("#search").fill("")  # as its cross does: there is input, and no change
    tab.locator(".choices .faint", has_text=re.compile(r"^(\d+) of \1$")).wait_for()
    assert tab.url.endswith("#episodes")


def test_a_reply_without_end_scrolls_in_its_card(opened, tmp_path):
    file = tmp_path / "long.html"
    run = viewed.run_folder(tmp_path / "run", after=viewed.played(1, says="word " * 12_000))
    file.write_text(page(twin([read_run(run)])), encoding="utf-8")
    tab = opened("episode/0/after:1", source=file, viewport={"width": 390, "height": 844})
    assert tab.locator(".reply").first.evaluate("reply => reply.scrollHeight > 9 * reply.clientHeight")
    assert tab.evaluate("document.documentElement.scrollHeight") < 10_000


def test_only_the_rows_in_sight_exist_and_the_last_one_is_reached(opened):
    tab = opened("episodes")
    rows = tab.locator(".episodes tbody tr:not(.spacer)")
    count = int(tab.locator("nav a").nth(1).inner_text().split()[1])
    assert 20 < rows.count() < count
    tab.locator(".list").evaluate("list => (list.scrollTop = list.scrollHeight)")
    tab.locator("a", has_text="git after:1").wait_for()


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_list_fills_what_its_filters_leave_of_the_screen(opened, width):
    tab = opened("episodes", viewport={"width": width, "height": 844})
    tab.wait_for_selector(".episodes tbody tr:not(.spacer)")
    assert tab.evaluate("document.documentElement.scrollHeight") == 844
    bottom = tab.locator(".list").evaluate("list => list.getBoundingClientRect().bottom")
    assert 800 < bottom < 844


def test_a_page_of_5000_episodes_is_small_and_its_last_one_opens(opened, tmp_path):
    run = viewed.run_folder(tmp_path / "large", updates=[viewed.played(25)])
    data = twin([read_run(run)])
    few = data["runs"][0]["episodes"]
    data["runs"][0]["episodes"] = [one | {"id": f"large:{i}"} for i, one in enumerate(few * 200, start=1)]
    file = tmp_path / "large.html"
    file.write_text(page(data), encoding="utf-8")
    assert file.stat().st_size < 20 * 2**20
    tab = opened("episodes", source=file)
    assert tab.locator(".choices .faint").inner_text() == "5,000 of 5,000"
    assert tab.locator(".episodes tbody tr").count() < 100
    tab.locator(".list").evaluate("list => (list.scrollTop = list.scrollHeight)")
    tab.locator("a", has_text="large:5000").click()
    tab.wait_for_selector(".turn")
    assert tab.locator(".brief").first.inner_text() == few[-1]["detail"]["seats"][0]["brief"]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """The page of an evaluation in which a team has a name that an address must escape."""
    folder = tmp_path_factory.mktemp("evaluated") / "ev"
    beside = {"name": "persuader", "partner": "scripted:persuader"}
    viewed.evaluation_folder(folder, ["scripted:always-agree"], {"name": "unseen"}, beside)
    results = folder / "results.json"
    results.write_text(results.read_text().replace("scripted:always-agree", "http://host/a b?c=%25#m"))
    file = folder / "page.html"
    file.write_text(page(twin([read_run(folder)])), encoding="utf-8")
    return file


def test_an_evaluation_is_filtered_by_condition_and_team_and_every_episode_has_an_address(opened, evaluation):
    tab = opened(source=evaluation)
    assert tab.locator("h2").all_inner_texts()[:2] == [
        "unseen: 6 tasks, the team in all seats",
        "persuader: 6 tasks, the team in one seat",
    ]
    assert "Nothing has been played yet." not in tab.locator("main").inner_text()
    tab = opened("episodes", source=evaluation)
    tab.get_by_label("all conditions").select_option("persuader")
    tab.locator(".choices .faint", has_text=re.compile("^12 of 24")).wait_for()
    tab.get_by_label("all teams").select_option("http://host/a b?c=%25#m")
    tab.locator(".choices .faint", has_text=re.compile("^6 of 24")).wait_for()
    tab.locator(".episodes a").nth(2).click()
    tab.wait_for_selector(".turn")
    assert tab.locator("h1").inner_text().startswith("persuader/http://host/a b?c=%25#m:3")
    again = opened(tab.url.partition("#")[2], source=evaluation)
    again.wait_for_selector(".turn")
    assert again.locator("h1").inner_text() == tab.locator("h1").inner_text()
    again.keyboard.press("b")
    again.wait_for_selector(".panels.two")


def test_on_a_phone_the_tables_of_an_evaluation_scroll_by_themselves(opened, evaluation):
    tab = opened(source=evaluation, viewport={"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_of_an_empty_run_opens(opened, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "empty.html"
    file.write_text(page(twin([read_run(tmp_path / "run")])), encoding="utf-8")
    assert "Nothing has been played yet." in opened(source=file).locator("main").inner_text()
    assert "No episode is like that." in opened("episodes", source=file).locator("main").inner_text()


def test_keys_lead_through_the_list_into_an_episode_to_the_next_beside_itself_and_back(opened):
    tab = opened("episodes")
    titled = lambda text: tab.wait_for_function("t => document.querySelector('h1')?.innerText.includes(t)", arg=text)  # noqa: E731
    for key in "jjjk":
        tab.keyboard.press(key)
    assert tab.locator(".cursor td:first-child").inner_text() == "first before:2"
    tab.keyboard.press("Enter")
    titled("before:2")
    tab.keyboard.press("j")
    titled("before:3")
    tab.keyboard.press("k")
    titled("before:2")
    tab.keyboard.press("b")
    tab.wait_for_selector(".panels.two")
    assert tab.locator(".panel > .label").all_inner_texts() == ["first before:2", "first update-0001.0:2"]
    tab.keyboard.press("Escape")
    tab.wait_for_selector(".episodes")
    assert tab.locator(".cursor td:first-child").inner_text() == "first before:2"


def test_the_same_task_before_and_after_training_stands_side_by_side(opened):
    tab = opened("episode/0/after:2?beside=0/before:2")
    tab.wait_for_selector(".panels.two")
    briefs = tab.locator(".panel").evaluate_all("all => all.map(one => one.querySelector('.brief').innerText)")
    assert briefs[0] == briefs[1]


def test_a_turn_shows_its_pay_its_credit_and_its_tokens_on_demand(opened):
    tab = opened("episode/0/update-0002.0:1")
    tab.wait_for_selector(".turn")
    assert "value 0.25 · return 0.50 · advantage −1.50" in tab.locator(".turn footer").first.inner_text()
    assert tab.locator(".term").count() > 0
    assert not tab.locator(".sampled").first.is_visible()
    tab.keyboard.press("t")
    assert tab.locator(".sampled").first.is_visible()
    assert tab.locator(".sampled output").first.inner_text() == "token 1 of 3: −2.50 nats, p = 0.08"


def test_a_token_says_its_log_probability_to_the_keyboard_and_to_a_finger(opened):
    tab = opened("episode/0/update-0002.0:1", viewport={"width": 390, "height": 844}, has_touch=True)
    tab.locator("#toggle-tokens").tap()
    said = tab.locator(".sampled output").first
    tab.locator(".token").nth(1).tap()
    assert said.inner_text() == "token 2 of 3: −0.01 nats, p = 0.99"
    tab.locator(".sampled").first.focus()
    for key, at in {"ArrowRight": 3, "ArrowLeft": 2}.items():
        tab.keyboard.press(key)
        assert said.inner_text().startswith(f"token {at} of 3: ")
    assert tab.url.endswith("update-0002.0:1")


def test_a_number_says_its_truth_and_a_decision_its_options(opened, tmp_path):
    (episode,) = viewed.played(1, families=["scale"])
    file = tmp_path / "scale.html"
    file.write_text(page(twin([read_run(viewed.run_folder(tmp_path / "run", after=[episode]))])), encoding="utf-8")
    (decision,) = episode.task.decisions
    tab = opened("episode/0/after:1", source=file)
    truth = f"truth: {decision.numeric.truth:g} ± {decision.numeric.tolerance:g}"
    assert truth in tab.locator(".decisions tbody th").first.inner_text()
    said = tab.locator(".note", has_text="options of scale: ").inner_text()
    assert all(option in said for option in decision.options) and f"{decision.blends[0]} (blend)" in said


@pytest.mark.parametrize("asked", [True, False])
def test_a_confidence_shows_where_it_was_asked_for(opened, tmp_path, asked):
    episodes = viewed.played(1, confidences=asked)
    file = tmp_path / "sure.html"
    file.write_text(page(twin([read_run(viewed.run_folder(tmp_path / "run", after=episodes))])), encoding="utf-8")
    tab = opened("episode/0/after:1", source=file)
    for place in (".decisions tbody", ".stance"):
        assert ("%" in tab.locator(place).first.inner_text()) is asked


def test_a_replay_in_which_nobody_hears_a_seat_stands_beside_the_episode(opened):
    tab = opened("episode/0/update-0002.0:1?beside=muted/agent_0")
    tab.wait_for_selector(".panels.two")
    assert tab.locator(".panel > .label").last.inner_text() == "had nobody heard agent_0"


def test_a_merge_shows_its_diff_and_both_suites(opened):
    tab = opened("episode/2/after:1")
    tab.wait_for_selector(".diff")
    assert tab.locator(".diff .added").count() > 0
    assert tab.locator(".tests").first.locator("tbody tr").count() == 2
    tab.locator(".chip", has_text="agent_1's branch").click()
    tab.locator("summary", has_text="Each test").click()
    assert re.match(r"agent_0\t✓\t✓\tsame\(", tab.locator(".tests").last.locator("tbody tr").first.inner_text())
    assert tab.locator(".diff .by.seat-0").count() == 0 and tab.locator(".diff .by.seat-1").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_takes_the_readers_scheme_and_keeps_a_choice(opened, scheme):
    tab = opened("episodes", color_scheme=scheme)
    ground = lambda: tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")  # noqa: E731
    first = ground()
    assert first == {"light": "rgb(251, 251, 249)", "dark": "rgb(21, 24, 27)"}[scheme]
    tab.keyboard.press("d")
    assert ground() != first
    tab.reload()
    tab.wait_for_selector("main > *")
    assert ground() != first


@pytest.mark.parametrize("place", ["", "episodes", "episode/0/after:2?beside=0/before:2", "episode/2/after:1"])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened, place):
    tab = opened(place, viewport={"width": 390, "height": 844})
    if not place:
        tab.wait_for_selector(".chart svg")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_phone_words_without_end_are_broken(opened, tmp_path):
    (episode,) = viewed.played(1, env="PairedFeatures")
    word = "w" * 200
    outcome = replace(episode.outcome, detail=word, merge=replace(episode.outcome.merge, policy=word))
    episode = replace(episode, outcome=outcome, players=dict.fromkeys(episode.seats, word))
    run = viewed.run_folder(tmp_path / "run", updates=[[episode]])
    line = {"update": 1, "step": 1, f"agent_0/advantage_share/{word}": 1.0, f"{word}/entropy": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(line))
    file = tmp_path / "words.html"
    file.write_text(page(twin([read_run(run)])), encoding="utf-8")
    for place in ("", "episodes", "episode/0/update-0001.0:1"):
        tab = opened(place, source=file, viewport={"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, place


def test_on_a_phone_the_name_of_a_condition_without_end_is_broken(opened, tmp_path):
    viewed.evaluation_folder(tmp_path / "ev", ["scripted:ideal"], {"name": "w" * 100}, episodes=1)
    file = tmp_path / "page.html"
    file.write_text(page(twin([read_run(tmp_path / "ev")])), encoding="utf-8")
    tab = opened(source=file, viewport={"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_in_which_no_prior_could_be_read_says_so_where_it_would_show_who_moved(opened, tmp_path):
    (episode,) = viewed.played(1, "ideal")
    silent = replace(episode, turns=tuple(replace(turn, stances=()) for turn in episode.turns))
    run = viewed.run_folder(tmp_path / "run", after=[silent])
    viewed.evaluation_folder(tmp_path / "ev", ["scripted:ideal"], {"name": "unseen"}, episodes=1)
    file = tmp_path / "page.html"
    file.write_text(page(twin([read_run(run), read_run(tmp_path / "ev")])), encoding="utf-8")
    tab = opened(source=file)
    assert "No seat gave an answer before the talk that could be read." in tab.locator("main").inner_text()
    assert tab.locator(".numbers").first.locator("tbody tr").count() == 1  # an evaluation has tables of its own


def test_an_address_of_nothing_says_so(opened):
    tab = opened("episode/0/after:999")
    assert "There is no episode 0/after:999 in this file." in tab.locator("main").inner_text()
    for key in "rtb":
        tab.keyboard.press(key)  # `opened` fails the test where one of them is an error


def test_a_link_opened_in_another_tab_leaves_the_list_where_it_is(opened):
    tab = opened("episodes")
    tab.locator(".episodes a").first.click(modifiers=["ControlOrMeta"])
    assert tab.evaluate("location.hash") == "#episodes"
    tab.locator(".episodes tbody td").nth(2).click()
    tab.wait_for_selector(".panels")
