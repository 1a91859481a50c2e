"""Drives the demo page in a real browser, step by step: commands come on stdin, a JSON line goes out for each.

    say TEXT          types TEXT, sends it, and waits until the page shows it as received
    read ID           the text of the element with this id
    wait ID TEXT      waits until the element's text contains TEXT
"""

import json
import sys

from playwright.sync_api import Error, sync_playwright

LIMIT_MILLISECONDS = 15_000


def step(page, command, rest):
    if command == "say":
        page.fill("#text", rest)
        page.click("#send")
        line = page.locator("#messages li").filter(has_text="received").filter(has_text=rest)
        line.first.wait_for(timeout=LIMIT_MILLISECONDS)
        return line.first.inner_text()
    if command == "wait":
        element, text = rest.split(" ", 1)
        page.locator(f"#{element}").filter(has_text=text).wait_for(timeout=LIMIT_MILLISECONDS)
        return page.inner_text(f"#{element}")
    if command == "read":
        return page.inner_text(f"#{rest}")
    raise ValueError(command)


def main():
    url, browser_path, resolver = sys.argv[1:4]
    with sync_playwright() as playwright:
        # The host's name leads to the gateway under test, whatever the resolver of this machine says.
        arguments = ["--no-sandbox", f"--host-resolver-rules={resolver}"]
        browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
        page = browser.new_context(ignore_https_errors=True).new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url, timeout=LIMIT_MILLISECONDS)
        print(json.dumps({"title": page.title()}), flush=True)
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            try:
                text = step(page, command, rest)
            except Error:
                # What the page does show says more than that something was not found on it.
                print(page.inner_text("main"), file=sys.stderr)
                raise
            print(json.dumps({"step": command, "text": text, "errors": problems}), flush=True)
        browser.close()


main()
