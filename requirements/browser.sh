#!/usr/bin/env bash
# Chromium for the tests of the review page. Without one they are skipped and nothing else needs it, so this never fails.
set -uo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[browser]\033[0m %s\n' "$*"; }
.venv/bin/python -m tests.browser >/dev/null && exit 0
say "Chromium, for the tests of the review page"
sudo=""; [[ $(id -u) == 0 ]] || sudo=sudo
if [[ $(. /etc/os-release && echo "$ID") == debian ]]; then
  timeout 600 $sudo sh -c 'apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium' >/dev/null
else
  timeout 600 .venv/bin/playwright install --with-deps chromium >/dev/null
fi
.venv/bin/python -m tests.browser >/dev/null || say "none to be had: those tests will be skipped"
exit 0
