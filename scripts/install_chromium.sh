#!/usr/bin/env bash
# Installs Debian's Chromium, which the browser tests of the page need, if no Chromium or Chrome is found. Never fails: on other
# systems it installs nothing, and those tests are skipped with a message.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null; then
    echo "no Chromium and no apt-get: the browser tests of the page will be skipped" >&2
    exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        echo "no Chromium, and no permission to install it: the browser tests of the page will be skipped" >&2
        exit 0
    fi
    as_root=(sudo -n)
fi
export DEBIAN_FRONTEND=noninteractive
if ! "${as_root[@]}" apt-get update -qq || ! "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
    echo "Debian's chromium could not be installed: the browser tests of the page will be skipped" >&2
fi
