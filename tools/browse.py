"Open every page of the built site in headless Chromium, as a reader would, on a desk and on a phone."
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"width": 390, "height": 844}
SOUGHT = {"predict_proba": "model.html", "run_study": "run.html", "read_xray": "image.html"}  # a name → the page that documents it
EMPTY = {"image": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg' width='120' height='20'/>"), "stylesheet": ("text/css", "")}


class Quiet(SimpleHTTPRequestHandler):
    "The files of a folder, with no line on the terminal for each."
    def log_message(self, *args): pass


def found():
    "The browser of this machine, or None."
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def offline(route, home, noted):
    "Answer what is not on this site with nothing, so that a check needs no network, and note it: nothing is to be fetched."
    if route.request.url.startswith(home): return route.continue_()
    noted.append(f"fetched from elsewhere: {route.request.url}")
    kind, body = EMPTY.get(route.request.resource_type, ("text/javascript", ""))
    route.fulfill(status=200, content_type=kind, body=body)


def look(page):
    "What is wrong with the page that is open, on a desk and on a phone."
    images = page.eval_on_selector_all("main img", "all => all.map(i => [i.alt, i.complete && i.naturalWidth > 0, i.src.slice(0, 60)])")
    for alt, alive, src in images:
        if not alt: yield f"an image without alternative text: {src}"
        if not alive: yield f"a dead image: {alt or src}"
    desk = page.viewport_size
    page.set_viewport_size(PHONE)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > PHONE["width"]: yield f"scrolls sideways at {PHONE['width']} px: it is {width} px wide"
    page.set_viewport_size(desk)


def search(page, name, target):
    "Does typing a function's name lead to its page?"
    page.locator("#quarto-search input").first.fill(name)
    try: page.locator(f"a[href*='{target}']", has_text=name).first.wait_for(timeout=4000)
    except Exception: return [f"searching for {name} does not lead to {target}"]
    return []


def try_it(page):
    "Is the first sample of `Try it` answered by keyboard alone, and does the answer fit a phone?"
    page.keyboard.press("Tab")  # back to the start page; then comes the place for a file, then the samples
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    try: page.wait_for_selector("#time:not(:empty)", timeout=60_000)
    except Exception: return ["the first sample is not answered by keyboard"]
    return [*look(page), *(["an answer without a probability"] if not page.inner_text("#probability") else [])]


def problems(site):
    "Everything that is wrong with the site in a folder, a line each."
    from playwright.sync_api import sync_playwright
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    home, noted, wrong = f"http://127.0.0.1:{server.server_port}/", [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.route("**/*", lambda route: offline(route, home, noted))
        page.on("console", lambda m: m.type == "error" and noted.append(f"console: {m.text}"))
        page.on("pageerror", lambda e: noted.append(f"script: {e}"))
        page.on("response", lambda r: r.status >= 400 and noted.append(f"{r.status}: {r.url}"))
        for path in sorted(Path(site).rglob("*.html")):
            noted.clear()
            page.goto(home + path.relative_to(site).as_posix())
            wrong += [f"{path.name}: {line}" for line in (*look(page), *noted)]
        noted.clear()
        page.goto(home + "try.html")
        wrong += [f"try.html: {line}" for line in (*try_it(page), *noted)]
        page.goto(home + "index.html")
        for name, target in SOUGHT.items(): wrong += search(page, name, target)
        page.emulate_media(color_scheme="dark")
        page.reload()
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(v => v > 127)")
        if light: wrong.append("index.html: light where the reader's system is dark")
        browser.close()
    server.shutdown()
    return wrong
