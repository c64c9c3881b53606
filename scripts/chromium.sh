#!/usr/bin/env bash
# Chromium for the tests of the reports' pages: the installed one, else, as root on Debian or Ubuntu, the package.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Chromium here, and no right to install one: tests of the reports' pages will be skipped" >&2
    exit
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu fonts-noto-cjk; } >/dev/null ||
    echo "Chromium could not be installed: tests of the reports' pages will be skipped" >&2
